"""Writing down what runs found: quiet ones many at a time, changed ones in a transaction each."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DataError

from config.settings import Settings
from db.ids import new_id
from db.racepoints import reach
from db.repositories import accounts, events, ledger, units
from db.repositories.events import Merged, StagedRow
from db.session import Database
from tenantsync import clock
from tenantsync.calendars import closing, rules
from tenantsync.calendars.runs import CalendarOutcome, RunLost, UnitOutcome

log = structlog.get_logger(__name__)

WITHOUT_A_ROW = ("quiet", "skipped", "moved")
"""Outcomes that the ledger holds in aggregate: 10,000 quiet units a minute would be 14 million rows a day."""


def settle_unchanged(database: Database, outcomes: Sequence[UnitOutcome]) -> set[UUID]:
    """End runs that have no rows to write, in one statement; returns the units whose fence still stood.

    What the failures among them mean for accounts and scopes is written in the same transaction.
    """
    runs = [_run_record(outcome, {}) for outcome in outcomes]
    calendars = [_calendar_record(calendar, None) for outcome in outcomes for calendar in outcome.calendars]
    units_of = [outcome.unit for outcome in outcomes]
    reach("quiet.asked", units=units_of)
    if any(outcome.failed or outcome.probes for outcome in outcomes):
        with database.transaction() as connection:
            ended = units.finish(connection, runs=runs, calendars=calendars)
            _consequences(connection, [outcome for outcome in outcomes if outcome.unit.unit_id in ended])
    else:
        with database.statement() as connection:
            ended = units.finish(connection, runs=runs, calendars=calendars)
    reach("quiet.committed", units=units_of, ended=ended)
    return ended


def settle_changed(database: Database, outcome: UnitOutcome, settings: Settings) -> dict[UUID, Merged]:
    """Write one unit's rows, cursors, outbox entries and ledger row in one transaction, the fence taken first.

    Raises RunLost, having written nothing, when a newer run of the unit exists.
    """
    began = clock.monotonic()
    unit = outcome.unit
    with database.transaction() as connection:
        if not units.take_fence(
            connection,
            tenant_id=unit.tenant_id,
            unit_id=unit.unit_id,
            fence=unit.fence,
            lease=settings.sync_lease,
        ):
            raise RunLost
        merged = {
            calendar.calendar.calendar_id: _merge(connection, calendar)
            for calendar in outcome.calendars
            if calendar.to_merge
        }
        calendars = [
            _calendar_record(calendar, merged.get(calendar.calendar.calendar_id)) for calendar in outcome.calendars
        ]
        run = _run_record(outcome, merged)
        units.finish(connection, runs=[run], calendars=calendars)
        _consequences(connection, [outcome])
        if run["task_id"] is not None:
            apply_ms = int((clock.monotonic() - began) * 1000)
            ledger.log_steps(connection, _steps(run["task_id"], outcome, apply_ms))
        reach("changed.written", tenant=unit.tenant_id, unit=unit.unit_id, fence=unit.fence)
    reach("changed.committed", tenant=unit.tenant_id, unit=unit.unit_id, fence=unit.fence)
    return merged


def _merge(connection: Connection, outcome: CalendarOutcome) -> Merged:
    calendar = outcome.calendar
    staged = outcome.staged
    if not staged:
        staged = stage(connection, calendar_id=calendar.calendar_id, fence=calendar.fence, rows=outcome.rows)
    return events.merge(
        connection,
        tenant_id=calendar.tenant_id,
        calendar_id=calendar.calendar_id,
        fence=calendar.fence,
        full=outcome.full,
        staged=staged,
    )


def stage(connection: Connection, *, calendar_id: UUID, fence: int, rows: Sequence[StagedRow]) -> int:
    """Stage rows; those that Postgres refuses are set aside with its SQLSTATE, and the others go in.

    The parsers catch what they know. This is the net below them: one row that slips through costs a
    handful of extra round trips, not the calendar.
    """
    try:
        with connection.begin_nested():
            return events.stage(connection, calendar_id=calendar_id, fence=fence, rows=rows)
    except DataError as error:
        if len(rows) == 1:
            return events.stage(connection, calendar_id=calendar_id, fence=fence, rows=[_refused(rows[0], error)])
    half = len(rows) // 2
    return sum(
        stage(connection, calendar_id=calendar_id, fence=fence, rows=part) for part in (rows[:half], rows[half:])
    )


def _refused(row: StagedRow, error: DataError) -> StagedRow:
    code = getattr(error.orig, "pgcode", None)
    log.warning("row_refused_by_postgres", sqlstate=code)
    return StagedRow(row.seq, "q", None, None, row.resource.replace("\0", ""), title=f"Postgres refuses it ({code})")


def _word(outcome: UnitOutcome, changed: bool) -> str:
    """What FINISH calls the run. `moved`: it found that it needs the bulk lane; `skipped`: nobody was asked."""
    if any(calendar.success for calendar in outcome.calendars):
        return "partial" if outcome.failed else "changed" if changed else "quiet"
    if outcome.failed:
        return "failed"
    return "moved" if any(calendar.bulk for calendar in outcome.calendars) else "skipped"


def _rest(outcome: UnitOutcome) -> str | None:
    """Why the unit rests after this run: what holds the first of its calendars that is due again."""
    if not outcome.calendars:
        return None
    first = min(outcome.calendars, key=lambda calendar: calendar.delay)
    return rules.rest(
        attempted=first.attempted,
        success=first.success,
        account_state=first.calendar.account_state,
        state=first.state,
        verdict=first.verdict,
        cause="cooldown" if first.calendar.cooldown is not None else first.reason,
    )


def _run_record(outcome: UnitOutcome, merged: dict[UUID, Merged]) -> dict[str, Any]:
    failed = outcome.failed
    word = _word(outcome, any(one.anything for one in merged.values()))
    cost = rules.cost(
        calls=sum(calendar.calls for calendar in outcome.calendars),
        seconds=outcome.fetch_ms / 1000,
        rows=sum(len(calendar.rows) + calendar.staged for calendar in outcome.calendars),
    )
    record: dict[str, Any] = {
        "unit_id": outcome.unit.unit_id,
        "fence": outcome.unit.fence,
        "outcome": word,
        "task_id": None,
        "cost": cost,
        "rest": _rest(outcome),
    }
    void = [calendar.void for calendar in outcome.calendars if calendar.void]
    if word not in WITHOUT_A_ROW or void:
        record |= {
            "task_id": new_id(),
            "started_at": outcome.started_at,
            "result": {
                "calendars": len(outcome.calendars),
                "failed": len(failed),
                "inserted": sum(one.inserted for one in merged.values()),
                "updated": sum(one.updated for one in merged.values()),
                "deleted": sum(one.deleted for one in merged.values()),
                "set_aside": sum(one.set_aside for one in merged.values()),
                "calls": sum(calendar.calls for calendar in outcome.calendars),
                "bytes": sum(calendar.bytes for calendar in outcome.calendars),
                "fetch_ms": outcome.fetch_ms,
                **({"void_cursors": void} if void else {}),
            },
            "error": "; ".join(sorted({calendar.error or "" for calendar in failed})) or None,
        }
    return record


def _calendar_record(outcome: CalendarOutcome, merged: Merged | None) -> dict[str, Any]:
    verdict = outcome.verdict
    return {
        "unit_id": outcome.calendar.unit_id,
        "calendar_id": outcome.calendar.calendar_id,
        "success": outcome.success,
        "attempted": outcome.attempted,
        "blamed": verdict is not None and verdict.blamed,
        "bulk": outcome.bulk,
        "state": outcome.state,
        "reason": outcome.reason,
        "cursor": outcome.cursor if outcome.success else None,
        "query_version": outcome.query_version,
        "error": outcome.error,
        "delay": outcome.delay,
        "listed": outcome.success and outcome.full,
        "calls": outcome.calls,
        "bytes": outcome.bytes,
        "added": 0 if merged is None else merged.inserted - merged.deleted,
    }


def _consequences(connection: Connection, outcomes: Sequence[UnitOutcome]) -> None:
    """What failures mean beyond their calendar: the account's state, closed scopes, an alarm; and what probes found."""
    changes, closed = [], []
    for calendar in (failed for outcome in outcomes for failed in outcome.failed):
        verdict, about = calendar.verdict, calendar.calendar
        if verdict is None:
            continue
        if verdict.account_state is not None:
            changes.append(
                {
                    "tenant_id": about.tenant_id,
                    "account_id": about.account_id,
                    "state": verdict.account_state,
                    "reason": verdict.error,
                }
            )
        if verdict.closed is not None:
            closed.append(closing.as_row(verdict.closed, about))
        if verdict.alarm:
            log.error("operator_needed", error=verdict.error, provider=about.provider)
    if changes:
        accounts.change_states(connection, changes)
    closing.settle_probes(connection, outcomes)
    if closed:
        closing.close(connection, closed)


def _steps(task_id: UUID, outcome: UnitOutcome, apply_ms: int) -> list[dict[str, Any]]:
    shared = {"task_id": task_id, "tenant_id": outcome.unit.tenant_id}
    return [
        {**shared, "step_name": "fetch", "execution_time": outcome.fetch_ms, "success": not outcome.failed},
        {**shared, "step_name": "apply", "execution_time": apply_ms, "success": True},
    ]
