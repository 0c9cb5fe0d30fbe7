"""Events: pages are staged, then merged. Only what differs gets a new version and an outbox row.

Both ways of applying, a small delta inside one transaction and a listing of 100,000 events in many,
run the same statements. The merge is called with the unit's fence taken, so that no two write a
calendar at once; versions come from one sequence, drawn after that lock, so that later is higher.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from db.ids import new_id
from db.session import driver_cursor

STAGED_COLUMNS = (
    "seq", "kind", "event_id", "provider_key", "resource", "etag", "uid", "series_key", "status", "title",
    "description", "location", "starts_at", "ends_at", "all_day", "time_zone", "recurrence", "original_start",
    "original_all_day", "organizer", "attendees", "link", "transparency", "visibility", "provider_updated_at",
    "raw", "digest",
)  # fmt: skip
MANY = 200  # staged rows; from here on a join by hash beats one by index, whatever the planner believes
KEY_LIMIT = 2000  # bytes of UTF-8; an index entry of Postgres holds 2,704, and a calendar's id goes with the key
BACKSLASH = "\\"
ESCAPED_BACKSLASH = BACKSLASH * 2
NULL = "\\N"
_EVENT_ID = STAGED_COLUMNS.index("event_id")
_RAW = STAGED_COLUMNS.index("raw")
_EVENT_FIELDS = STAGED_COLUMNS[3:]


def fits_key(text: str) -> bool:
    """Whether a provider's name for something can be a key here. Google's own limit is 1,024 characters."""
    return 0 < len(text.encode(errors="replace")) <= KEY_LIMIT


class StagedRow(NamedTuple):
    """One line for the staging table, every value as COPY text or None. The order is STAGED_COLUMNS'.

    `kind` is `u` (upsert; one row for each event of the resource, all with the resource's `seq`),
    `k` (the resource is there, unchanged), `d` (the resource is gone) or `q` (it cannot be an event:
    `title` holds the reason, `description` an excerpt). `event_id` is given when the row is staged.
    """

    seq: str
    kind: str
    event_id: str | None
    provider_key: str | None
    resource: str
    etag: str | None = None
    uid: str | None = None
    series_key: str | None = None
    status: str | None = None
    title: str | None = None
    description: str | None = None
    location: str | None = None
    starts_at: str | None = None
    ends_at: str | None = None
    all_day: str | None = None
    time_zone: str | None = None
    recurrence: str | None = None
    original_start: str | None = None
    original_all_day: str | None = None
    organizer: str | None = None
    attendees: str | None = None
    link: str | None = None
    transparency: str | None = None
    visibility: str | None = None
    provider_updated_at: str | None = None
    raw: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge changed."""

    inserted: int
    updated: int
    deleted: int
    set_aside: int

    @property
    def anything(self) -> bool:
        return bool(self.inserted or self.updated or self.deleted or self.set_aside)


class StagingIncomplete(Exception):
    """The staging table does not hold what this run put there; nothing was merged."""


# The planner knows nothing of a staging table that was filled a moment ago, and little of a calendar that is
# new: it takes both for a handful of rows. Windows and ON CONFLICT need no estimates; the joins that are
# left run without nested loops when there is much to merge (`merge`). Met with 60,000 rows: over a minute.
_STAGED = """
staged as materialized (
  select ctid as id, resource, provider_key, kind, seq, max(seq) over (partition by resource) as newest
    from sync.staged_events where calendar_id = :calendar and fence = :fence),
latest as materialized (select * from staged where seq = newest)
"""

COUNT_STAGED = text("select count(*) from sync.staged_events where calendar_id = :calendar and fence = :fence")

UPSERT = text(f"""
with {_STAGED},
winners as materialized (
  select distinct on (provider_key) id, provider_key from latest where kind = 'u' order by provider_key, seq desc),
base as materialized (select nextval('mirror.version') as version),
merged as (
  insert into sync.events as e
    (event_id, tenant_id, calendar_id, {", ".join(_EVENT_FIELDS)}, version)
  select coalesce(t.event_id, i.event_id), :tenant, :calendar,
         {", ".join("i." + name for name in _EVENT_FIELDS)},
         nextval('mirror.version') + 0 * base.version
    from winners w join sync.staged_events i on i.ctid = w.id cross join base
    left join sync.tombstones t on t.calendar_id = :calendar and t.provider_key = i.provider_key
  on conflict (calendar_id, provider_key) do update set
    {", ".join(f"{name} = excluded.{name}" for name in _EVENT_FIELDS[1:])},
    version = case when e.digest = excluded.digest then e.version else excluded.version end
  where (e.digest, e.etag, e.resource) is distinct from (excluded.digest, excluded.etag, excluded.resource)
  returning e.event_id, e.version, e.xmax = 0 as fresh),
queued as (
  insert into mirror.outbox as o (tenant_id, entity, row_id, version)
  select :tenant, 'events', m.event_id, m.version from merged m, base where m.version > base.version
   order by m.event_id
  on conflict (tenant_id, entity, row_id) do update set version = excluded.version returning 1),
risen as (
  delete from sync.tombstones t
   where t.calendar_id = :calendar and t.tenant_id = :tenant
     and (t.provider_key in (select provider_key from winners)) is true returning 1)
select count(*) filter (where m.fresh) as inserted,
       count(*) filter (where not m.fresh and m.version > base.version) as updated
  from merged m, base
""")

DELETE = text(f"""
with {_STAGED},
gone as materialized (select distinct resource from latest where kind = 'd'),
kept as materialized (select provider_key from latest where kind = 'u'),
dead as materialized (
  select e.event_id, e.provider_key from gone g join sync.events e on e.provider_key = g.resource
   where e.calendar_id = :calendar and e.tenant_id = :tenant and e.resource = e.provider_key
  union
  select e.event_id, e.provider_key from gone g join sync.events e on e.resource = g.resource
   where e.calendar_id = :calendar and e.tenant_id = :tenant and e.resource <> e.provider_key
  union
  select e.event_id, e.provider_key from sync.events e
   where e.calendar_id = :calendar and e.tenant_id = :tenant and e.resource <> e.provider_key
     and e.resource in (select resource from latest where kind = 'u')
     and e.provider_key not in (select provider_key from kept)
  union
  select e.event_id, e.provider_key from sync.events e
   where :full and e.calendar_id = :calendar and e.tenant_id = :tenant
     and e.resource not in (select resource from latest)),
dying as materialized (
  select event_id from dead
  union
  select e.event_id from sync.events e
    join (select provider_key from dead union select resource from gone) m on e.series_key = m.provider_key
   where e.calendar_id = :calendar and e.tenant_id = :tenant
     and not (e.status <> 'cancelled' and e.provider_key in (select provider_key from kept))
  union
  select o.event_id from sync.events o join sync.events m
      on m.calendar_id = o.calendar_id and m.provider_key = o.series_key and m.tenant_id = o.tenant_id
   where o.calendar_id = :calendar and o.tenant_id = :tenant and m.provider_key in (select provider_key from kept)
     and o.original_all_day <> m.all_day and o.provider_key not in (select provider_key from kept)),
removed as (
  delete from sync.events e using dying d
   where e.event_id = d.event_id and e.calendar_id = :calendar and e.tenant_id = :tenant
  returning e.event_id, e.provider_key),
buried as (
  insert into sync.tombstones as t (event_id, tenant_id, calendar_id, provider_key, version)
  select event_id, :tenant, :calendar, provider_key, nextval('mirror.version') from removed
  on conflict (calendar_id, provider_key) do update
    set event_id = excluded.event_id, version = excluded.version, deleted_at = now()
  returning t.event_id, t.version),
queued as (
  insert into mirror.outbox as o (tenant_id, entity, row_id, version)
  select :tenant, 'events', event_id, version from buried order by event_id
  on conflict (tenant_id, entity, row_id) do update set version = excluded.version returning 1)
select count(*) from removed
""")

SET_ASIDE = text(f"""
with {_STAGED},
cleared as (
  delete from sync.quarantined_items q
   where q.calendar_id = :calendar and q.tenant_id = :tenant
     and (q.resource in (select resource from latest where kind in ('u', 'd'))
          or :full and q.resource not in (select resource from latest)) returning 1),
noted as (
  insert into sync.quarantined_items as q (calendar_id, resource, tenant_id, reason, etag, excerpt)
  select distinct on (s.resource) :calendar, s.resource, :tenant, s.title, s.etag, s.description
    from latest n join sync.staged_events s on s.ctid = n.id
   where n.kind = 'q' order by s.resource
  on conflict (calendar_id, resource) do update
    set reason = excluded.reason, etag = excluded.etag, excerpt = excluded.excerpt, last_seen_at = now()
  returning 1)
select count(*) from noted
""")

CLEAR_STAGED = text("delete from sync.staged_events where calendar_id = :calendar and fence <= :fence")

WAKE_MIRROR = text("update mirror.turns set ready_at = least(ready_at, now()) where tenant_id = :tenant")

KNOWN_ETAGS = text("""
select distinct resource, etag from sync.events
 where tenant_id = :tenant and calendar_id = :calendar and resource = any(cast(:resources as text[]))
""")


def stage(connection: Connection, *, calendar_id: UUID, fence: int, rows: Iterable[StagedRow]) -> int:
    """COPY rows into the staging table; returns how many."""
    head = f"{calendar_id}\t{fence}\t"
    lines = [head + _copy_line(row) for row in rows]
    if not lines:
        return 0
    source = BytesIO(("\n".join(lines) + "\n").encode())
    columns = ", ".join(("calendar_id", "fence", *STAGED_COLUMNS))
    with driver_cursor(connection) as cursor:
        cursor.copy_expert(f"copy sync.staged_events ({columns}) from stdin", source)
    return len(lines)


def _copy_line(row: StagedRow) -> str:
    """A row in COPY's text format. Hot: 100,000 rows of a listing pass here, at some 9 µs each."""
    values = row if row.kind != "u" else row._replace(event_id=str(new_id()))
    fields = [NULL if value is None else value for value in values]
    line = "\t".join(fields[:_RAW])
    plain = line.count(BACKSLASH) == values.count(None) - fields[_RAW:].count(NULL)
    if not plain or line.count("\t") != _RAW - 1 or "\n" in line or "\r" in line:
        line = "\t".join([NULL if value is None else _escaped(value) for value in values[:_RAW]])
    if values.raw is None:
        return f"{line}\t{NULL}\t{NULL}"
    # JSON holds backslashes as a rule, and no control characters at all.
    return f"{line}\t{values.raw.replace(BACKSLASH, ESCAPED_BACKSLASH)}\t{values.digest}"


def _escaped(value: str) -> str:
    value = value.replace(BACKSLASH, ESCAPED_BACKSLASH)
    return value.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def merge(connection: Connection, *, tenant_id: UUID, calendar_id: UUID, fence: int, full: bool, staged: int) -> Merged:
    """Bring the calendar's rows to what this run staged, in the caller's transaction.

    `full`: the staged rows are everything the provider has, so rows that they do not name are
    tombstoned. `staged`: how many rows the run staged. Raises StagingIncomplete when the table holds
    another number, as it does after a crash of Postgres emptied it.
    """
    where = {"tenant": tenant_id, "calendar": calendar_id, "fence": fence}
    found = int(connection.execute(COUNT_STAGED, where).scalar_one())
    if found != staged:
        raise StagingIncomplete(f"calendar {calendar_id}: {staged} rows were staged and {found} are there")
    if staged > MANY:
        connection.execute(text("set local enable_nestloop = off; set local work_mem = '64MB'"))
    upserted = connection.execute(UPSERT, where).one()
    deleted = int(connection.execute(DELETE, {**where, "full": full}).scalar_one())
    set_aside = int(connection.execute(SET_ASIDE, {**where, "full": full}).scalar_one())
    if staged > MANY:
        connection.execute(text("set local enable_nestloop to default; set local work_mem to default"))
    connection.execute(CLEAR_STAGED, where)
    merged = Merged(int(upserted.inserted), int(upserted.updated), deleted, set_aside)
    if merged.inserted or merged.updated or merged.deleted:
        connection.execute(WAKE_MIRROR, {"tenant": tenant_id})
    return merged


def drop_staged(connection: Connection, *, calendar_id: UUID, fence: int) -> None:
    """Throw away what this run, or a run before it, left in the staging table."""
    connection.execute(CLEAR_STAGED, {"calendar": calendar_id, "fence": fence})


def known_etags(
    connection: Connection, *, tenant_id: UUID, calendar_id: UUID, resources: Sequence[str]
) -> dict[str, str | None]:
    """The etags that we hold of these resources; absent ones are unknown to us."""
    rows = connection.execute(KNOWN_ETAGS, {"tenant": tenant_id, "calendar": calendar_id, "resources": list(resources)})
    return {row.resource: row.etag for row in rows}
