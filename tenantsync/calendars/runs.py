"""One run of one unit: fetch what its due calendars changed, decide what follows. No transaction is open here.

What a run finds is handed on as values; `settling.py` writes them.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID

import structlog

from config.queues import Lane
from config.settings import Settings
from db.repositories.events import StagedRow
from db.repositories.units import DueCalendar, StartedUnit
from db.states import AccountState, CalendarState
from tenantsync import clock
from tenantsync.calendars import rules
from tenantsync.calendars.probing import CooledScope, half_open
from tenantsync.calendars.provider import CalendarProvider, ChangesWanted, Credentials, Page
from tenantsync.errors import AccountUnusable, CursorVoid, GrantRevoked, OverBudget, RateLimited, SyncError, Transient
from tenantsync.outbound import Allowance, Meter

log = structlog.get_logger(__name__)

CALENDARS_AT_ONCE = 4
"""Requests that a run has under way for one account. Microsoft allows four at a mailbox, the others more."""


class RunLost(Exception):
    """A newer run of the unit exists; nothing of this one may be written any more."""


class Storage(Protocol):
    """What a run needs of the database while it fetches. Every call is a transaction of its own."""

    async def known(self, calendar: DueCalendar, resources: Sequence[str]) -> Mapping[str, str | None]: ...

    async def stage(self, calendar: DueCalendar, rows: Sequence[StagedRow]) -> int:
        """Put rows into the staging table; raises RunLost if the fence is gone."""
        ...

    async def unstage(self, calendar: DueCalendar) -> None: ...


class Tools(Protocol):
    """What runs share in a worker process."""

    settings: Settings
    storage: Storage

    def provider(self, name: str) -> CalendarProvider: ...

    def credentials(self, calendar: DueCalendar) -> Credentials: ...

    def allowance(self, calendar: DueCalendar, lane: Lane, deadline: float) -> Allowance:
        """What a run of the calendar may send until `deadline`, a moment of the loop's clock."""
        ...


@dataclass(slots=True)
class CalendarOutcome:
    """What came of one calendar. `delay` is in seconds from the moment it is written."""

    calendar: DueCalendar
    delay: float
    success: bool = False
    attempted: bool = True
    error: str | None = None
    verdict: rules.Verdict | None = None
    state: CalendarState | None = None
    reason: str | None = None
    cursor: str | None = None
    query_version: int | None = None
    full: bool = False
    named: int = 0
    """Rows of resources that are there, whatever their kind."""
    rows: list[StagedRow] = field(default_factory=list)
    bulk: bool = False
    """The answer is too large for this lane; the next run of the unit has to be in the bulk lane."""
    void: str | None = None
    """Why the provider refused the cursor that the run began with."""
    staged: int = 0
    """Rows that are in the staging table already; then `rows` is empty."""
    calls: int = 0
    bytes: int = 0

    @property
    def to_merge(self) -> bool:
        return self.success and (self.full or bool(self.rows) or self.staged > 0)


@dataclass(slots=True)
class UnitOutcome:
    unit: StartedUnit
    started_at: datetime
    calendars: list[CalendarOutcome]
    fetch_ms: int = 0
    probes: frozenset[CooledScope] = frozenset()
    """The scopes that this run tried for everybody else."""

    @property
    def to_merge(self) -> bool:
        return any(outcome.to_merge for outcome in self.calendars)

    @property
    def failed(self) -> list[CalendarOutcome]:
        return [outcome for outcome in self.calendars if outcome.attempted and not outcome.success]


class NeedsBulk(Exception):
    """The answer is too large for the sync lane."""


async def run_unit(unit: StartedUnit, tools: Tools, probes: frozenset[CooledScope] = frozenset()) -> UnitOutcome:
    """Fetch all due calendars of a unit. Failures become outcomes; only RunLost and cancellation come through.

    `probes`: scopes that were closed, for which this run tries whether they are open again.
    """
    started_at, began = clock.now(), clock.monotonic()
    run = _Run(unit, tools, probes)
    if len(unit.calendars) == 1:
        outcomes = [await run.calendar(unit.calendars[0])]
    else:
        outcomes = list(await asyncio.gather(*(run.calendar(calendar) for calendar in unit.calendars)))
    return UnitOutcome(unit, started_at, outcomes, int((clock.monotonic() - began) * 1000), probes)


class _Run:
    """What the calendars of one run share: a deadline, and per account a login, a gate and a reason to stop."""

    def __init__(self, unit: StartedUnit, tools: Tools, probes: frozenset[CooledScope]) -> None:
        self._lane = unit.lane
        self._probe_gate = asyncio.Semaphore(1) if probes else None
        self._tools = tools
        self._settings = tools.settings
        settings = self._settings
        longest = {Lane.SYNC: settings.sync_unit_deadline, Lane.ISOLATED: settings.sync_isolated_deadline}.get(
            unit.lane, settings.sync_bulk_deadline
        )
        self._deadline = asyncio.get_running_loop().time() + longest.total_seconds()
        self._gates: dict[UUID, asyncio.Semaphore] = {}
        self._logins: dict[UUID, Credentials] = {}
        self._stopped: dict[UUID, SyncError] = {}

    async def calendar(self, calendar: DueCalendar) -> CalendarOutcome:
        chance = random.random()  # noqa: S311 — spreads load, guards nothing
        gate = self._gates.setdefault(calendar.account_id, asyncio.Semaphore(CALENDARS_AT_ONCE))
        if self._probe_gate is not None and half_open(calendar):
            gate = self._probe_gate
        async with gate:
            skipped = _skip(calendar, chance)
            return skipped or await self._fetch(calendar, chance)

    async def _fetch(self, calendar: DueCalendar, chance: float) -> CalendarOutcome:
        meter = Meter(self._tools.allowance(calendar, self._lane, self._deadline))
        fetch = _Fetch(calendar, self._lane, self._tools, meter)
        try:
            async with asyncio.timeout_at(self._deadline):
                outcome = await fetch.run(self._login(calendar), chance)
        except NeedsBulk:
            outcome = CalendarOutcome(calendar, 0.0, attempted=False, bulk=True)
            outcome.state = _after_void(calendar, fetch.void)
        except OverBudget as error:
            self._stopped[calendar.account_id] = error
            outcome = CalendarOutcome(
                calendar, rules.later(error.retry_after, chance), attempted=False, reason="budget"
            )
            outcome.state = _after_void(calendar, fetch.void)
        except RunLost:
            raise
        except Exception as error:  # noqa: BLE001 — one tenant's surprise stays that tenant's
            outcome = self._failure(calendar, _as_sync_error(error, calendar), chance, fetch.void)
        outcome.void, outcome.calls, outcome.bytes = fetch.void, meter.calls, meter.bytes
        return outcome

    def _login(self, calendar: DueCalendar) -> Credentials:
        if calendar.account_id in self._stopped:
            raise self._stopped[calendar.account_id]
        if calendar.account_id not in self._logins:
            self._logins[calendar.account_id] = self._tools.credentials(calendar)
        return self._logins[calendar.account_id]

    def _failure(self, calendar: DueCalendar, error: SyncError, chance: float, void: str | None) -> CalendarOutcome:
        if isinstance(error, RateLimited | GrantRevoked | AccountUnusable):
            self._stopped[calendar.account_id] = error
        verdict = rules.judge(error, failures=calendar.failures, settings=self._settings, chance=chance)
        state = verdict.state if verdict.state != calendar.state else None
        state = state or _after_void(calendar, void)
        return CalendarOutcome(
            calendar,
            verdict.delay,
            error=verdict.error,
            verdict=verdict,
            state=state,
            reason=error.reason if state is not None else None,
        )


def _after_void(calendar: DueCalendar, void: str | None) -> CalendarState | None:
    """A cursor once voided stays void, whatever became of the listing that followed."""
    return CalendarState.RESYNC if void and calendar.state == CalendarState.SYNCED else None


def _skip(calendar: DueCalendar, chance: float) -> CalendarOutcome | None:
    """The outcome of a calendar that is not asked at all."""
    if calendar.account_state != AccountState.CONNECTED:
        return CalendarOutcome(calendar, rules.REVOKED_RECHECK.total_seconds(), attempted=False)
    if calendar.cooldown is not None:
        return CalendarOutcome(calendar, rules.later(calendar.cooldown, chance) + 0.1, attempted=False)
    return None


def _as_sync_error(error: Exception, calendar: DueCalendar) -> SyncError:
    if isinstance(error, SyncError):
        return error
    if isinstance(error, TimeoutError):
        return Transient("deadline", "the run took longer than it may")
    log.error("run_failed_unexpectedly", calendar_id=str(calendar.calendar_id), exc_info=error)
    return Transient("bug", f"an error of our own ({type(error).__name__})")


class _Fetch:
    """The requests of one calendar's run."""

    def __init__(self, calendar: DueCalendar, lane: Lane, tools: Tools, meter: Meter) -> None:
        self._calendar = calendar
        self._stages = lane != Lane.SYNC
        self._tools = tools
        self._provider = tools.provider(calendar.provider)
        self._meter = meter
        self.void: str | None = None

    async def run(self, credentials: Credentials, chance: float) -> CalendarOutcome:
        """Ask what changed, or for everything; after a void cursor, for everything, once."""
        calendar = self._calendar
        over = rules.starts_over(
            state=calendar.state,
            cursor=calendar.cursor,
            query_version=calendar.query_version,
            current_version=self._provider.query_version,
            listed_at=calendar.listed_at,
            relist_after=self._provider.relist_after(calendar.provider_key),
            now=clock.now(),
            chance=chance,
        )
        if not over:
            try:
                return await self._collect(credentials, calendar.cursor, chance)
            except CursorVoid as error:
                log.info("cursor_void", calendar_id=str(calendar.calendar_id), reason=error.reason)
                self.void = error.reason
                await self._tools.storage.unstage(calendar)
        try:
            return await self._collect(credentials, None, chance)
        except CursorVoid:
            raise Transient("listing_refused", "a listing without a cursor was refused as if it had one") from None

    async def _collect(self, credentials: Credentials, cursor: str | None, chance: float) -> CalendarOutcome:
        """All pages of one answer, in memory or staged, as the outcome of a success."""
        outcome = CalendarOutcome(self._calendar, 0.0)
        wanted = ChangesWanted(
            provider_key=self._calendar.provider_key,
            endpoint=self._calendar.endpoint,
            cursor=cursor,
            event_count=self._calendar.event_count,
            known=self._known,
            time_zone=self._calendar.time_zone,
        )
        await self._gather(self._provider.changes(credentials, wanted, self._meter), outcome)
        interval = self._tools.settings.sync_interval.total_seconds()
        if rules.awaits_confirmation(
            state=self._calendar.state,
            full=outcome.full,
            named=outcome.named,
            event_count=self._calendar.event_count,
        ):
            pause = self._tools.settings.sync_confirm_empty_after.total_seconds()
            return CalendarOutcome(
                self._calendar,
                pause,
                error="empty_listing: a full listing was empty; a second one decides",
                state=CalendarState.CONFIRMING,
                reason="empty_listing",
            )
        outcome.success = True
        outcome.delay = rules.spread(interval, chance)
        outcome.query_version = self._provider.query_version
        outcome.state = None if self._calendar.state == CalendarState.SYNCED else CalendarState.SYNCED
        return outcome

    async def _gather(self, pages: AsyncIterator[Page], outcome: CalendarOutcome) -> None:
        """Read the pages; while one is being staged the next is already on its way."""
        staging: asyncio.Future[int] | None = None
        try:
            async for page in pages:
                outcome.full = page.full
                outcome.named += sum(row.kind != "d" for row in page.rows)
                outcome.rows.extend(page.rows)
                outcome.cursor = page.cursor
                if len(outcome.rows) <= rules.MEMORY_LIMIT and (staging is None and not outcome.staged):
                    continue
                if not self._stages:
                    raise NeedsBulk
                if staging is not None:
                    outcome.staged += await staging
                staging = asyncio.ensure_future(self._tools.storage.stage(self._calendar, outcome.rows))
                outcome.rows = []
            if staging is not None:
                outcome.staged += await staging
                staging = None
        finally:
            if staging is not None:  # a page on its way into the table arrives before anybody clears it
                await asyncio.wait([staging])
        if outcome.cursor is None:
            raise Transient("no_cursor", "the answer ended without a cursor")
        if outcome.staged and outcome.rows:
            outcome.staged += await self._tools.storage.stage(self._calendar, outcome.rows)
            outcome.rows = []

    async def _known(self, resources: Sequence[str]) -> Mapping[str, str | None]:
        return await self._tools.storage.known(self._calendar, resources)
