"""After the storm: whether anything was lost or doubled, by questions to the databases and the providers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from beat_schedule import OCCURRENCES
from benchmarks import fairness as fair
from config.timetable import followed
from sandbox.chaos.checker import densest
from sandbox.chaos.recorder import Recorder
from sandbox.chaos.world import StormWorld
from tenantsync.accounting import service as accounting
from tenantsync.audit import service as auditing
from tenantsync.audit.service import CalendarProof, Report
from tenantsync.dispatching import pausing
from tenantsync.mirror.supabase import Supabase

AUDIT_DEADLINE = 30.0  # seconds a calendar
SETTLED = 60.0  # seconds for everything to be synced once more, and sent
WINDOW = 60.0  # seconds of Google's budgets
REFILL = 5.0  # seconds
FAIRNESS_SECONDS = 8.0

# A row written twice would show as one of these.
DOUBLED = {
    "ledger rows of the same run": """
        select coalesce(sum(n - 1), 0)::bigint from (
          select count(*) as n from worker.tasks where kind = 'sync.unit' group by subject_id, fence) x where n > 1""",
    "calendars that count their events wrongly": """
        select count(*) from sync.calendars c where c.state <> 'removed' and c.event_count <> (
          select count(*) from sync.events e where e.calendar_id = c.calendar_id and e.tenant_id = c.tenant_id)""",
    "events stored more than once": """
        select coalesce(sum(n - 1), 0)::bigint from (
          select count(*) as n from sync.events group by calendar_id, provider_key) x where n > 1""",
    "runs of units counted more than once": """
        select count(*) from (select unit_id, fence from chaos.history where was = 'running' and counted > 0
                               group by 1, 2 having sum(counted) > 1) x""",
}
NEVER_ALONE = """
select t.name, w.name, u.state, u.parked_reason,
       extract(epoch from now() - u.next_due_at)::float8 from sync.units u
  join sync.tenants t on t.tenant_id = u.tenant_id
  join sync.workspaces w on w.workspace_id = u.unit_id and w.tenant_id = u.tenant_id
 where u.state = 'parked'
    or not t.paused and u.next_due_at < now() - interval '15 s' and (u.lease_until is null or u.lease_until < now())
 order by 1, 2
"""
LATE = """
select count(*) from sync.calendars c
  join sync.accounts a on a.account_id = c.account_id and a.tenant_id = c.tenant_id
  join sync.tenants t on t.tenant_id = c.tenant_id
 where c.state <> 'removed' and a.state = 'connected' and not t.paused
   and (c.last_success_at is null or c.last_success_at < to_timestamp(%s))
"""
UNSENT = "select count(*) from mirror.outbox where queued_at < to_timestamp(%s)"
PARKED_ROWS = "select sqlstate, count(*) from mirror.parked_rows group by 1 order by 1"
SET_ASIDE = "select count(*) from sync.quarantined_items"


@dataclass(slots=True)
class Verdict:
    """What was found after the storm."""

    drift: int = 0
    unproven: list[str] = field(default_factory=list)
    doubled: dict[str, int] = field(default_factory=dict)
    stuck: list[str] = field(default_factory=list)
    """Units that are parked, or due for long and not taken up."""
    parked_rows: dict[str, int] = field(default_factory=dict)
    settled_s: float | None = None
    occurrences_missing: int = 0
    accounting: str = ""
    budgets: dict[str, Any] = field(default_factory=dict)
    fairness: dict[str, float] | None = None
    fairness_note: str = ""
    audit: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(world: StormWorld, recorder: Recorder) -> Verdict:
    """Everything but fairness, which needs the machine for itself. The gardener has stopped, the fleet runs."""
    verdict = Verdict()
    verdict.settled_s = _settle(world)
    missing, doubled, verdict.accounting = _occurrences(world)
    verdict.occurrences_missing = missing
    report = _audit(world)
    verdict.drift = report.drift
    verdict.unproven = _unproven(report)
    verdict.audit = {
        "seconds": round(report.seconds, 1),
        "calendars": len(report.calendars),
        "proven": len(report.having(auditing.PROVEN)),
        "explained": len(report.having(auditing.EXPLAINED)),
        "mirrored_rows": report.mirrored,
        "set_aside": world.ask(SET_ASIDE)[0][0],
    }
    verdict.doubled = {what: int(world.ask(query)[0][0]) for what, query in DOUBLED.items()}
    verdict.doubled["occurrences accounted for more than once"] = doubled
    verdict.stuck = [
        f"{tenant}/{unit}: {state}, {why or f'due for {due:.0f} s'}"
        for tenant, unit, state, why, due in world.ask(NEVER_ALONE)
    ]
    verdict.parked_rows = {str(code): int(count) for code, count in world.ask(PARKED_ROWS)}
    recorder.catch_up()
    verdict.budgets = budgets(recorder.requests, *limits(world))
    return verdict


def _settle(world: StormWorld) -> float | None:
    """Seconds until every calendar was synced once more and its rows were sent; None: it did not happen."""
    began = time.time()
    while time.time() - began < SETTLED:
        if world.ask(LATE, began)[0][0] == 0 and world.ask(UNSENT, began)[0][0] == 0:
            return round(time.time() - began, 1)
        time.sleep(0.25)
    return None


def _audit(world: StormWorld) -> Report:
    """Everybody; then, once more, the tenants whose accounts had no request left for an audit."""
    supabase = Supabase(world.supabase.url, world.supabase.secret_key)
    audit = partial(auditing.audit, world.database, supabase, world.settings, deadline=AUDIT_DEADLINE)
    try:
        report = audit()
        for tenant_id in {one.calendar.tenant_id for one in _over_budget(report)}:
            pausing.pause(world.database, tenant_id=tenant_id, by="storm", reason="requests for the audit")
            ends = time.monotonic() + WINDOW + AUDIT_DEADLINE
            while _over_budget(again := audit(tenant_id=tenant_id)) and time.monotonic() < ends:
                time.sleep(REFILL)
            others = [one for one in report.calendars if one.calendar.tenant_id != tenant_id]
            report.calendars[:] = [*others, *again.calendars]
        return report
    finally:
        supabase.close()


def _over_budget(report: Report) -> list[CalendarProof]:
    """Calendars that could not be listed because polling takes all that their account may ask."""
    return [one for one in report.having(auditing.UNPROVEN) if "over_budget" in one.reason]


def _unproven(report: Report) -> list[str]:
    """What cannot be said to be in step, other than accounts that were removed."""
    calendars = [
        f"{one.tenant}/{one.calendar.name}: {one.verdict} ({one.reason})"
        for one in report.calendars
        if one.verdict in (auditing.UNPROVEN, auditing.DRIFTING)
    ]
    return [*calendars, *(f"{one.tenant}: Supabase: {one.failure}" for one in report.tenants if one.failure)]


def limits(world: StormWorld) -> tuple[int, int]:
    """Requests that an account and the project may send in any minute."""
    return (
        world.settings.google_user_quota_per_minute,
        world.settings.google_quota_per_minute,
    )


def budgets(requests: Mapping[str, Sequence[float]], user_limit: int, project_limit: int) -> dict[str, Any]:
    """The fullest window of any account and of the project, from the stand-in's own log."""
    fullest = {account: densest(moments, WINDOW) for account, moments in requests.items()}
    project = densest([moment for moments in requests.values() for moment in moments], WINDOW)
    over = sorted(account for account, most in fullest.items() if most > user_limit)
    return {
        "user_limit": user_limit,
        "user_most": max(fullest.values(), default=0),
        "project_limit": project_limit,
        "project_most": project,
        "over": [*over, *(["project"] if project > project_limit else [])],
    }


def _occurrences(world: StormWorld) -> tuple[int, int, str]:
    """(missing, accounted twice, what was said) by the product's own auditor, in one whole round."""
    entries = followed(OCCURRENCES, world.settings)
    found = accounting.reckon(world.database, world.settings, entries=entries, budget=SETTLED)
    missing, doubled = int(found["missing"]), int(found["doubled"])
    said = f"{found['expected']} occurrences expected, {found['accounted']} accounted for, {missing} missing"
    return missing, doubled, said + (f": {found['names'][:5]}" if found["names"] else "")


def fairness(world: StormWorld, verdict: Verdict) -> None:
    """Jain's index and a quiet tenant's wait, at the real dispatch, on databases of their own."""
    try:
        found = fair.measure(world.postgres, seconds=FAIRNESS_SECONDS)
    except RuntimeError as error:
        verdict.fairness_note = f"not measured: {error}"
        return
    verdict.fairness = {
        "jain": round(found.jain, 4),
        "empty_p99_s": round(found.empty_p99, 3),
        "flooded_p99_s": round(found.flooded_p99, 3),
        "ratio": round(found.ratio, 2),
    }
