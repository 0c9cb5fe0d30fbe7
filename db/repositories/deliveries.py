"""How far Supabase has the events of each process, and how well they travel.

The outbox holds one row a process with unsent events; its version is the number of the last one. A call carries a
stretch of a process' events that begins right after `delivered_sequence`, so whatever is repeated, lost or cut, they
arrive in order. An event that Supabase refuses parks its process' events and nobody else's: they wait until a person
has them sent again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from db.ids import first_id_at, new_id
from db.repositories.mirroring import Key
from db.rows import as_json

FLEET_QUERIES = ("UNDELIVERED", "SETTLE")

# In turns across processes, so that every one of them gets at least its next event into the call.
UNDELIVERED = text("""
with keys as materialized (
  select * from json_to_recordset(cast(:keys as json)) as k(tenant_id uuid, row_id uuid)),
held as materialized (
  select k.tenant_id, k.row_id from keys k join mirror.parked_rows r using (tenant_id, row_id)
   where r.entity = 'process_events'),
placed as materialized (
  select p.process_id, p.tenant_id, p.workspace_id, e.*
    from keys k
    join process.processes p on p.process_id = k.row_id and p.tenant_id = k.tenant_id
    left join process.deliveries d on d.process_id = p.process_id
    cross join lateral (
      select sequence, event_id, event_type, data, category, priority, source, created_at,
             row_number() over (order by sequence) as place
        from process.events
       where process_id = p.process_id and tenant_id = p.tenant_id and sequence > coalesce(d.delivered_sequence, 0)
       order by sequence limit :each) e
   where not exists (select from held h where h.row_id = k.row_id)
   order by e.place limit :n)
select json_agg(row_to_json(r))::text from (
  select process_id as id, tenant_id, max(sequence) as version, false as held,
         json_agg(json_build_object(
           'process_id', process_id, 'sequence', sequence, 'id', event_id, 'tenant_id', tenant_id,
           'workspace_id', workspace_id, 'event_type', event_type, 'event_data', data, 'event_category', category,
           'event_priority', priority, 'event_source', source, 'created_at', created_at) order by sequence) as events
    from placed group by process_id, tenant_id
  union all
  select row_id, tenant_id, 0, true, '[]' from held) r
""")

SETTLE = text("""
with told as materialized (
  select * from json_to_recordset(cast(:told as json))
      as t(tenant_id uuid, row_id uuid, version bigint, delivered bigint, sqlstate text, held boolean)),
kept as materialized (  -- whose mark a retry has taken away meanwhile wants its turn: its outbox row stays
  select p.tenant_id, p.row_id from mirror.parked_rows p join told t using (tenant_id, row_id)
   where p.entity = 'process_events' and t.held order by p.tenant_id, p.row_id for update of p),
raised as (
  update mirror.parked_rows p set version = greatest(p.version, t.version) from told t join kept k using (row_id)
   where p.tenant_id = t.tenant_id and p.entity = 'process_events' and p.row_id = t.row_id),
lk as materialized (  -- a row that is being queued anew right now has a newer version: leave it
  select o.tenant_id, o.row_id from mirror.outbox o join told t using (tenant_id, row_id)
   where o.entity = 'process_events' and o.version <= t.version
     and (not t.held or exists (select from kept k where k.row_id = t.row_id))
   order by o.row_id for update of o skip locked),
gone as (
  delete from mirror.outbox o using lk
   where o.tenant_id = lk.tenant_id and o.entity = 'process_events' and o.row_id = lk.row_id),
alive as materialized (  -- a process that retention takes away at this moment needs no mark any more
  select p.process_id from process.processes p join told t on t.row_id = p.process_id and t.tenant_id = p.tenant_id
   where t.delivered is not null order by p.process_id for key share of p skip locked)
insert into process.deliveries as d (process_id, delivered_sequence, attempts, last_error, delivered_at)
select t.row_id, t.delivered, case when t.sqlstate is null then 0 else 1 end, t.sqlstate, now()
  from told t join alive a on a.process_id = t.row_id order by t.row_id
on conflict (process_id) do update set
  delivered_sequence = greatest(d.delivered_sequence, excluded.delivered_sequence),
  attempts = case when excluded.last_error is null then 0 else d.attempts + 1 end,
  last_error = excluded.last_error,
  delivered_at = case when excluded.delivered_sequence > d.delivered_sequence then now() else d.delivered_at end
""")

RECORD = text("""
insert into process.delivery_log (id, target, events, failed, bytes, milliseconds)
select :id, :target, :events, :failed, :bytes,
       array(select least(greatest(0, extract(epoch from clock_timestamp() - c.at) * 1000), 2147483647)::integer
               from unnest(cast(:created as timestamptz[])) as c(at))
""")

MEASURED = text("""
with calls as materialized (
  select events, failed, bytes, milliseconds from process.delivery_log
   where id >= :first and (cast(:target as text) is null or target = :target)),
ages as (select percentile_disc(array[0.5, 0.95]) within group (order by m) as p from calls, unnest(milliseconds) as m)
select count(*) as calls, coalesce(sum(events), 0)::bigint as events, coalesce(sum(failed), 0)::bigint as failed,
       coalesce(sum(bytes), 0)::bigint as bytes, (select p[1] from ages) as median_ms, (select p[2] from ages) as p95_ms
  from calls
""")


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a process' events in a call."""

    tenant_id: UUID
    row_id: UUID
    """The process."""
    version: int
    """The outbox row goes if it says no more than this."""
    delivered: int | None = None
    """Up to where Supabase has the events now; None: nothing was sent."""
    sqlstate: str | None = None
    """Why the next one was refused."""
    held: bool = False
    """Nothing was sent, because the process' events were parked."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How well events travelled, in some stretch of time."""

    calls: int
    events: int
    failed: int
    bytes: int
    median_ms: int | None
    """From being written here to being there."""
    p95_ms: int | None

    @property
    def success_rate(self) -> float | None:
        """Of events whose sending was tried."""
        tried = self.events + self.failed
        return self.events / tried if tried else None

    @property
    def average_bytes(self) -> float | None:
        """Of an event as it goes over the wire."""
        tried = self.events + self.failed
        return self.bytes / tried if tried else None

    def as_dict(self) -> dict[str, Any]:
        """For worker.system_metrics and the dashboard."""
        return {**asdict(self), "success_rate": self.success_rate, "average_bytes": self.average_bytes}


def undelivered(connection: Connection, *, keys: Sequence[Key], limit: int) -> list[dict[str, Any]]:
    """The next events of these processes, `limit` at most but one each at least: a row a process.

    Rows have id (the process'), tenant_id, version (the last event's number), held and events. A process without
    unsent events is left out; one whose events are parked is `held` and brings none.
    """
    wanted = as_json({"tenant_id": key.tenant_id, "row_id": key.row_id} for key in keys)
    each = max(1, -(-5 * limit // max(1, len(keys)))) if len(keys) > 1 else limit
    about = {"keys": wanted, "each": min(each, limit), "n": max(limit, len(keys))}
    found = connection.execute(UNDELIVERED, about).scalar()
    rows: list[dict[str, Any]] = [] if found is None else orjson.loads(found)
    return rows


def settle(connection: Connection, told: Iterable[Settled]) -> None:
    """Note how far Supabase is, and forget outbox rows that say no more than that."""
    connection.execute(SETTLE, {"told": as_json(asdict(one) for one in told)})


def record(
    connection: Connection, *, target: str, events: int, failed: int, size: int, created: Sequence[str | datetime]
) -> None:
    """Write down a call: events delivered and not, bytes sent, and when those that arrived had been written."""
    about = {"id": new_id(), "target": target, "events": events, "failed": failed, "bytes": size}
    connection.execute(RECORD, {**about, "created": list(created)})


def measured(connection: Connection, *, now: datetime, within: timedelta, target: str | None = None) -> Measured:
    """Success, sizes and ages of the events that were sent within the last minutes, hours or days."""
    row = connection.execute(MEASURED, {"first": first_id_at(now - within), "target": target}).one()
    return Measured(*row)
