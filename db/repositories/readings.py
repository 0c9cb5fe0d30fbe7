"""What metrics and `status` read."""

from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from db.ids import new_id
from db.rows import as_json

FLEET_QUERIES = (
    "FLEET",
    "FRESHNESS",
    "WORKERS",
    "RECORD",
    "TENANTS",
    "COOLDOWNS",
    "PARKED_UNITS",
    "PARKED_ROWS",
    "SERVER_VERSION",
)

FLEET = text("""
with audit as (  -- tenantsync/accounting: its last occurrence that is over
  select result, completed_at from worker.tasks
   where kind = 'ledger.audit' and due_at is not null and status = 'completed' order by due_at desc limit 1)
select (select count(*) from sync.tenants) as tenants,
       (select count(*) from sync.units) as units,
       (select count(*) from sync.units where state in ('dispatched', 'running')) as in_flight,
       (select count(*) from sync.units where state = 'parked') as parked_units,
       due.units as due, due.oldest as oldest_due,
       (select count(*) from worker.tasks
         where kind = 'sync.batch' and status in ('pending', 'processing')) as open_batches,
       (select coalesce(extract(epoch from now() - min(created_at)), 0)::float8 from worker.tasks
         where kind = 'sync.batch' and status in ('pending', 'processing')) as oldest_batch,
       (select count(*) from mirror.outbox) as outbox,
       (select coalesce(extract(epoch from now() - min(queued_at)), 0)::float8 from mirror.outbox) as oldest_unsent,
       (select coalesce(extract(epoch from now() - min(due_at)), 0)::float8 from worker.tasks
         where due_at is not null and status in ('pending', 'processing')) as oldest_occurrence,
       coalesce((select (result ->> 'missing')::bigint from audit), 0) as missing,
       coalesce((select (result ->> 'doubled')::bigint from audit), 0) as doubled,
       coalesce((select extract(epoch from now() - completed_at) from audit), 0)::float8 as ledger_age,
       (select count(*) from mirror.parked_rows) as parked_rows,
       (select count(*) from sync.quarantined_items) as set_aside,
       (select count(*) from sync.accounts where state = 'needs_reauth') as needs_reauth,
       (select count(*) from sync.calendars where failures > 0 and state <> 'removed') as failing_calendars,
       (select coalesce(sum(event_count), 0)::bigint from sync.calendars where state <> 'removed') as events,
       (select coalesce(sum(api_calls), 0)::bigint from sync.calendars) as api_calls,
       (select coalesce(sum(bytes_in), 0)::bigint from sync.calendars) as bytes_in,
       (select coalesce(sum(saved_calls), 0)::bigint from sync.calendars) as saved_calls,
       (select coalesce(sum(saved_bytes), 0)::bigint from sync.calendars) as saved_bytes
  from (select count(*) as units, coalesce(extract(epoch from now() - min(u.next_due_at)), 0)::float8 as oldest
          from sync.units u join sync.tenants t on t.tenant_id = u.tenant_id
         where u.next_due_at <= now() and u.state = 'idle' and not t.paused) due  -- nobody waits for a paused one
""")

FRESHNESS = text("""
select c.tenant_id, count(*) as calendars, count(*) filter (where c.failures > 0) as failing,
       max(extract(epoch from now() - coalesce(c.last_success_at, c.created_at)))::float8 as stalest,
       (percentile_cont(0.5) within group (order by extract(epoch from
          now() - coalesce(c.last_success_at, c.created_at))))::float8 as median
  from sync.calendars c
  join sync.accounts a on a.account_id = c.account_id and a.tenant_id = c.tenant_id
 where c.state <> 'removed' and a.state = 'connected' and c.tenant_id > :after
 group by c.tenant_id order by c.tenant_id limit :n
""")

WORKERS = text("""
select worker_id, queues, slots, cpu_usage::float8, memory_usage::float8, active_tasks, clock_skew_ms,
       extract(epoch from now() - heartbeat_at)::float8 as silent_for,
       extract(epoch from now() - started_at)::float8 as up_for
  from worker.workers order by worker_id
""")

RECORD = text("""
insert into worker.system_metrics
    (id, scope, worker_id, tenant_id, cpu_usage, memory_usage, active_tasks, details)
select m.id, m.scope, m.worker_id, m.tenant_id, m.cpu_usage, m.memory_usage, m.active_tasks, m.details::jsonb
  from json_to_recordset(cast(:rows as json)) as m(
    id uuid, scope text, worker_id text, tenant_id uuid, cpu_usage numeric, memory_usage numeric,
    active_tasks integer, details json)
""")

TENANTS = text("""
select t.tenant_id, t.name, t.paused, t.pause_reason, t.isolated_until, t.isolated_reason,
       (select z.paused_by from sync.pauses z where z.tenant_id = t.tenant_id and z.resumed_at is null) as paused_by,
       (select z.paused_at from sync.pauses z where z.tenant_id = t.tenant_id and z.resumed_at is null) as paused_at,
       (select count(*) from sync.units u where u.tenant_id = t.tenant_id) as units,
       (select count(*) from sync.calendars c where c.tenant_id = t.tenant_id and c.state <> 'removed') as calendars,
       (select count(*) from sync.calendars c
         where c.tenant_id = t.tenant_id and c.state <> 'removed' and c.failures > 0) as failing,
       (select count(*) from sync.accounts a
         where a.tenant_id = t.tenant_id and a.state in ('needs_reauth', 'unusable')) as broken_accounts,
       (select coalesce(sum(c.event_count), 0)::bigint from sync.calendars c
         where c.tenant_id = t.tenant_id and c.state <> 'removed') as events,
       (select count(*) from mirror.outbox o where o.tenant_id = t.tenant_id) as unsent,
       (select extract(epoch from now() - min(c.last_success_at))::float8 from sync.calendars c
         join sync.accounts a on a.account_id = c.account_id and a.tenant_id = c.tenant_id
        where c.tenant_id = t.tenant_id and c.state <> 'removed' and a.state = 'connected') as stalest
  from sync.tenants t
 where cast(:tenant as uuid) is null or t.tenant_id = cast(:tenant as uuid)
 order by t.name limit :n
""")

COOLDOWNS = text("""
select scope, scope_id, reason, extract(epoch from until - now())::float8 as seconds
  from sync.cooldowns where until > now() order by until desc limit :n
""")

PARKED_UNITS = text("""
select u.unit_id, u.tenant_id, t.name as tenant, w.name as workspace, u.parked_reason,
       case when isfinite(u.next_due_at) then u.next_due_at end as tried_again_at
  from sync.units u
  join sync.tenants t on t.tenant_id = u.tenant_id
  join sync.workspaces w on w.workspace_id = u.unit_id and w.tenant_id = u.tenant_id
 where u.state = 'parked' order by t.name, w.name limit :n
""")


SERVER_VERSION = text("show server_version_num")

PARKED_ROWS = text("""
select p.tenant_id, t.name as tenant, p.entity, p.row_id, p.version, p.sqlstate, p.reason, p.parked_at
  from mirror.parked_rows p join sync.tenants t on t.tenant_id = p.tenant_id order by p.parked_at limit :n
""")


def fleet(connection: Connection) -> dict[str, Any]:
    """Counts over everything: what is due, in flight, unsent, parked, failing."""
    return dict(connection.execute(FLEET).mappings().one())


def freshness(connection: Connection, *, after: UUID, limit: int) -> list[dict[str, Any]]:
    """Seconds since the last success of each tenant's calendars (worst and median), by tenant id."""
    return [dict(row) for row in connection.execute(FRESHNESS, {"after": after, "n": limit}).mappings()]


def workers(connection: Connection) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(WORKERS).mappings()]


def record(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """Write readings into worker.system_metrics; ids are given here."""
    if rows:
        prepared = [
            {"id": new_id(), **row, "details": orjson.Fragment(orjson.dumps(row.get("details")))} for row in rows
        ]
        connection.execute(RECORD, {"rows": as_json(prepared)})


def tenants(connection: Connection, *, tenant_id: UUID | None, limit: int) -> list[dict[str, Any]]:
    """How each tenant stands, or how one does."""
    return [dict(row) for row in connection.execute(TENANTS, {"tenant": tenant_id, "n": limit}).mappings()]


def cooldowns(connection: Connection, *, limit: int) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(COOLDOWNS, {"n": limit}).mappings()]


def parked_rows(connection: Connection, *, limit: int) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(PARKED_ROWS, {"n": limit}).mappings()]


def parked_units(connection: Connection, *, limit: int) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(PARKED_UNITS, {"n": limit}).mappings()]


def server_version(connection: Connection) -> int:
    """Postgres' version as a number: 180004 is 18.4."""
    return int(connection.execute(SERVER_VERSION).scalar_one())
