"""What there is to know about why units do not run: the facts, in one statement for any number of units."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from db.repositories.ledger import WORKER_ALIVE
from db.rows import as_json

FLEET_QUERIES = ("FACTS", "FIND_UNIT")

# Moments inside JSON are seconds since 1970; null is never.
FACTS = text("""
select u.unit_id, u.tenant_id, t.name as tenant, coalesce(w.name, '') as workspace, u.lane, u.state, u.next_due_at,
       u.lease_until, u.worker_id, u.crashes, u.parked_reason, u.rest, u.accounted_to, t.paused, t.pause_reason,
       z.paused_at, z.paused_by, t.isolated_until, t.isolated_reason, n.weight, n.cap, n.debt, n.at_cap,
       n.paused as turn_paused, n.ready_at, clock_timestamp() as now, c.calendars
  from json_to_recordset(cast(:units as json)) as m(unit_id uuid)
  join sync.units u using (unit_id)
  join sync.tenants t on t.tenant_id = u.tenant_id
  left join sync.workspaces w on w.workspace_id = u.unit_id
  left join sync.turns n on n.tenant_id = u.tenant_id and n.lane = u.lane
  left join sync.pauses z on z.tenant_id = u.tenant_id and z.resumed_at is null
  left join lateral (
    select json_agg(json_build_object(
             'state', k.state, 'failures', k.failures, 'last_error', k.last_error,
             'due', case when isfinite(k.next_due_at) then extract(epoch from k.next_due_at) end,
             'account_id', a.account_id, 'provider', a.provider, 'identity', a.identity, 'endpoint', a.endpoint,
             'account_state', a.state, 'account_reason', a.state_reason,
             'account_since', extract(epoch from a.state_since), 'closed', d.closed)) as calendars
      from sync.calendars k
      join sync.accounts a on a.account_id = k.account_id and a.tenant_id = k.tenant_id
      left join lateral (
        select json_build_object('scope', d.scope, 'scope_id', d.scope_id, 'reason', d.reason,
                 'until', extract(epoch from d.until), 'since', extract(epoch from d.created_at),
                 'probe', case when d.probe_until > now() then extract(epoch from d.probe_until) end) as closed
          from sync.cooldowns d
         where d.until > now() and (d.scope, d.scope_id) in (('account', a.account_id::text),
               ('tenant', u.tenant_id::text), ('project', a.provider), ('provider', a.provider))
         order by d.until desc limit 1) d on true
     where k.workspace_id = u.unit_id and k.tenant_id = u.tenant_id and k.state <> 'removed') c on true
 order by u.next_due_at, u.unit_id
""")

PLACE = text("""
with me as (
  select u.*, n.ready_at, n.cap from sync.units u
    left join sync.turns n on n.tenant_id = u.tenant_id and n.lane = u.lane
   where u.unit_id = :unit and u.tenant_id = :tenant),
live as (
  select slots from worker.workers where :queue = any(queues) and heartbeat_at > now() - :alive)
select (select count(*) from sync.units u, me
         where u.tenant_id = :tenant and u.lane = me.lane and u.lease_until > now()
           and u.state in ('dispatched', 'running')) as in_flight,
       (select count(*) from (
          select 1 from sync.turns n, me where n.lane = me.lane and not n.paused and n.ready_at < me.ready_at
             and n.ready_at <= now() and n.tenant_id <> :tenant limit :most) b) as tenants_before,
       (select count(*) from (
          select 1 from sync.units u, me
           where u.tenant_id = :tenant and u.lane = me.lane and u.next_due_at < me.next_due_at
             and (u.lease_until is null or u.lease_until < now()) limit :most) b) as own_before,
       (select count(*) from live) as workers, (select coalesce(sum(slots), 0) from live) as slots,
       (select extract(epoch from now() - max(heartbeat_at))::float8 from worker.workers
         where :queue = any(queues)) as workers_silent,
       (select extract(epoch from now() - max(last_tick))::float8 from worker.schedules) as ticks_silent
""")

FIND_UNIT = text("""
select u.unit_id, u.tenant_id from sync.units u
  join sync.tenants t on t.tenant_id = u.tenant_id
  join sync.workspaces w on w.workspace_id = u.unit_id
 where u.unit_id::text = :text or t.name || '/' || w.name = :text
""")

TENANT_UNITS = text("""
select unit_id from sync.units where tenant_id = :tenant order by next_due_at, unit_id limit :n
""")

COUNT_UNITS = text("select count(*) from sync.units where tenant_id = :tenant")

MOST = 10_000
"""Counting who is before somebody ends here."""


@dataclass(frozen=True, slots=True)
class Closure:
    """A scope that a provider closed, and its probe, if one is out."""

    scope: str
    scope_id: str
    reason: str
    since: datetime
    until: datetime
    probe_until: datetime | None


@dataclass(frozen=True, slots=True)
class CalendarFacts:
    """A calendar of the unit, with its account. `due` None: never."""

    state: str
    failures: int
    last_error: str | None
    due: datetime | None
    account_id: UUID
    provider: str
    identity: str
    endpoint: str | None
    account_state: str
    account_reason: str | None
    account_since: datetime
    closed: Closure | None


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """A unit, its tenant, its tenant's turn in its lane, and its calendars. FACTS' columns."""

    unit_id: UUID
    tenant_id: UUID
    tenant: str
    workspace: str
    lane: str
    state: str
    next_due_at: datetime
    lease_until: datetime | None
    worker_id: str | None
    crashes: int
    parked_reason: str | None
    rest: str | None
    accounted_to: datetime
    paused: bool
    pause_reason: str | None
    paused_at: datetime | None
    paused_by: str | None
    isolated_until: datetime | None
    isolated_reason: str | None
    weight: float | None
    cap: int | None
    debt: float | None
    at_cap: bool | None
    turn_paused: bool | None
    ready_at: datetime | None
    now: datetime
    calendars: tuple[CalendarFacts, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a unit stands among others, and whether anybody is there to run it. Silences are in seconds."""

    in_flight: int
    tenants_before: int
    own_before: int
    workers: int
    slots: int
    workers_silent: float | None
    ticks_silent: float | None


def facts(connection: Connection, units: Iterable[UUID]) -> list[UnitFacts]:
    """The facts about units, the first due first; units that are gone are missing."""
    rows = connection.execute(FACTS, {"units": as_json({"unit_id": unit} for unit in units)}).mappings()
    return [UnitFacts(**{**row, "calendars": tuple(_calendar(one) for one in row["calendars"] or ())}) for row in rows]


def place(connection: Connection, *, tenant_id: UUID, unit_id: UUID, queue: str) -> Place:
    parameters = {"tenant": tenant_id, "unit": unit_id, "queue": queue, "alive": WORKER_ALIVE, "most": MOST}
    return Place(**connection.execute(PLACE, parameters).mappings().one())


def find_unit(connection: Connection, name_or_id: str) -> tuple[UUID, UUID] | None:
    """(unit, tenant) by the unit's id, or by "tenant/workspace"."""
    row = connection.execute(FIND_UNIT, {"text": name_or_id}).first()
    return None if row is None else (row.unit_id, row.tenant_id)


def units_of(connection: Connection, *, tenant_id: UUID, limit: int) -> tuple[list[UUID], int]:
    """The tenant's units that are due first, and how many it has."""
    found = list(connection.execute(TENANT_UNITS, {"tenant": tenant_id, "n": limit}).scalars())
    return found, int(connection.execute(COUNT_UNITS, {"tenant": tenant_id}).scalar_one())


def _calendar(one: Mapping[str, Any]) -> CalendarFacts:
    closed = one["closed"]
    return CalendarFacts(
        state=one["state"],
        failures=one["failures"],
        last_error=one["last_error"],
        due=_moment(one["due"]) if one["due"] is not None else None,
        account_id=UUID(one["account_id"]),
        provider=one["provider"],
        identity=one["identity"],
        endpoint=one["endpoint"],
        account_state=one["account_state"],
        account_reason=one["account_reason"],
        account_since=_moment(one["account_since"]),
        closed=closed
        and Closure(
            scope=closed["scope"],
            scope_id=closed["scope_id"],
            reason=closed["reason"],
            since=_moment(closed["since"]),
            until=_moment(closed["until"]),
            probe_until=_moment(closed["probe"]) if closed["probe"] is not None else None,
        ),
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
