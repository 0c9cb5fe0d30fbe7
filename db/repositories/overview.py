"""What the overview shows of the whole fleet. What is counted over everything is read from the newest reading, which
is some seconds old; what is counted here touches few rows however large the fleet is.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

FLEET_QUERIES = ("PULSE", "WORKER_STATUS", "FAILED_RUNS", "PROOF", "PAUSED", "PEOPLE_WANTED", "TASKS_OPEN")

COUNTED_UP_TO = 10_000
"""Counting what may be endless ends here."""

# Of tenants that are not paused. A calendar is fresh when its last success is no older than two intervals.
PULSE = text("""
with policy as (select every from sync.policies where since <= now() order by since desc limit 1),
ages as (
  select extract(epoch from now() - coalesce(c.last_success_at, c.created_at))::float8 as age
    from sync.calendars c
    join sync.accounts a on a.account_id = c.account_id and a.tenant_id = c.tenant_id
    join sync.tenants t on t.tenant_id = c.tenant_id
   where c.state <> 'removed' and a.state = 'connected' and not t.paused)
select (select count(*) from ages) as calendars_watched,
       (select count(*) from ages
         where age <= 2 * extract(epoch from coalesce((select every from policy), interval '60 s'))) as fresh,
       coalesce(p.p[1], 0) as fresh_p50, coalesce(p.p[2], 0) as fresh_p95, coalesce(p.p[3], 0) as fresh_max,
       u.quiet_runs, u.changed_runs, u.failed_runs,
       (select count(*) from sync.cooldowns where until > now()) as cooldowns,
       (select count(*) from process.processes where state = 'running') as processes_running,
       (select count(*) from process.processes where state = 'waiting') as processes_waiting
  from (select percentile_disc(array[0.5, 0.95, 1]) within group (order by age) as p from ages) p,
       (select coalesce(sum(quiet_runs), 0)::bigint as quiet_runs,
               coalesce(sum(changed_runs), 0)::bigint as changed_runs,
               coalesce(sum(failed_runs), 0)::bigint as failed_runs from sync.units) u
""")

LATEST = text("""
select details, recorded_at, extract(epoch from now() - recorded_at)::float8 as age
  from worker.system_metrics where scope = 'fleet' and id >= cast(:since as uuid) order by id desc limit 1
""")

# Some readings of every point's span are looked at, so that a month costs what an hour costs. A UUIDv7 begins with
# its moment in milliseconds, hence the bounds.
HISTORY = text("""
with marks as (
  select n / :samples as point, cast(:first as timestamptz) + n * cast(:step as interval) / :samples as low
    from generate_series(0, :points * :samples - 1) n),
bounds as (
  select point,
         (lpad(to_hex((extract(epoch from low) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid as low,
         (lpad(to_hex((extract(epoch from low + cast(:step as interval) / :samples) * 1000)::bigint), 12, '0')
           || '70008000000000000000')::uuid as high
    from marks)
select b.point, extract(epoch from max(r.recorded_at))::float8 as at,
       max((r.details ->> 'fresh_p50')::float8) as fresh_p50, max((r.details ->> 'fresh_p95')::float8) as fresh_p95,
       max((r.details ->> 'due')::float8) as due, max((r.details ->> 'in_flight')::float8) as in_flight,
       max((r.details ->> 'oldest_due')::float8) as oldest_due,
       max((r.details ->> 'oldest_unsent')::float8) as oldest_unsent,
       max((r.details ->> 'oldest_occurrence')::float8) as oldest_occurrence,
       max((r.details ->> 'outbox')::float8) as outbox, max((r.details ->> 'parked_rows')::float8) as parked_rows,
       max((r.details ->> 'failing_calendars')::float8) as failing_calendars,
       max((r.details ->> 'needs_reauth')::float8) as needs_reauth,
       max((r.details ->> 'cooldowns')::float8) as cooldowns,
       max((r.details ->> 'quiet_runs')::float8) as quiet_runs,
       max((r.details ->> 'changed_runs')::float8) as changed_runs,
       max((r.details ->> 'failed_runs')::float8) as failed_runs,
       max((r.details ->> 'api_calls')::float8) as api_calls
  from bounds b
 cross join lateral (
   select details, recorded_at from worker.system_metrics
    where scope = 'fleet' and id >= b.low and id < b.high order by id limit 1) r
 group by b.point order by b.point
""")

WORKER_STATUS = text("""
select count(*) filter (where status in ('pending', 'waiting')) as pending,
       count(*) filter (where status = 'processing') as processing,
       count(*) filter (where status = 'completed') as completed,
       count(*) filter (where status = 'failed') as failed
  from worker.tasks where id >= cast(:since as uuid)
""")
TENANT_STATUS = text("""
select count(*) filter (where status in ('pending', 'waiting')) as pending,
       count(*) filter (where status = 'processing') as processing,
       count(*) filter (where status = 'completed') as completed,
       count(*) filter (where status = 'failed') as failed
  from worker.tasks where tenant_id = :tenant and id >= cast(:since as uuid)
   and (cast(:workspaces as uuid[]) is null or coalesce(subject_id, workspace_id) = any(cast(:workspaces as uuid[])))
""")

FAILED_RUNS = text("""
select k.id, k.tenant_id, t.name as tenant, k.kind, k.error_log, k.completed_at
  from worker.tasks k left join sync.tenants t on t.tenant_id = k.tenant_id
 where k.status = 'failed' and k.id >= cast(:since as uuid) order by k.id desc limit :n
""")

PROOF = text("""
select details, created_at, extract(epoch from now() - created_at)::float8 as age
  from worker.audit_logs
 where tenant_id is null and action = 'audit.proof' and id >= cast(:since as uuid) order by id desc limit 1
""")

PAUSED = text("""
select count(*) filter (where paused) as paused,
       count(*) filter (where isolated_until > now()) as isolated from sync.tenants
""")

PEOPLE_WANTED = text("""
select count(*) from (select 1 from process.questions where state = 'open' limit :most) q
""")

TASKS_OPEN = text("""
select count(*) filter (where kind = 'sync.batch') as batches, count(*) filter (where kind <> 'sync.batch') as others
  from (select kind from worker.tasks where status in ('pending', 'processing') and queue is not null limit :most) k
""")


@dataclass(frozen=True, slots=True)
class Reading:
    """What the fleet was like some seconds ago."""

    details: Mapping[str, Any]
    recorded_at: datetime
    age: float


def pulse(connection: Connection) -> dict[str, Any]:
    """How fresh calendars are and how many runs there were: over everything, so for the readings alone."""
    return dict(connection.execute(PULSE).mappings().one())


def latest(connection: Connection, *, since: Any) -> Reading | None:
    """The newest reading of the fleet."""
    row = connection.execute(LATEST, {"since": since}).one_or_none()
    return None if row is None else Reading(row.details, row.recorded_at, row.age)


def history(
    connection: Connection, *, first: datetime, step: timedelta, points: int, samples: int
) -> list[dict[str, Any]]:
    """Readings of the fleet from `first` on, a row for each `step` that has any: the highest of some of them."""
    parameters = {"first": first, "step": step, "points": points, "samples": samples}
    return [dict(row) for row in connection.execute(HISTORY, parameters).mappings()]


def worker_status(
    connection: Connection, *, since: Any, tenant_id: Any = None, workspaces: Collection[Any] | None = None
) -> dict[str, int]:
    """Tasks made since then, by state; of one tenant and, if they are given, of these workspaces of it, or of all."""
    query = WORKER_STATUS if tenant_id is None else TENANT_STATUS
    chosen = None if workspaces is None else [str(one) for one in workspaces]
    parameters = {"since": since, "tenant": tenant_id, "workspaces": chosen}
    return {name: int(count) for name, count in connection.execute(query, parameters).mappings().one().items()}


def failed_runs(connection: Connection, *, since: Any, limit: int) -> list[dict[str, Any]]:
    """What failed last."""
    return [dict(row) for row in connection.execute(FAILED_RUNS, {"since": since, "n": limit}).mappings()]


def proof(connection: Connection, *, since: Any) -> dict[str, Any] | None:
    """What the last comparison of provider, Postgres and Supabase found, and when; None if there was none lately."""
    row = connection.execute(PROOF, {"since": since}).one_or_none()
    return None if row is None else {**row.details, "at": row.created_at, "age": row.age}


def wanted(connection: Connection) -> dict[str, int]:
    """What waits for a person, counted up to COUNTED_UP_TO."""
    states = connection.execute(PAUSED).mappings().one()
    questions = connection.execute(PEOPLE_WANTED, {"most": COUNTED_UP_TO}).scalar_one()
    tasks = connection.execute(TASKS_OPEN, {"most": COUNTED_UP_TO}).mappings().one()
    return {**{name: int(value) for name, value in {**states, **tasks}.items()}, "questions": int(questions)}
