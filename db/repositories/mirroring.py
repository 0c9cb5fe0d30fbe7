"""The outbox: which tenants have rows to send, what those rows are now, and what became of them.

A sender leases a tenant, not rows: one sender a tenant keeps a key's versions in order, and a failed call
costs no write per row. Taking the lease consumes the wake-up before the rows are read, so a change
that commits later finds the tenant asleep and wakes it again; `renew` and `release` never overwrite such a
wake-up.

`lease_until` is the mark of a lease: whoever knows it may renew it or give it back, nobody else. A renewal
makes a new mark, so a sender renews and gives back one after the other. It moves `ready_at` along with the
mark as long as the two are equal; an earlier `ready_at` is a wake-up, and stays.

Rows are taken in one order everywhere, so that no two wait for each other: parked rows by their key, then the outbox',
last the tenants' turns. A statement with several of them says so (`>= 0`): its last part would else run first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from db.racepoints import reach
from db.rows import as_json

FLEET_QUERIES = (
    "LEASE",
    "TAKE",
    "READ",
    "ACKNOWLEDGE",
    "PARK",
    "RENEW",
    "RELEASE",
    "REPAIR",
    "RETRY_PARKED",
    "DROP_PARKED",
)

LEASE = text("""
with ring as materialized (
  select tenant_id from mirror.turns
   where ready_at <= now() and (lease_until is null or lease_until < now())
   order by ready_at limit :n for no key update skip locked)
update mirror.turns t set lease_until = now() + :lease, ready_at = now() + :lease
  from ring where t.tenant_id = ring.tenant_id
returning t.tenant_id, t.lease_until
""")

# What somebody is watching goes before a backlog of calendars.
TAKE = text("""
select o.tenant_id, o.entity, o.row_id, o.version
  from unnest(cast(:tenants as uuid[])) as t(tenant_id)
  cross join lateral (
    select w.*, row_number() over (order by w.live desc, w.queued_at) as place from (
      (select tenant_id, entity, row_id, version, queued_at, true as live from mirror.outbox
        where tenant_id = t.tenant_id and entity in ('tasks', 'processes', 'process_events')
        order by queued_at limit :each)
      union all
      (select tenant_id, entity, row_id, version, queued_at, false from mirror.outbox
        where tenant_id = t.tenant_id and entity not in ('tasks', 'processes', 'process_events')
        order by queued_at limit :each)) w
     order by place limit :each) o
 order by o.place limit :n
""")

_READ_ACCOUNTS = """
select a.account_id as id, a.tenant_id, a.workspace_id, a.version, a.deleted_at, a.provider, a.identity, a.state,
       a.state_reason
  from sync.accounts a join keys k on k.row_id = a.account_id and k.tenant_id = a.tenant_id
"""
_READ_CALENDARS = """
select c.calendar_id as id, c.tenant_id, c.workspace_id, c.version, c.deleted_at, c.account_id, c.provider_key, c.name,
       c.time_zone, c.access_role, c.state, c.state_reason
  from sync.calendars c join keys k on k.row_id = c.calendar_id and k.tenant_id = c.tenant_id
"""
_EVENT_COLUMNS = {
    "uid": "text", "series_key": "text", "status": "text", "title": "text", "description": "text", "location": "text",
    "starts_at": "timestamptz", "ends_at": "timestamptz", "all_day": "boolean", "time_zone": "text",
    "recurrence": "jsonb", "original_start": "timestamptz", "original_all_day": "boolean", "organizer": "text",
    "attendees": "jsonb", "link": "text", "transparency": "text", "visibility": "text",
    "provider_updated_at": "timestamptz",
}  # fmt: skip
_NOTHING = ", ".join(f"null::{kind}" for kind in _EVENT_COLUMNS.values())
_READ_EVENTS = f"""
select e.event_id as id, e.tenant_id, c.workspace_id, e.version, null::timestamptz as deleted_at, e.calendar_id,
       e.provider_key, {", ".join("e." + name for name in _EVENT_COLUMNS)}
  from keys k
  join sync.events e on e.event_id = k.row_id and e.tenant_id = k.tenant_id
  join sync.calendars c on c.calendar_id = e.calendar_id and c.tenant_id = e.tenant_id
union all
select t.event_id, t.tenant_id, c.workspace_id, t.version, t.deleted_at, t.calendar_id, t.provider_key,
       {_NOTHING}
  from keys k
  join sync.tombstones t on t.event_id = k.row_id and t.tenant_id = k.tenant_id
  join sync.calendars c on c.calendar_id = t.calendar_id and c.tenant_id = t.tenant_id
"""
_READ_TASKS = """
select t.id, t.supabase_task_id, t.tenant_id, t.workspace_id, t.version, t.status, t.worker_id, t.result,
       t.error_log as error_message, t.started_at, t.completed_at,
       case when t.queue is not null then t.id end as process_id
  from worker.tasks t join keys k on k.row_id = t.id and k.tenant_id = t.tenant_id
 where t.supabase_task_id is not null
"""
_READ_PROCESSES = """
select p.process_id as id, p.tenant_id, p.workspace_id, p.version, p.kind, p.subject_id, p.parent_id, p.title, p.state,
       p.step, p.step_durations, p.completed_steps, p.total_steps, p.percentage, p.estimated_completion_at, p.priority,
       p.tags, p.retry_count, p.max_retries, p.pause_requested, p.result, p.error, p.started_by, p.created_at,
       p.started_at, p.completed_at
  from process.processes p join keys k on k.row_id = p.process_id and k.tenant_id = p.tenant_id
"""
READ = {
    entity: text(
        "with keys as materialized (select * from json_to_recordset(cast(:keys as json)) "
        f"as k(tenant_id uuid, row_id uuid)) select json_agg(row_to_json(r))::text from ({body}) r"
    )
    for entity, body in {
        "accounts": _READ_ACCOUNTS,
        "calendars": _READ_CALENDARS,
        "events": _READ_EVENTS,
        "tasks": _READ_TASKS,
        "processes": _READ_PROCESSES,
    }.items()
}

ACKNOWLEDGE = text("""
with sent as materialized (
  select * from json_to_recordset(cast(:sent as json))
      as s(tenant_id uuid, entity text, row_id uuid, version bigint)),
parked as materialized (
  select p.tenant_id, p.entity, p.row_id from mirror.parked_rows p join sent s using (tenant_id, entity, row_id)
   where p.version <= s.version order by p.tenant_id, p.entity, p.row_id for update of p),
freed as (
  delete from mirror.parked_rows p using parked k
   where p.tenant_id = k.tenant_id and p.entity = k.entity and p.row_id = k.row_id returning 1),
lk as materialized (  -- a row that is being queued anew right now has a newer version: leave it
  select o.tenant_id, o.entity, o.row_id from mirror.outbox o join sent s using (tenant_id, entity, row_id)
   where o.version <= s.version
     and (select count(*) from freed) >= 0 order by o.row_id for update of o skip locked),
gone as (
  delete from mirror.outbox o using lk
   where o.tenant_id = lk.tenant_id and o.entity = lk.entity and o.row_id = lk.row_id returning 1)
select count(*) from gone
""")

PARK = text("""
insert into mirror.parked_rows as p (tenant_id, entity, row_id, version, sqlstate, reason)
select s.tenant_id, s.entity, s.row_id, s.version, s.sqlstate, s.reason
  from json_to_recordset(cast(:parked as json))
    as s(tenant_id uuid, entity text, row_id uuid, version bigint, sqlstate text, reason text)
 order by s.tenant_id, s.entity, s.row_id
on conflict (tenant_id, entity, row_id) do update
  set version = excluded.version, sqlstate = excluded.sqlstate, reason = excluded.reason, parked_at = now()
""")

RENEW = text("""
with held as materialized (
  select * from json_to_recordset(cast(:held as json)) as h(tenant_id uuid, lease_until timestamptz)),
lk as materialized (  -- a tenant that is being changed right now is renewed the next time
  select t.tenant_id from mirror.turns t join held h using (tenant_id)
   where t.lease_until = h.lease_until order by t.tenant_id for no key update of t skip locked),
kept as (
  update mirror.turns t
     set lease_until = now() + :lease,
         ready_at = case when t.ready_at < t.lease_until then t.ready_at else now() + :lease end
    from lk where t.tenant_id = lk.tenant_id
  returning t.tenant_id, t.lease_until)
select h.tenant_id, k.lease_until, t.lease_until is distinct from h.lease_until as lost
  from held h left join kept k using (tenant_id) left join mirror.turns t using (tenant_id)
""")

RELEASE = text("""
with held as materialized (
  select * from json_to_recordset(cast(:held as json)) as h(tenant_id uuid, lease_until timestamptz)),
lk as materialized (
  select t.tenant_id, t.ready_at < t.lease_until as woken from mirror.turns t join held h using (tenant_id)
   where t.lease_until = h.lease_until order by t.tenant_id for no key update of t)
update mirror.turns t
   set lease_until = null,
       ready_at = case when cast(:pause as interval) > interval '0' then now() + cast(:pause as interval)
                       when lk.woken then t.ready_at
                       when exists (select 1 from mirror.outbox o where o.tenant_id = t.tenant_id) then now()
                       else 'infinity' end
  from lk where t.tenant_id = lk.tenant_id
""")

REPAIR = text("""
with forgotten as materialized (
  select t.tenant_id from mirror.turns t
   where t.ready_at > now() + interval '5 minutes'
     and exists (select 1 from mirror.outbox o
                  where o.tenant_id = t.tenant_id and o.queued_at < now() - interval '1 minute')
   order by t.tenant_id for no key update skip locked)
update mirror.turns t set ready_at = now() from forgotten f where t.tenant_id = f.tenant_id
""")


_CHOSEN = """
with chosen as materialized (
  select tenant_id, entity, row_id from mirror.parked_rows
   where {which} order by tenant_id, entity, row_id for update)
"""
_DROP_PARKED = f"""
{_CHOSEN}
delete from mirror.parked_rows p using chosen c
 where p.tenant_id = c.tenant_id and p.entity = c.entity and p.row_id = c.row_id
"""
_RETRY_PARKED = f"""
{_CHOSEN},
p as (
  delete from mirror.parked_rows p using chosen c
   where p.tenant_id = c.tenant_id and p.entity = c.entity and p.row_id = c.row_id
  returning p.tenant_id, p.entity, p.row_id, p.version),
queued as (
  insert into mirror.outbox as o (tenant_id, entity, row_id, version)
  select tenant_id, entity, row_id, version from p order by tenant_id, entity, row_id
  on conflict (tenant_id, entity, row_id) do nothing returning 1),
woken as (
  update mirror.turns t set ready_at = least(t.ready_at, now())
   where t.tenant_id in (select tenant_id from p) and (select count(*) from queued) >= 0 returning 1)
select count(*) from p
"""
_OF_TENANT = """
tenant_id = :tenant and (cast(:entity as text) is null or entity = :entity)
   and (cast(:row as uuid) is null or row_id = :row)
"""
RETRY_PARKED = text(_RETRY_PARKED.format(which="true"))
RETRY_PARKED_OF = text(_RETRY_PARKED.format(which=_OF_TENANT))
DROP_PARKED = text(_DROP_PARKED.format(which="true"))
DROP_PARKED_OF = text(_DROP_PARKED.format(which=_OF_TENANT))


@dataclass(frozen=True, slots=True)
class LeasedTenant:
    tenant_id: UUID
    lease_until: datetime
    """The mark of this lease, and where it put `ready_at`: an earlier one there means that somebody rang meanwhile."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """What became of a lease that was to be renewed."""

    tenant_id: UUID
    lease_until: datetime | None
    """The new mark; None if the old one stands, because the tenant is being changed or is lost."""
    lost: bool
    """Somebody else has, or had, the tenant."""


@dataclass(frozen=True, slots=True)
class Key:
    tenant_id: UUID
    entity: str
    row_id: UUID
    version: int = 0
    """The one that stood in the outbox."""


def lease_tenants(connection: Connection, *, limit: int, lease: timedelta) -> list[LeasedTenant]:
    """Take tenants that have rows to send, longest waiting first, for `lease` at most."""
    reach("outbox.asked", lease=lease)
    rows = connection.execute(LEASE, {"n": limit, "lease": lease})
    held = [LeasedTenant(row.tenant_id, row.lease_until) for row in rows]
    reach("outbox.leased", held=held)
    return held


def take_keys(connection: Connection, *, tenants: Sequence[UUID], limit: int) -> list[Key]:
    """Up to `limit` keys of these tenants, in turns across tenants; of each what is watched first, then the oldest."""
    each = max(1, -(-5 * limit // max(1, len(tenants)))) if len(tenants) > 1 else limit
    listed = "{" + ",".join(str(tenant) for tenant in tenants) + "}"
    rows = connection.execute(TAKE, {"tenants": listed, "each": min(each, limit), "n": limit})
    keys = [Key(row.tenant_id, row.entity, row.row_id, row.version) for row in rows]
    reach("outbox.keys_taken", keys=keys)
    return keys


def read_rows(connection: Connection, *, entity: str, keys: Iterable[Key]) -> list[dict[str, Any]]:
    """What the rows of these keys are now, in the mirrored columns; a key without a row is left out.

    A task's id is ours; Supabase knows it as `supabase_task_id`. Events of processes: `deliveries.undelivered`.
    """
    wanted = as_json({"tenant_id": key.tenant_id, "row_id": key.row_id} for key in keys)
    found = connection.execute(READ[entity], {"keys": wanted}).scalar()
    rows: list[dict[str, Any]] = [] if found is None else orjson.loads(found)
    return rows


def acknowledge(connection: Connection, sent: Iterable[dict[str, Any]]) -> int:
    """Forget keys that Supabase has now, up to the version sent. Keys: tenant_id, entity, row_id, version."""
    return int(connection.execute(ACKNOWLEDGE, {"sent": as_json(sent)}).scalar_one())


def park(connection: Connection, parked: Iterable[dict[str, Any]]) -> None:
    """Put aside rows that Supabase refused. Keys: as for acknowledge, and sqlstate and reason."""
    connection.execute(PARK, {"parked": as_json(parked)})


def renew(connection: Connection, held: Iterable[LeasedTenant], *, lease: timedelta) -> list[Renewed]:
    """Extend leases whose mark still stands; what was lost is told and left alone."""
    kept = list(held)
    rows = as_json({"tenant_id": one.tenant_id, "lease_until": one.lease_until} for one in kept)
    reach("outbox.renewing", held=kept, lease=lease)
    found = connection.execute(RENEW, {"held": rows, "lease": lease})
    answers = [Renewed(row.tenant_id, row.lease_until, row.lost) for row in found]
    reach("outbox.renewed", held=kept, renewed=answers)
    return answers


def release(connection: Connection, held: Iterable[LeasedTenant], *, pause: timedelta = timedelta(0)) -> None:
    """Give leased tenants back: due again at once if rows are left, or after `pause`."""
    given_back = list(held)
    rows = as_json({"tenant_id": one.tenant_id, "lease_until": one.lease_until} for one in given_back)
    reach("outbox.releasing", held=given_back)
    connection.execute(RELEASE, {"held": rows, "pause": pause})
    reach("outbox.released", held=given_back)


def repair(connection: Connection) -> int:
    """Wake tenants that have rows waiting and no turn. Should find none; what it finds is published."""
    return connection.execute(REPAIR).rowcount


def retry_parked(connection: Connection) -> int:
    """Send refused rows once more, as they are now; returns how many."""
    return int(connection.execute(RETRY_PARKED).scalar_one())


def retry_parked_of(connection: Connection, *, tenant_id: UUID, entity: str | None, row_id: UUID | None) -> int:
    """Send refused rows of a tenant once more, or one of them; returns how many."""
    parameters = {"tenant": tenant_id, "entity": entity, "row": row_id}
    return int(connection.execute(RETRY_PARKED_OF, parameters).scalar_one())


def drop_parked(connection: Connection) -> int:
    """Forget all refused rows; returns how many. Each is sent again once it changes."""
    return connection.execute(DROP_PARKED).rowcount


def drop_parked_of(connection: Connection, *, tenant_id: UUID, entity: str | None, row_id: UUID | None) -> int:
    """Forget refused rows of a tenant, or one of them; returns how many."""
    return connection.execute(DROP_PARKED_OF, {"tenant": tenant_id, "entity": entity, "row": row_id}).rowcount
