"""Units: claiming them fairly, starting, keeping and finishing runs. The hottest SQL of the system.

The shape of the claim and its figures: docs/decisions/0005-fair-claim.md. In short: `sync.turns` is a
ring of tenants per lane; a claim serves the tenants whose turn it is, looks at no more than `cap` due
units of each, and moves what it takes to *dispatched* under a new fence. `lease_until` is the time a
dispatched unit may take to start, and after that the time a running one may go unrenewed; when it has
passed, the unit is simply due again. All moments are the database's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from config.queues import Lane
from db.racepoints import reach
from db.rows import as_json

FLEET_QUERIES = ("CLAIM", "START", "RENEW", "FINISH", "HAND_BACK", "RELEASE", "GIVE_UP")

START_WITHIN = timedelta(seconds=5)
"""How long a claimed unit may wait for a worker. Free slots are counted before claiming, so it seldom waits at all."""
CRASH_LIMIT = 3
"""A unit that has killed its worker this often while it ran alone is parked."""
CANARY_AFTER = timedelta(hours=1)
"""When a parked unit is tried by itself; each death then doubles the time, up to a day."""
LONGEST_DEBT = 200
"""Quiet runs' worth that a tenant of weight 1 can owe, so that one enormous run does not cost it a day."""

CLAIM = text("""
with closed as materialized (
  select scope_id as provider, max(until) as until from sync.cooldowns
   where scope in ('project', 'provider') and until > now() group by scope_id),
ring as materialized (  -- some more than can be served: they take the turns of those that are in debt
  select tenant_id, cap, weight, debt, ready_at from sync.turns
   where lane = :lane and not paused and ready_at <= now()
   order by ready_at limit :n + :n / 8 + 1 for no key update skip locked),
q as materialized (select ceil(2.0 * :n / greatest(count(*), 1)) as k from ring),
win as materialized (
  select r.tenant_id, r.ready_at, r.weight, r.debt, u.unit_id, u.until, ceil(q.k * r.weight) as share,
         row_number() over (partition by r.tenant_id, u.until is null order by u.next_due_at) as rn
    from ring r cross join q cross join lateral (
      select w.unit_id, w.next_due_at, c.until from (
        select unit_id, next_due_at, lease_until, provider from sync.units
         where tenant_id = r.tenant_id and lane = :lane and next_due_at <= now()
         order by next_due_at limit r.cap) w left join closed c on c.provider = w.provider
       where w.lease_until is null or w.lease_until < now() limit ceil(q.k * r.weight)::bigint + 1) u),
pick as materialized (
  select unit_id, tenant_id, (debt + rn) / weight as place from win
   where until is null and rn <= share order by place, ready_at limit :n),
lk as materialized (
  select u.unit_id, u.tenant_id, u.state, u.worker_id, u.owed, u.suspicions, x.alone,
         u.state = 'running' as died, u.crashes + (u.state = 'running' and x.alone)::int as crashes
    from sync.units u join pick using (unit_id)
   cross join lateral (select :lane in ('bulk', 'isolated') or :lane = 'quarantine' and u.suspicions >= 2 as alone) x
   where u.next_due_at <= now() and u.lane = :lane and (u.lease_until is null or u.lease_until < now())
   for no key update of u skip locked),
claimed as (
  update sync.units u
     set state = 'dispatched', fence = nextval('sync.fence'), lease_until = now() + :start_within,
         crashes = lk.crashes, worker_id = null, owed = 0, parked_reason = null
    from lk
   where u.unit_id = lk.unit_id and (not lk.died or lk.alone and :lane <> 'bulk' and lk.crashes < :crash_limit)
  returning u.unit_id, u.tenant_id, u.fence, u.lane <> 'sync' and lk.alone as alone),
suspects as (
  update sync.units u
     set state = 'idle', lane = 'quarantine', lease_until = null, crashes = lk.crashes,
         suspicions = case when lk.alone then 2 else least(lk.suspicions + 1, 2) end
    from lk where u.unit_id = lk.unit_id and lk.died and (not lk.alone or :lane = 'bulk')
  returning u.tenant_id),
parked as (
  update sync.units u
     set state = 'parked', lease_until = null, crashes = lk.crashes, parked_at = now(),
         next_due_at = now() + least(:canary_after * power(2, lk.crashes - :crash_limit), interval '1 day'),
         parked_reason = 'its worker died ' || lk.crashes || ' times while running it alone'
    from lk
   where u.unit_id = lk.unit_id and lk.died and lk.alone and :lane <> 'bulk' and lk.crashes >= :crash_limit
  returning u.unit_id),
incidents as (
  insert into sync.incidents (tenant_id, unit_id, lane, worker_id)
  select tenant_id, unit_id, :lane, worker_id from lk where died and alone returning 1),
dk as materialized (
  select u.unit_id, w.until from sync.units u join win w using (unit_id)
   where w.until is not null and u.next_due_at <= now() and (u.lease_until is null or u.lease_until < now())
   for no key update of u skip locked),
deferred as (
  update sync.units u set next_due_at = dk.until + random() * interval '10 seconds', rest = 'cooldown'
    from dk where u.unit_id = dk.unit_id returning 1),
wake as (
  update sync.turns t set ready_at = least(t.ready_at, now())
    from (select distinct tenant_id from suspects) s
   where t.tenant_id = s.tenant_id and t.lane = 'quarantine' returning 1),
level as materialized (  -- how far down their queues this claim went; with room to spare, further than anybody's debt
  select case when count(*) >= :n then max(place) else :n end as reached from pick),
tally as materialized (
  select r.tenant_id, r.cap, r.weight, r.debt, coalesce(w.free, 0) as free, coalesce(w.put_off, 0) as put_off,
         coalesce(p.n, 0) as taken, coalesce(o.owed, 0) as owed
    from ring r
    left join (select tenant_id, count(*) filter (where until is null) as free,
                      count(*) filter (where until is not null) as put_off from win group by 1) w using (tenant_id)
    left join (select tenant_id, count(*) as n from pick group by 1) p using (tenant_id)
    left join (select tenant_id, sum(owed) as owed from lk group by 1) o using (tenant_id)),
turn as (
  update sync.turns t set at_cap = x.n >= y.cap,
      debt = least(greatest(0, y.debt + y.taken + y.owed - level.reached * y.weight), :longest_debt * y.weight),
      ready_at = case
        when y.free > y.taken or y.put_off > 0 then clock_timestamp()
        when x.n >= y.cap then now() + interval '1 second'
        else least(case when x.n > 0 then now() + interval '2 seconds' else 'infinity' end,
          coalesce((select u.next_due_at from sync.units u
                     where u.tenant_id = t.tenant_id and u.lane = :lane and u.next_due_at > now()
                     order by u.next_due_at limit 1), 'infinity')) end
    from tally y cross join level cross join lateral (
      select count(*) as n from (
        select 1 from sync.units u
         where u.tenant_id = y.tenant_id and u.lane = :lane and u.next_due_at <= now()
           and y.free = y.taken and y.put_off = 0
         limit y.cap) z) x
   where t.tenant_id = y.tenant_id and t.lane = :lane
     and not (y.free > 0 and y.taken = 0 and y.debt = 0)  -- got nothing, and not for its debt: keeps its place
  returning 1)
select unit_id, tenant_id, fence, alone from claimed
""")

START = text("""
with mine as (select * from json_to_recordset(cast(:units as json)) as m(unit_id uuid, fence bigint)),
lk as materialized (
  select u.unit_id, u.wanted from sync.units u join mine m using (unit_id)
   where u.fence = m.fence and u.state = 'dispatched' order by u.unit_id for no key update of u),
started as (
  update sync.units u set state = 'running', lease_until = now() + :lease, worker_id = :worker, wanted = false
    from lk where u.unit_id = lk.unit_id
  returning u.unit_id, u.tenant_id, u.fence, u.lane, lk.wanted),
opened as (
  update worker.tasks
     set status = 'processing', worker_id = :worker, started_at = now(), updated_at = now(),
         lease_until = now() + :lease
   where id = :batch and status = 'pending' returning 1)
select s.unit_id, s.tenant_id, s.fence, s.lane,
       c.calendar_id, c.provider_key, c.state, c.cursor, c.query_version, c.failures, c.event_count, c.time_zone,
       c.listed_at, a.account_id, a.provider, a.identity, a.endpoint, a.state as account_state, a.credentials,
       a.access_token, a.access_expires_at, d.cooldown, d.half_open, s.wanted
  from started s
  left join sync.calendars c
    on c.workspace_id = s.unit_id and c.tenant_id = s.tenant_id and c.state <> 'removed' and c.next_due_at <= now()
  left join sync.accounts a on a.account_id = c.account_id and a.tenant_id = c.tenant_id
  left join lateral (
    select max(extract(epoch from d.until - now())) filter (where d.until > now())::float8 as cooldown,
           array_agg(d.scope) filter (where d.until <= now()) as half_open
      from sync.cooldowns d
     where (d.scope, d.scope_id) in (('account', a.account_id::text), ('tenant', s.tenant_id::text),
                                     ('project', a.provider), ('provider', a.provider))) d on true
""")

RENEW = text("""
with mine as materialized (select * from json_to_recordset(cast(:units as json)) as m(unit_id uuid, fence bigint)),
lk as materialized (
  select u.unit_id from sync.units u join mine m using (unit_id)
   where u.fence = m.fence and u.state = 'running' order by u.unit_id for no key update of u skip locked),
kept as (
  update sync.units u set lease_until = now() + :lease from lk where u.unit_id = lk.unit_id returning 1),
batches as (
  update worker.tasks set lease_until = now() + :lease, updated_at = now()
   where id = any(cast(:batches as uuid[])) and status = 'processing' returning 1)
select m.unit_id from mine m left join sync.units u using (unit_id)
 where u.fence is distinct from m.fence or u.state <> 'running'
""")

TAKE_FENCE = text("""
update sync.units set lease_until = now() + :lease
 where unit_id = :unit and tenant_id = :tenant and fence = :fence and state = 'running'
returning unit_id
""")

FINISH = text("""
with policy as materialized (  -- number and tick: the last expected occurrence
  select y.since, y.seconds, y.number, to_timestamp(y.number * y.seconds) as tick, now() + 1.2 * y.every as soon
    from (select p.since, p.every, extract(epoch from p.every) as seconds,
                 floor(extract(epoch from now()) / extract(epoch from p.every)) as number
            from sync.policies p where p.since <= now() order by p.since desc limit 1) y),
f as materialized (
  select * from json_to_recordset(cast(:runs as json))
      as r(unit_id uuid, fence bigint, outcome text, task_id uuid, started_at timestamptz, result json, error text,
           cost real, rest text)),
l as materialized (
  select u.unit_id, u.tenant_id, u.lane, u.worker_id, u.wanted,
         f.fence, f.outcome, f.task_id, f.started_at, f.result, f.error, f.cost, f.rest,
         case when f.outcome = 'moved' or u.accounted_to >= coalesce((select p.tick from policy p), '-infinity') then 0
              when u.accounted_to < (select p.since from policy p) or exists (
                select 1 from sync.pauses z
                 where z.tenant_id = u.tenant_id and coalesce(z.resumed_at, 'infinity') > u.accounted_to)
              then sync.expected(u.tenant_id, u.accounted_to, now())
              else (select p.number from policy p)
                   - floor(extract(epoch from u.accounted_to) / (select p.seconds from policy p)) end as slots
    from sync.units u join f using (unit_id)
   where u.fence = f.fence and u.state = 'running' order by u.unit_id for no key update of u),
x as materialized (
  select l.tenant_id, l.wanted, c.* from json_to_recordset(cast(:calendars as json)) as c(
      unit_id uuid, calendar_id uuid, success boolean, state text, reason text, cursor text, query_version integer,
      error text, delay double precision, listed boolean, calls integer, bytes bigint,
      added integer, attempted boolean, blamed boolean, bulk boolean)
    join l using (unit_id)),
done as (
  update sync.calendars c set
      state = coalesce(x.state, c.state),
      state_reason = case when x.state is null then c.state_reason else x.reason end,
      state_since = case when x.state is null or x.state = c.state then c.state_since else now() end,
      cursor = case when x.state in ('resync', 'lost') then null else coalesce(x.cursor, c.cursor) end,
      query_version = coalesce(x.query_version, c.query_version),
      next_due_at = now() + case when x.wanted then 0 else greatest(0, x.delay) end * interval '1 second',
      failures = case when x.success then 0 when x.blamed then c.failures + 1 else c.failures end,
      last_error = case when not x.attempted then c.last_error else x.error end,
      last_attempt_at = case when x.attempted then now() else c.last_attempt_at end,
      last_success_at = case when x.success then now() else c.last_success_at end,
      listed_at = case when x.listed then now() else c.listed_at end,
      event_count = greatest(0, c.event_count + x.added),
      runs = c.runs + x.attempted::int,
      api_calls = c.api_calls + x.calls, bytes_in = c.bytes_in + x.bytes,
      full_calls = case when x.listed then x.calls else c.full_calls end,
      full_bytes = case when x.listed then x.bytes else c.full_bytes end,
      saved_calls = c.saved_calls + case when x.success and not x.listed then c.full_calls - x.calls else 0 end,
      saved_bytes = c.saved_bytes + case when x.success and not x.listed then c.full_bytes - x.bytes else 0 end
    from x where c.calendar_id = x.calendar_id and c.tenant_id = x.tenant_id and c.state <> 'removed'
  returning c.calendar_id, c.workspace_id as unit_id, c.next_due_at,
            case when x.bulk then 'new' else c.state end as state),
due as materialized (  -- one pass without joins: the planner takes a set given as JSON for a handful of rows
  select a.unit_id, min(a.next_due_at) as next_due_at,
         coalesce(bool_or(a.state in ('new', 'resync', 'confirming')), false) as bulky,
         min(a.outcome) as outcome, min(a.lane) as lane, bool_or(a.wanted) as wanted,
         min(a.rest) as rest, greatest(0, min(a.cost) - 1) as owed, min(a.slots) as slots
    from (
      select l.unit_id, null::timestamptz as next_due_at, null as state, l.outcome, l.lane, l.wanted, l.rest,
             l.cost, l.slots from l
      union all
      select d.unit_id, d.next_due_at, d.state, null, null, null, null, null, null from done d
      union all
      select c.workspace_id, c.next_due_at, c.state, null, null, null, null, null, null
        from l join sync.calendars c on c.workspace_id = l.unit_id and c.tenant_id = l.tenant_id
       where c.state <> 'removed' and c.calendar_id not in (select x.calendar_id from x)) a
   group by a.unit_id),
d as (
  update sync.units u set
      state = 'idle', lease_until = null, worker_id = null, crashes = 0, suspicions = 0, parked_at = null,
      lane = case when due.lane = 'isolated' then 'isolated' when due.bulky then 'bulk' else 'sync' end,
      next_due_at = case when due.wanted then now() else coalesce(due.next_due_at, 'infinity') end,
      quiet_runs = u.quiet_runs + (due.outcome = 'quiet')::int,
      changed_runs = u.changed_runs + (due.outcome in ('changed', 'partial'))::int,
      failed_runs = u.failed_runs + (due.outcome = 'failed')::int,
      owed = case when due.lane in ('isolated', case when due.bulky then 'bulk' else 'sync' end)
                  then coalesce(due.owed, 0) else 0 end,
      rest = case when due.next_due_at is null then 'no_calendars'
                  when due.next_due_at <= (select p.soon from policy p) then null else due.rest end,
      accounted_to = case when due.slots > 0 then now() else u.accounted_to end,
      slots_done = u.slots_done + (due.slots > 0 and due.outcome in ('quiet', 'changed', 'partial'))::int,
      slots_failed = u.slots_failed + (due.slots > 0 and due.outcome = 'failed')::int,
      slots_skipped = u.slots_skipped + case when due.outcome = 'skipped' then due.slots
        when u.rest is not null then greatest(0, due.slots - 1) else 0 end,
      slots_superseded = u.slots_superseded + case when due.outcome = 'skipped' or u.rest is not null then 0
        else greatest(0, due.slots - 1) end
    from due where u.unit_id = due.unit_id
  returning u.unit_id, u.tenant_id, u.lane, u.next_due_at, due.lane as lane_before, due.owed),
moved as materialized (  -- a unit that changes its lane pays in the one that it leaves, where its run has cost others
  select t.tenant_id, t.lane from sync.turns t
   where (t.tenant_id, t.lane) in (select d.tenant_id, unnest(array[d.lane, d.lane_before]) from d
                                    where d.lane <> d.lane_before)
   order by t.tenant_id, t.lane for no key update of t),
capped as materialized (
  select t.tenant_id, t.lane from sync.turns t
   where t.at_cap and (t.tenant_id, t.lane) in (select d.tenant_id, d.lane_before from d)
     and (select count(*) from moved) >= 0  -- locks that wait come first, those that skip come after
     for no key update of t skip locked),
wake as (
  update sync.turns t
     set at_cap = t.at_cap and not w.capped, ready_at = least(t.ready_at, w.due), debt = t.debt + w.owed
    from (
      select v.tenant_id, v.lane, min(v.due) as due, sum(v.owed) as owed, bool_or(v.capped) as capped from (
        select m.tenant_id, m.lane, d.next_due_at as due, 0 as owed, false as capped
          from moved m join d using (tenant_id, lane)
        union all
        select m.tenant_id, m.lane, null, d.owed, false
          from moved m join d on d.tenant_id = m.tenant_id and d.lane_before = m.lane and d.lane <> m.lane
        union all
        select c.tenant_id, c.lane, now(), 0, true from capped c) v
       group by v.tenant_id, v.lane) w
   where t.tenant_id = w.tenant_id and t.lane = w.lane returning 1),
ledger as (
  insert into worker.tasks
      (id, tenant_id, kind, subject_id, fence, queue, worker_id, status, started_at, completed_at, result, error_log)
  select l.task_id, l.tenant_id, 'sync.unit', l.unit_id, l.fence, l.lane, coalesce(l.worker_id, 'unassigned'),
         case when l.outcome = 'failed' then 'failed' else 'completed' end, l.started_at, now(),
         l.result::jsonb, l.error
    from l where l.task_id is not null returning 1)
select unit_id from d
""")

HAND_BACK = text("""
with mine as (select * from json_to_recordset(cast(:units as json)) as m(unit_id uuid, fence bigint)),
lk as materialized (
  select u.unit_id from sync.units u join mine m using (unit_id)
   where u.fence = m.fence and u.state in ('dispatched', 'running') order by u.unit_id for no key update of u),
back as (
  update sync.units u set state = 'idle', lease_until = null, worker_id = null
    from lk where u.unit_id = lk.unit_id returning u.unit_id, u.tenant_id, u.lane),
wake as (
  update sync.turns t set ready_at = least(t.ready_at, now())
    from (select distinct tenant_id, lane from back) b where t.tenant_id = b.tenant_id and t.lane = b.lane returning 1)
select unit_id from back
""")


RELEASE = text("""
with u as (
  update sync.units
     set state = 'idle', lane = case when lane = 'isolated' then lane else 'quarantine' end,
         crashes = 0, suspicions = 2,
         parked_reason = null, parked_at = null, next_due_at = now(), wanted = true
   where unit_id = :unit and state = 'parked' returning tenant_id, lane)
update sync.turns t set ready_at = least(t.ready_at, now())
  from u where t.tenant_id = u.tenant_id and t.lane = u.lane
""")

GIVE_UP = text("""
update sync.units set next_due_at = 'infinity', wanted = false where unit_id = :unit and state = 'parked'
""")


@dataclass(frozen=True, slots=True)
class ClaimedUnit:
    unit_id: UUID
    tenant_id: UUID
    fence: int
    alone: bool = False
    """Whether it has to be the only unit of its message."""


@dataclass(frozen=True, slots=True)
class DueCalendar:
    """A due calendar of a unit that has just been started, with the account to fetch it by. START's columns."""

    unit_id: UUID
    tenant_id: UUID
    fence: int
    lane: str
    calendar_id: UUID
    provider_key: str
    state: str
    cursor: str | None
    query_version: int | None
    failures: int
    event_count: int
    time_zone: str | None
    listed_at: datetime | None
    account_id: UUID
    provider: str
    identity: str
    endpoint: str | None
    account_state: str
    credentials: memoryview | None
    access_token: memoryview | None
    access_expires_at: datetime | None
    cooldown: float | None
    """Seconds until the last of the scopes that are closed for it opens; None when none is."""
    half_open: Sequence[str] | None
    """Scopes that were closed until a moment that has passed: whoever holds their probe may try."""


@dataclass(frozen=True, slots=True)
class StartedUnit:
    """A unit that this worker runs from now on."""

    unit_id: UUID
    tenant_id: UUID
    fence: int
    lane: Lane
    calendars: tuple[DueCalendar, ...]
    wanted: bool = False
    """Whether somebody wanted it to run now."""


def _pairs(units: Iterable[tuple[UUID, int]]) -> str:
    return as_json({"unit_id": unit, "fence": fence} for unit, fence in units)


def claim(connection: Connection, *, lane: Lane, limit: int) -> list[ClaimedUnit]:
    """Take up to `limit` due units of a lane, in turns across tenants, under new fences.

    An empty answer does not mean that nothing is due: another dispatcher may just hold the rows.
    """
    rows = connection.execute(
        CLAIM,
        {
            "lane": lane.value,
            "n": limit,
            "start_within": START_WITHIN,
            "crash_limit": CRASH_LIMIT,
            "canary_after": CANARY_AFTER,
            "longest_debt": LONGEST_DEBT,
        },
    )
    return [ClaimedUnit(row.unit_id, row.tenant_id, row.fence, row.alone) for row in rows]


def start(
    connection: Connection,
    *,
    batch_id: UUID,
    units: Sequence[tuple[UUID, int]],
    worker: str,
    lease: timedelta,
) -> list[StartedUnit]:
    """Move the units whose fence still stands to *running* and read what is due in them.

    A unit that was claimed anew meanwhile is left out: its message is void.
    """
    rows = connection.execute(
        START, {"units": _pairs(units), "batch": batch_id, "worker": worker, "lease": lease}
    ).all()
    found: dict[UUID, tuple[Any, list[DueCalendar]]] = {}
    for row in rows:
        _, calendars = found.setdefault(row.unit_id, (row, []))
        if row.calendar_id is not None:
            calendars.append(DueCalendar(*row[:-1]))
    return [
        StartedUnit(row.unit_id, row.tenant_id, row.fence, Lane(row.lane), tuple(calendars), row.wanted)
        for row, calendars in found.values()
    ]


def renew(
    connection: Connection, *, units: Iterable[tuple[UUID, int]], batches: Iterable[UUID], lease: timedelta
) -> set[UUID]:
    """Extend the leases of runs under way; returns the units that are no longer this worker's."""
    parameters = {
        "units": _pairs(units),
        "batches": "{" + ",".join(str(batch) for batch in batches) + "}",
        "lease": lease,
    }
    return set(connection.execute(RENEW, parameters).scalars())


def take_fence(connection: Connection, *, tenant_id: UUID, unit_id: UUID, fence: int, lease: timedelta) -> bool:
    """Hold the unit's row until commit if the fence still stands; False if a newer run exists."""
    reach("fence.asked", tenant=tenant_id, unit=unit_id, fence=fence, lease=lease)
    taken = connection.execute(TAKE_FENCE, {"tenant": tenant_id, "unit": unit_id, "fence": fence, "lease": lease})
    held = taken.scalar() is not None
    reach("fence.answered", tenant=tenant_id, unit=unit_id, fence=fence, taken=held)
    return held


def finish(
    connection: Connection, *, runs: Iterable[Mapping[str, Any]], calendars: Iterable[Mapping[str, Any]]
) -> set[UUID]:
    """End runs: record what came of each calendar, and when the unit is due again. One statement, any number.

    Runs whose fence no longer stands change nothing; the ids of those that did end are returned.
    The keys of the mappings are the columns named in FINISH. In the same statement each unit's expected occurrences
    are accounted for: one by this run's outcome, those before it as skipped if the unit rested for a reason, and
    otherwise as superseded by this run. `moved` accounts for none: another run follows at once, in another lane.
    """
    rows = connection.execute(FINISH, {"runs": as_json(runs), "calendars": as_json(calendars)})
    return set(rows.scalars())


def hand_back(connection: Connection, *, units: Iterable[tuple[UUID, int]]) -> set[UUID]:
    """Give units up unfinished, due at once: what a worker does with its runs when it is told to stop."""
    return set(connection.execute(HAND_BACK, {"units": _pairs(units)}).scalars())


def release(connection: Connection, *, unit_id: UUID) -> bool:
    """Let a parked unit run again, alone; False if it is not parked."""
    return connection.execute(RELEASE, {"unit": unit_id}).rowcount == 1


def give_up(connection: Connection, *, unit_id: UUID) -> bool:
    """Try a parked unit no more by itself; False if it is not parked."""
    return connection.execute(GIVE_UP, {"unit": unit_id}).rowcount == 1
