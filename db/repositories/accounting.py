"""The double entry of units: what was expected of them, what became of it, and when nothing was expected.

Expected are the multiples of the policy's interval since 1970, outside the tenant's pauses. A unit's
counters say what became of those up to its `accounted_to`. In SQL they are counted by `sync.expected`, which
FINISH and SWEEP use; the auditor counts them for itself (tenantsync/accounting/rules.py).

Pausing and resuming move no unit, however many a tenant has: on the books a pause is two moments. So that
no statement which cannot see a row yet has counted beyond it, policies and pauses begin, and pauses end,
`AHEAD` of being written.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from db.ids import new_id
from db.rows import as_json

FLEET_QUERIES = ("BOOKS", "SWEEP", "LAST_RESULT")

AHEAD = timedelta(seconds=5)
"""Longer than it takes to commit the row; what ends in between still sees the old rule, and is right."""

DECLARE = text("""
insert into sync.policies (since, every)
select clock_timestamp() + :ahead, :every
 where (select every from sync.policies order by since desc limit 1) is distinct from cast(:every as interval)
on conflict (since) do nothing
""")

OPEN_PAUSE = text("""
insert into sync.pauses (pause_id, tenant_id, paused_at, paused_by, reason)
values (:pause, :tenant, clock_timestamp() + :ahead, :by, :reason)
on conflict (tenant_id) where resumed_at is null do nothing
""")

CLOSE_PAUSE = text("""
update sync.pauses set resumed_at = clock_timestamp() + :ahead where tenant_id = :tenant and resumed_at is null
""")

POLICIES = text("select since, every from sync.policies order by since")

PAUSES = text("""
select tenant_id, paused_at, resumed_at from sync.pauses
 where tenant_id = any(cast(:tenants as uuid[])) order by tenant_id, paused_at
""")

BOOKS = text("""
select u.unit_id, u.tenant_id, u.created_at, u.accounted_to, u.slots_done, u.slots_failed, u.slots_skipped,
       u.slots_superseded, u.state, u.next_due_at, u.lease_until, coalesce(t.paused, false) as paused,
       n.paused as turn_paused, n.ready_at, clock_timestamp() as now
  from (select * from sync.units where unit_id > :after order by unit_id limit :n) u
  left join sync.tenants t on t.tenant_id = u.tenant_id
  left join sync.turns n on n.tenant_id = u.tenant_id and n.lane = u.lane
 order by u.unit_id
""")

SWEEP = text("""
with lk as materialized (
  select u.unit_id, sync.expected(u.tenant_id, u.accounted_to, now()) as slots
    from json_to_recordset(cast(:seen as json)) as s(unit_id uuid, accounted_to timestamptz)
    join sync.units u on u.unit_id = s.unit_id and u.accounted_to = s.accounted_to
   where u.state in ('idle', 'parked') order by u.unit_id for no key update of u skip locked),
swept as (
  update sync.units u set slots_skipped = u.slots_skipped + lk.slots, accounted_to = now()
    from lk where u.unit_id = lk.unit_id and lk.slots > 0 returning lk.slots)
select coalesce(sum(slots), 0)::bigint from swept
""")

LAST_RESULT = text("""
select result, extract(epoch from now() - completed_at)::float8 as age from worker.tasks
 where kind = 'ledger.audit' and due_at is not null and status = 'completed' and result is not null
 order by due_at desc limit 1
""")


@dataclass(frozen=True, slots=True)
class Books:
    """A unit's books, and as much of its state as says whether it is on its way. BOOKS' columns."""

    unit_id: UUID
    tenant_id: UUID
    created_at: datetime
    accounted_to: datetime
    done: int
    failed: int
    skipped: int
    superseded: int
    state: str
    next_due_at: datetime
    lease_until: datetime | None
    paused: bool
    turn_paused: bool | None
    ready_at: datetime | None
    now: datetime

    @property
    def accounted(self) -> int:
        return self.done + self.failed + self.skipped + self.superseded


def declare_policy(connection: Connection, *, every: timedelta, ahead: timedelta = AHEAD) -> bool:
    """Expect a run of every unit this often from `ahead` on; False if that is so already.

    For one caller in the fleet: two processes with different settings would each take the other's back.
    """
    return connection.execute(DECLARE, {"every": every, "ahead": ahead}).rowcount == 1


def open_pause(
    connection: Connection, *, tenant_id: UUID, by: str, reason: str | None, ahead: timedelta = AHEAD
) -> bool:
    """Expect nothing of a tenant from `ahead` on; False if it is so already. In the transaction that pauses it."""
    parameters = {"pause": new_id(), "tenant": tenant_id, "by": by, "reason": reason, "ahead": ahead}
    return connection.execute(OPEN_PAUSE, parameters).rowcount == 1


def close_pause(connection: Connection, *, tenant_id: UUID, ahead: timedelta = AHEAD) -> bool:
    """Expect runs of a tenant again from `ahead` on; False if it is not paused. In the transaction that resumes it."""
    return connection.execute(CLOSE_PAUSE, {"tenant": tenant_id, "ahead": ahead}).rowcount == 1


def policies(connection: Connection) -> list[tuple[datetime, timedelta]]:
    """(since, every), in order; each holds until the next."""
    return [(row.since, row.every) for row in connection.execute(POLICIES)]


def pauses(connection: Connection, tenants: Iterable[UUID]) -> dict[UUID, list[tuple[datetime, datetime | None]]]:
    """(begin, end) of the pauses of some tenants, in order."""
    found: dict[UUID, list[tuple[datetime, datetime | None]]] = {}
    listed = "{" + ",".join(str(tenant) for tenant in tenants) + "}"
    for row in connection.execute(PAUSES, {"tenants": listed}):
        found.setdefault(row.tenant_id, []).append((row.paused_at, row.resumed_at))
    return found


def books(connection: Connection, *, after: UUID, limit: int) -> list[Books]:
    """The books of up to `limit` units, by id. Policies and pauses have to be read after them, not before."""
    return [Books(*row) for row in connection.execute(BOOKS, {"after": after, "n": limit})]


def sweep(connection: Connection, seen: Sequence[tuple[UUID, datetime]]) -> int:
    """Account for what resting units did not do, as skipped; returns how many occurrences.

    `seen`: unit and its `accounted_to` as it was read; a unit that has moved on since is left alone.
    """
    rows = as_json({"unit_id": unit, "accounted_to": moment} for unit, moment in seen)
    return int(connection.execute(SWEEP, {"seen": rows}).scalar_one())


def last_result(connection: Connection) -> tuple[dict[str, Any], float] | None:
    """(result, seconds since) of the last audit that was completed."""
    row = connection.execute(LAST_RESULT).first()
    return None if row is None else (row.result, row.age)
