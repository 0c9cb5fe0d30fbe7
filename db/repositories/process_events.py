"""Events of processes: numbered as they are written, and read again from any number on.

The number comes from the process' row, in the statement of the insert: whoever writes holds that row until the commit,
so numbers have no gaps, none comes twice, and the order of numbers is the order of commits.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from db.rows import as_json

FLEET_QUERIES = ("HEADS", "AFTER_MANY", "LATE")

LATE_AT_ONCE = 500  # processes whose late snapshots are published by one wake-up


@dataclass(frozen=True, slots=True)
class EventRow:
    """What happened in a process, under its number."""

    process_id: UUID
    sequence: int
    event_id: UUID
    tenant_id: UUID
    event_type: str
    data: Mapping[str, Any]
    category: str
    priority: int
    source: str
    created_at: datetime
    archived: bool


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event on its way. `place` orders those that are written together; what lay waiting stands at 0."""

    process_id: UUID
    event_id: UUID
    event_type: str
    data: Mapping[str, Any]
    category: str
    priority: int
    source: str
    snapshot: bool
    place: int

    def row(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Numbered:
    """What an event became."""

    process_id: UUID
    sequence: int
    event_id: UUID
    event_type: str


_PIECE = ("event_id", "event_type", "data", "category", "priority", "source")

_FRESH = """
fresh as materialized (
  select process_id, place, event_id, event_type, data::jsonb as data, category, priority, source, snapshot
    from json_to_recordset(cast(:events as json))
      as e(process_id uuid, place integer, event_id uuid, event_type text, data json, category text, priority smallint,
           source text, snapshot boolean)),
locked as materialized (
  select p.process_id, p.completed_at is null as open from process.processes p
   where p.tenant_id = :tenant and p.process_id = any(cast(:processes as uuid[]))
     and (cast(:attempt as integer) is null or (p.attempt = :attempt and p.state = 'running'))
   order by p.process_id for no key update of p)
"""
# What is done is done whole, and nothing that is over will be over at some moment, whatever waited to be shown.
_NUMBERED = """
numbered as (
  update process.processes p
     set last_sequence = p.last_sequence + c.n, updated_at = now(),
         percentage = case when p.state = 'completed' then p.percentage
                           else coalesce((c.progress ->> 'percentage')::real, p.percentage) end,
         estimated_completion_at = case when p.completed_at is not null then p.estimated_completion_at
           else coalesce((c.progress ->> 'estimated_completion')::timestamptz, p.estimated_completion_at) end
    from counted c where p.process_id = c.process_id and p.tenant_id = :tenant
  returning p.process_id, p.last_sequence - c.n as base)
insert into process.events (process_id, sequence, event_id, tenant_id, event_type, data, category, priority, source)
select b.process_id, n.base + b.nth, b.event_id, :tenant, b.event_type, b.data, b.category, b.priority, b.source
  from ranked b join numbered n on n.process_id = b.process_id order by b.process_id, b.nth
returning process_id, sequence, event_id, event_type
"""

# A moment that lies so far ahead was reckoned before the database's clock was set back.
_DUE = "({due_at} <= {now} or {due_at} > {now} + interval '10 seconds')"

# Everything that waits of the processes' snapshots goes first, but for a type that comes along in a newer one. One that
# was kept while its process ended is dropped: nothing is told after the end.
APPEND = text(f"""
with {_FRESH},
late as materialized (
  select s.process_id, s.event_type, s.pending, l.open
    from process.snapshots s join locked l on l.process_id = s.process_id
   where s.pending is not null and (not :only_due or {_DUE.format(due_at="s.due_at", now="clock_timestamp()")})
     for update of s),
ranked as (
  select *, row_number() over (partition by process_id order by place, event_id) as nth from (
    select f.process_id, f.place, f.event_id, f.event_type, f.data, f.category, f.priority, f.source
      from fresh f join locked l on l.process_id = f.process_id
    union all
    select w.process_id, 0, (w.pending ->> 'event_id')::uuid, w.event_type, w.pending -> 'data',
           w.pending ->> 'category', (w.pending ->> 'priority')::smallint, w.pending ->> 'source'
      from late w
     where not exists (select 1 from fresh f where f.process_id = w.process_id and f.event_type = w.event_type)
       and (w.open or exists (select 1 from fresh f where f.process_id = w.process_id))) a),
counted as (
  select process_id, count(*) as n,
         (array_agg(data order by nth desc) filter (where event_type = 'progress'))[1] as progress
    from ranked group by process_id),
shown as (
  insert into process.snapshots as s (process_id, event_type, published_at)
  select process_id, event_type, clock_timestamp() from late
  union
  select f.process_id, f.event_type, clock_timestamp() from fresh f join locked l on l.process_id = f.process_id
   where f.snapshot and not exists (
     select 1 from late w where w.process_id = f.process_id and w.event_type = f.event_type)
   group by f.process_id, f.event_type
  on conflict (process_id, event_type) do update
    set published_at = excluded.published_at, pending = null, due_at = null),
{_NUMBERED}
""")

# Pieces of one process alone, in the order in which they are given. What waits of its snapshots is not looked at, and
# the row is held from the moment at which everything else is ready: this is what writers of one process wait for.
APPEND_PIECES = text("""
with fresh as materialized (
  select * from rows from (json_to_recordset(cast(:events as json))
      as (event_id uuid, event_type text, data jsonb, category text, priority smallint, source text))
    with ordinality as e(event_id, event_type, data, category, priority, source, nth)),
numbered as (
  update process.processes p set last_sequence = p.last_sequence + c.n, updated_at = now()
    from (select count(*) as n from fresh) c
   where p.tenant_id = :tenant and p.process_id = :process
     and (cast(:attempt as integer) is null or (p.attempt = :attempt and p.state = 'running'))
  returning p.last_sequence - c.n as base)
insert into process.events (process_id, sequence, event_id, tenant_id, event_type, data, category, priority, source)
select :process, n.base + f.nth, f.event_id, :tenant, f.event_type, f.data, f.category, f.priority, f.source
  from numbered n cross join fresh f
""")

# The newest waits until the one that was shown last is old enough. What waits already keeps its moment. However the
# clock was set meanwhile, nothing waits for longer than the interval.
SNAPSHOT = text("""
insert into process.snapshots as s (process_id, event_type, published_at, pending, due_at)
select p.process_id, :event_type, '-infinity', cast(:pending as jsonb), clock_timestamp() from process.processes p
 where p.tenant_id = :tenant and p.process_id = :process
   and (cast(:attempt as integer) is null or (p.attempt = :attempt and p.state = 'running'))
on conflict (process_id, event_type) do update
  set pending = excluded.pending,
      due_at = least(clock_timestamp() + :interval,
                     coalesce(s.due_at, greatest(clock_timestamp(), s.published_at + :interval)))
returning extract(epoch from due_at - clock_timestamp())
""")

LATE = text(f"""
select p.tenant_id, array_agg(p.process_id order by p.process_id) as processes
  from (select distinct process_id from (
          select process_id from process.snapshots where {_DUE.format(due_at="due_at", now="now()")}
           order by due_at limit :limit) s) l
  join process.processes p on p.process_id = l.process_id
 group by p.tenant_id
""")

WRITTEN = text("""
select event_id from process.events
 where tenant_id = :tenant and process_id = any(cast(:processes as uuid[])) and event_id = any(cast(:ids as uuid[]))
""")

_EVENT = "e.process_id, e.sequence, e.event_id, e.tenant_id, e.event_type, e.data, e.category, e.priority, e.source, "
_EVENT += "e.created_at, e.archived"

AFTER = text(f"""
select {_EVENT} from process.events e
 where e.tenant_id = :tenant and e.process_id = :process and e.sequence > :sequence
 order by e.sequence limit :limit
""")

HEADS = text("""
select process_id, last_sequence from process.processes where process_id = any(cast(:processes as uuid[]))
""")

AFTER_MANY = text(f"""
select {_EVENT} from json_to_recordset(cast(:since as json)) as w(process_id uuid, sequence bigint)
 cross join lateral (
   select e.*, max(e.created_at) over (order by e.sequence) as moment  -- a clock that was set back cuts nothing apart
     from process.events e where e.process_id = w.process_id and e.sequence > w.sequence
    order by e.sequence limit :limit) e
 order by e.moment, e.process_id, e.sequence limit :limit
""")

ACKNOWLEDGE = text("""
insert into process.acknowledgements as a (process_id, reader, sequence)
select process_id, :reader, least(greatest(:sequence, 0), last_sequence) from process.processes
 where tenant_id = :tenant and process_id = :process
on conflict (process_id, reader) do update
  set sequence = greatest(a.sequence, excluded.sequence), acknowledged_at = now()
returning sequence
""")

UNDELIVERED = text(f"""
select {_EVENT} from process.processes p
  left join process.acknowledgements a on a.process_id = p.process_id and a.reader = :reader
 cross join lateral (
   select * from process.events e
    where e.tenant_id = :tenant and e.process_id = p.process_id
      and e.sequence > greatest(coalesce(a.sequence, 0),
                                case when p.process_id = cast(:after_process as uuid) then :after_sequence else 0 end)
    order by e.sequence limit :limit) e
 where p.tenant_id = :tenant and p.last_sequence > coalesce(a.sequence, 0)
   and (cast(:process as uuid) is null or p.process_id = :process)
   and (cast(:after_process as uuid) is null or p.process_id >= :after_process)
   and (cast(:workspaces as uuid[]) is null or p.workspace_id = any(cast(:workspaces as uuid[])))
 order by e.process_id, e.sequence limit :limit
""")


def append(
    connection: Connection,
    *,
    tenant_id: UUID,
    events: Sequence[NewEvent] = (),
    waiting: Collection[UUID] = (),
    attempt: int | None = None,
    only_due: bool = False,
) -> list[Numbered]:
    """Number and write events of processes of one tenant, what waits of their snapshots first.

    `waiting`: processes of which what waits is written too, with `only_due` only what is due. With an `attempt`,
    events of a process that is not run by it any more are left out of what is written and returned.
    """
    processes = sorted({event.process_id for event in events} | set(waiting))
    parameters = {
        "tenant": tenant_id,
        "events": as_json(event.row() for event in events),
        "processes": processes,
        "attempt": attempt,
        "only_due": only_due,
    }
    return [Numbered(*row) for row in connection.execute(APPEND, parameters)]


def append_pieces(
    connection: Connection, *, tenant_id: UUID, process_id: UUID, events: Sequence[NewEvent], attempt: int | None = None
) -> int:
    """As `append`, for one process, in this order, leaving waiting snapshots where they are; how many were written."""
    parameters = {
        "tenant": tenant_id,
        "process": process_id,
        "events": as_json({name: getattr(event, name) for name in _PIECE} for event in events),
        "attempt": attempt,
    }
    return connection.execute(APPEND_PIECES, parameters).rowcount


def keep_snapshot(
    connection: Connection, *, tenant_id: UUID, event: NewEvent, interval: timedelta, attempt: int | None = None
) -> float | None:
    """Let an event stand for all before it of its type: seconds until it is due, or None if there is no such process.

    It is in the database from here on, so that it is published whatever becomes of the writer.
    """
    kept = ("event_id", "data", "category", "priority", "source")
    parameters = {
        "tenant": tenant_id,
        "process": event.process_id,
        "attempt": attempt,
        "event_type": event.event_type,
        "pending": orjson.dumps({name: getattr(event, name) for name in kept}).decode(),
        "interval": interval,
    }
    seconds = connection.execute(SNAPSHOT, parameters).scalar()
    return None if seconds is None else float(seconds)


def written(connection: Connection, *, tenant_id: UUID, events: Sequence[NewEvent]) -> set[UUID]:
    """Which of these events are there already, for a writer whose commit was cut off."""
    processes = list({event.process_id for event in events})
    parameters = {"tenant": tenant_id, "processes": processes, "ids": [event.event_id for event in events]}
    return set(connection.execute(WRITTEN, parameters).scalars())


def late(connection: Connection) -> list[tuple[UUID, list[UUID]]]:
    """(tenant, its processes) with snapshots that are due and that nobody has published."""
    return [(row.tenant_id, list(row.processes)) for row in connection.execute(LATE, {"limit": LATE_AT_ONCE})]


def after(
    connection: Connection, *, tenant_id: UUID, process_id: UUID, sequence: int, limit: int = 500
) -> list[EventRow]:
    """What happened in a process after a number, in order."""
    parameters = {"tenant": tenant_id, "process": process_id, "sequence": sequence, "limit": limit}
    return [EventRow(*row) for row in connection.execute(AFTER, parameters)]


def heads(connection: Connection, *, process_ids: Iterable[UUID]) -> dict[UUID, int]:
    """The last number of each of many processes."""
    rows = connection.execute(HEADS, {"processes": list(process_ids)})
    return {row.process_id: row.last_sequence for row in rows}


def after_many(connection: Connection, *, since: Mapping[UUID, int], limit: int = 1000) -> list[EventRow]:
    """What happened in many processes after a number each, oldest first; a process' own in the order of its numbers."""
    wanted = as_json({"process_id": process, "sequence": sequence} for process, sequence in since.items())
    return [EventRow(*row) for row in connection.execute(AFTER_MANY, {"since": wanted, "limit": limit})]


def acknowledge(connection: Connection, *, tenant_id: UUID, process_id: UUID, reader: str, sequence: int) -> int | None:
    """Note that a reader has read up to a number; never backwards, and never beyond what there is.

    Returns up to where that is now; None if the tenant has no such process.
    """
    parameters = {"tenant": tenant_id, "process": process_id, "reader": reader, "sequence": sequence}
    found: int | None = connection.execute(ACKNOWLEDGE, parameters).scalar()
    return found


def undelivered(
    connection: Connection,
    *,
    tenant_id: UUID,
    reader: str,
    process_id: UUID | None = None,
    workspace_ids: Collection[UUID] | None = None,
    after: tuple[UUID, int] | None = None,
    limit: int = 500,
) -> list[EventRow]:
    """Events that a reader has not acknowledged, by process and number, from behind `after` (process, number)."""
    parameters = {
        "tenant": tenant_id,
        "reader": reader,
        "process": process_id,
        "workspaces": None if workspace_ids is None else list(workspace_ids),
        "after_process": None if after is None else after[0],
        "after_sequence": 0 if after is None else after[1],
        "limit": limit,
    }
    return [EventRow(*row) for row in connection.execute(UNDELIVERED, parameters)]
