"""Runs that people watch: first syncs, resyncs, and those that a person started, as processes.

Nothing a run does depends on it: what cannot be told is logged and made up for later (`processes.syncs.mend`). Quiet
and ordinary changed runs are not watched, and cost no statement here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from config.queues import Lane
from db.repositories.events import Merged
from db.repositories.units import DueCalendar, StartedUnit
from db.session import Database
from db.states import AccountState, CalendarState
from tenantsync.calendars.runs import CalendarOutcome, UnitOutcome
from tenantsync.processes import syncs
from tenantsync.processes.publishing import Publisher
from tenantsync.processes.syncs import About, Ending
from tenantsync.processes.values import Held, ProcessLost, ProcessUnknown

log = structlog.get_logger(__name__)

LISTED_IN_FULL = {
    CalendarState.NEW.value: syncs.FIRST_SYNC,
    CalendarState.RESYNC.value: syncs.RESYNC,
    CalendarState.CONFIRMING.value: syncs.RESYNC,
}


@dataclass(slots=True)
class Watched:
    """The processes of a run, by what they are about: its calendars and its unit."""

    by_subject: Mapping[UUID, Held]
    listed: dict[UUID, int] = field(default_factory=dict)
    """Rows that were staged so far, by calendar."""


def about(unit: StartedUnit) -> list[About]:
    """What is to be watched of a run; of most runs nothing."""
    found = [
        About(
            LISTED_IN_FULL[calendar.state],
            calendar.calendar_id,
            unit.unit_id,
            calendar.provider_key,
            make=calendar.state != CalendarState.CONFIRMING,
        )
        for calendar in unit.calendars
        if calendar.state in LISTED_IN_FULL
        and calendar.account_state == AccountState.CONNECTED
        and calendar.cooldown is None
    ]
    if unit.wanted or unit.lane == Lane.BULK:  # a wanted run that needs the bulk lane is wanted there no more
        found.append(About(syncs.SYNC_NOW, unit.unit_id, unit.unit_id, "", make=False))
    return found


class Watching:
    """What a worker process tells of its runs."""

    def __init__(self, database: Database, *, worker: str) -> None:
        self._database = database
        self._worker = worker
        self._publisher = Publisher(database)
        self._watched: dict[tuple[UUID, int], Watched] = {}

    def close(self) -> None:
        self._publisher.close()

    def concerns(self, units: Iterable[StartedUnit]) -> list[StartedUnit]:
        """Those of the units that are to be watched."""
        return [unit for unit in units if about(unit)]

    def is_watched(self, outcome: UnitOutcome) -> bool:
        """Whether there is anything to tell of a run: a process, a resync within it, or an account that is lost."""
        return (
            (outcome.unit.unit_id, outcome.unit.fence) in self._watched
            or any(one.void for one in outcome.calendars)
            or bool(_lost_accounts(outcome))
        )

    def forget(self, unit_id: UUID, fence: int) -> None:
        """The run is over, and nothing more is told of it."""
        self._watched.pop((unit_id, fence), None)

    def begin(self, units: Iterable[StartedUnit]) -> None:
        """Tell that runs have begun."""
        for unit in units:
            try:
                with self._database.transaction() as connection:
                    held = syncs.begin(connection, tenant_id=unit.tenant_id, about=about(unit), worker=self._worker)
            except SQLAlchemyError as error:
                log.warning("run_not_watched", unit_id=str(unit.unit_id), error=type(error).__name__)
                continue
            if held:
                self._watched[unit.unit_id, unit.fence] = Watched(held)

    def staged(self, calendar: DueCalendar, rows: int) -> None:
        """Tell how many rows have been listed."""
        watched = self._watched.get((calendar.unit_id, calendar.fence))
        held = None if watched is None else watched.by_subject.get(calendar.calendar_id)
        if watched is None or held is None:
            return
        listed = watched.listed[calendar.calendar_id] = watched.listed.get(calendar.calendar_id, 0) + rows
        try:
            self._publisher.publish(held, "progress", {"message": f"{listed}", "rows": listed})
        except (ProcessLost, ProcessUnknown, SQLAlchemyError) as error:
            log.warning("progress_not_told", unit_id=str(calendar.unit_id), error=type(error).__name__)

    def merging(self, outcome: UnitOutcome) -> None:
        """Tell that a large listing is being merged."""
        watched = self._watched.get((outcome.unit.unit_id, outcome.unit.fence))
        large = {one.calendar.calendar_id for one in outcome.calendars if one.staged}
        if watched is None or not large & watched.by_subject.keys():
            return
        helds = [held for subject, held in watched.by_subject.items() if subject in large]
        try:
            with self._database.transaction() as connection:
                syncs.merging(connection, tenant_id=outcome.unit.tenant_id, helds=helds)
        except SQLAlchemyError as error:
            log.warning("merging_not_told", unit_id=str(outcome.unit.unit_id), error=type(error).__name__)

    def end(self, outcome: UnitOutcome, merged: Mapping[UUID, Merged], apply_ms: int) -> None:
        """Tell what came of a run, which is written by now."""
        unit = outcome.unit
        watched = self._watched.pop((unit.unit_id, unit.fence), None) or Watched({})
        try:
            endings = _endings(outcome, watched, merged, apply_ms)
            if endings:
                with self._database.transaction() as connection:
                    syncs.end(connection, tenant_id=unit.tenant_id, endings=endings)
            for calendar in outcome.calendars:
                if calendar.void and calendar.success and calendar.calendar.calendar_id not in watched.by_subject:
                    self._resynced(calendar, merged, outcome.fetch_ms, apply_ms)
            for account_id in _lost_accounts(outcome):
                with self._database.transaction() as connection:
                    syncs.ask_to_connect(connection, tenant_id=unit.tenant_id, account_id=account_id)
        except SQLAlchemyError as error:
            log.warning("run_not_told", unit_id=str(unit.unit_id), error=type(error).__name__)

    def _resynced(self, outcome: CalendarOutcome, merged: Mapping[UUID, Merged], fetch_ms: int, apply_ms: int) -> None:
        calendar = outcome.calendar
        with self._database.transaction() as connection:
            syncs.resynced(
                connection,
                tenant_id=calendar.tenant_id,
                about=About(syncs.RESYNC, calendar.calendar_id, calendar.unit_id, calendar.provider_key),
                steps={syncs.LISTING: fetch_ms, syncs.MERGING: apply_ms},
                result=_counts(outcome, merged.get(calendar.calendar_id)),
            )


def _endings(outcome: UnitOutcome, watched: Watched, merged: Mapping[UUID, Merged], apply_ms: int) -> Sequence[Ending]:
    endings = []
    for one in outcome.calendars:
        held = watched.by_subject.get(one.calendar.calendar_id)
        if held is not None:
            counts = _counts(one, merged.get(one.calendar.calendar_id))
            endings.append(_ending(held, one, counts, outcome.fetch_ms, apply_ms))
    unit = watched.by_subject.get(outcome.unit.unit_id)
    if unit is not None and not any(one.bulk for one in outcome.calendars):
        endings.append(_unit_ending(unit, outcome, merged, apply_ms))
    return endings


def _ending(held: Held, outcome: CalendarOutcome, counts: Mapping[str, int], fetch_ms: int, apply_ms: int) -> Ending:
    if outcome.success:
        return Ending(held, {syncs.LISTING: fetch_ms, syncs.MERGING: apply_ms}, counts)
    if outcome.state == CalendarState.LOST:
        return Ending(held, error=outcome.error, final=True)
    if outcome.bulk:
        return Ending(held, reason="it is large and goes on in the bulk lane")
    if outcome.state == CalendarState.CONFIRMING:
        return Ending(held, {syncs.LISTING: fetch_ms}, reason="an empty listing is confirmed by a second one")
    return Ending(held, error=outcome.error, reason=outcome.reason or "the provider is not asked now")


def _unit_ending(held: Held, outcome: UnitOutcome, merged: Mapping[UUID, Merged], apply_ms: int) -> Ending:
    succeeded = [one for one in outcome.calendars if one.success]
    problems = sorted({one.error for one in outcome.failed if one.error})
    steps = {syncs.SYNCING: outcome.fetch_ms + apply_ms}
    if outcome.calendars and not succeeded:
        rest = "the provider asked us to wait, or the account is not connected"
        return Ending(held, steps, error="; ".join(problems) or rest, final=True)
    result = {
        "calendars": len(outcome.calendars),
        "failed": len(outcome.failed),
        "inserted": sum(one.inserted for one in merged.values()),
        "updated": sum(one.updated for one in merged.values()),
        "deleted": sum(one.deleted for one in merged.values()),
        "calls": sum(one.calls for one in outcome.calendars),
        **({"errors": problems} if problems else {}),
    }
    return Ending(held, steps, result)


def _counts(outcome: CalendarOutcome, merged: Merged | None) -> Mapping[str, int]:
    return {
        "inserted": merged.inserted if merged else 0,
        "updated": merged.updated if merged else 0,
        "deleted": merged.deleted if merged else 0,
        "set_aside": merged.set_aside if merged else 0,
        "calls": outcome.calls,
        "bytes": outcome.bytes,
    }


def _lost_accounts(outcome: UnitOutcome) -> set[UUID]:
    return {
        one.calendar.account_id
        for one in outcome.calendars
        if one.verdict is not None and one.verdict.account_state == AccountState.NEEDS_REAUTH
    }
