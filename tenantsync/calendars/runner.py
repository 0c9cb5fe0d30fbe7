"""The part of a worker process that runs units: one asyncio loop, one heartbeat, a few database threads.

A batch is only a carrier. Each unit of it is a coroutine of its own, with its own deadline; what they
find is written as they finish. Units that are slow do not hold the batch: after `PATIENCE` the batch
ends without them, and they go on in the loop, still under their leases, up to `STRAGGLERS` at a time.
"""

import asyncio
import functools
import gc
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from config.queues import Lane
from config.settings import Settings
from db.racepoints import reach
from db.repositories import accounts, events, ledger, units
from db.repositories.events import StagedRow
from db.repositories.units import DueCalendar, StartedUnit
from db.session import Database, is_connection_loss
from tenantsync import clock
from tenantsync.calendars import admission, settling
from tenantsync.calendars.adapters import Adapters
from tenantsync.calendars.admission import NO_PROBES, Admitted
from tenantsync.calendars.logins import Logins
from tenantsync.calendars.probing import CooledScope
from tenantsync.calendars.provider import CalendarProvider, Credentials
from tenantsync.calendars.runs import RunLost, Storage, UnitOutcome, run_unit
from tenantsync.calendars.watching import Watching
from tenantsync.limits.service import Allowances, Limits
from tenantsync.outbound import Allowance
from tenantsync.vault import Vault

log = structlog.get_logger(__name__)

T = TypeVar("T")

PATIENCE = 2.0  # seconds that a batch waits for its slow units
SETTLE_EVERY = 0.25  # seconds; what has finished by then is written without waiting for the rest
STRAGGLERS = 400  # slow units that a process carries before its batches wait for them
GARBAGE_AFTER = 20_000  # new objects; at Python's 700 the search through a batch in flight takes a third of the CPU
HAND_BACK_WITHIN = 2.0  # seconds; where Postgres is away the leases end instead
LAST_WAIT = 0.5  # seconds before its deadline at which a run stops to wait for its budget
WRITE_TRIES = 5  # over about 6 s: a restart of Postgres is survived, a longer outage ends with the lease


class Runner:
    """Runs batches. One for each worker process, made after the fork."""

    def __init__(self, settings: Settings, database: Database, *, worker: str, limits: Limits | None = None) -> None:
        self.settings = settings
        self.storage: Storage = self
        self._database = database
        self._worker = worker
        self._vault = Vault(settings.encryption_keys)
        self._threads = ThreadPoolExecutor(max(1, settings.worker_db_pool_size - 1), thread_name_prefix="database")
        self._active: dict[UUID, tuple[int, asyncio.Task[UnitOutcome]]] = {}
        self._batches: set[UUID] = set()
        self._stragglers: set[asyncio.Task[None]] = set()
        self._under_way: dict[Future[Mapping[str, int]], Sequence[tuple[UUID, int]]] = {}
        self._closing = threading.Event()
        self._stopping = threading.Event()
        gc.set_threshold(GARBAGE_AFTER, *gc.get_threshold()[1:])
        self._loop = asyncio.new_event_loop()
        self._loop_thread = threading.Thread(target=self._loop.run_forever, name="runs", daemon=True)
        self._loop_thread.start()
        self._adapters = self._in_loop(Adapters.open(settings)).result()
        self._logins = Logins(self._vault, self._adapters)
        self._allowances = Allowances(settings, database, holder=worker, run=self._write, limits=limits)
        self._watching = Watching(database, worker=worker)
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._heart.start()

    def run_batch(self, batch_id: UUID, lane: Lane, pairs: Sequence[tuple[UUID, int]]) -> Mapping[str, int]:
        """Run the units of a message; returns counts. Units whose fence is gone are left alone."""
        batch = self._in_loop(self._run_batch(batch_id, lane, pairs))
        self._under_way[batch] = pairs
        try:
            return batch.result()
        except CancelledError:
            return {"units": 0}  # `stop` gave it up
        finally:
            self._under_way.pop(batch, None)

    def stop(self, grace: float) -> None:
        """Begin no more, finish what finishes within `grace` seconds, hand the rest back. Bounded without Postgres too.

        Leases are renewed meanwhile. Batches that wait for their units end with them.
        """
        if self._stopping.is_set():
            return
        self._closing.set()
        self._in_loop(self._drain(grace)).result(grace + 3 * HAND_BACK_WITHIN)
        under_way = dict(self._under_way)
        _, stuck = wait(under_way, timeout=HAND_BACK_WITHIN)
        for batch in stuck:
            batch.cancel()
        left = [pair for batch in stuck for pair in under_way[batch]]
        self._in_loop(self._give_up(left)).result(2 * HAND_BACK_WITHIN)

    def close(self, grace: float) -> None:
        """As `stop`, and free everything. Once; again it does nothing."""
        if self._stopping.is_set():
            return
        try:
            self.stop(grace)
            self._in_loop(self._adapters.close()).result(HAND_BACK_WITHIN)
            wait([self._in_loop(self._allowances.close())], timeout=HAND_BACK_WITHIN)
            self._watching.close()
        finally:
            self._stopping.set()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop_thread.join(5)
            if not self._loop_thread.is_alive():
                self._loop.close()
            self._heart.join(5)
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _in_loop(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _run_batch(self, batch_id: UUID, lane: Lane, pairs: Sequence[tuple[UUID, int]]) -> Mapping[str, int]:
        started = [] if self._closing.is_set() else await self._write(lambda: self._start(batch_id, pairs))
        if self._closing.is_set():
            await self._give_up(list(pairs))
            return {"units": 0}
        if not started:
            return {"units": 0}
        self._batches.add(batch_id)
        try:
            admitted = await self._admit(started, lane)
            if watched := self._watching.concerns(admitted.units):
                await self._write(lambda: self._watching.begin(watched))
            tasks = {self._launch(unit, admitted.probes.get(unit.unit_id, NO_PROBES)) for unit in admitted.units}
            left = await self._settle(tasks, patience=PATIENCE if lane == Lane.SYNC else None)
            if left:
                straggling = asyncio.ensure_future(self._settle_stragglers(left))
                self._stragglers.add(straggling)
                straggling.add_done_callback(self._stragglers.discard)
            result = {"units": len(started), "slow": len(left)}
            await self._write(lambda: self._close_batch(batch_id, result))
            return result
        finally:
            self._batches.discard(batch_id)

    def _start(self, batch_id: UUID, pairs: Sequence[tuple[UUID, int]]) -> list[StartedUnit]:
        reach("start.asked", units=pairs, lease=self.settings.sync_lease)
        with self._database.statement() as connection:
            started = units.start(
                connection, batch_id=batch_id, units=pairs, worker=self._worker, lease=self.settings.sync_lease
            )
        reach("start.committed", units=pairs, started=started)
        return started

    async def _admit(self, started: Sequence[StartedUnit], lane: Lane) -> Admitted:
        bulk = lane != Lane.SYNC
        admitted = await self._write(lambda: admission.admit(self._database, self._allowances, started, bulk=bulk))
        self._allowances.credit(admitted.grants, bulk=bulk)
        return admitted

    def _close_batch(self, batch_id: UUID, result: Mapping[str, int]) -> None:
        with self._database.statement() as connection:
            ledger.close_batch(connection, batch_id=batch_id, result=result)

    def _launch(self, unit: StartedUnit, probes: frozenset[CooledScope]) -> asyncio.Task[UnitOutcome]:
        task = self._loop.create_task(run_unit(unit, self, probes))
        self._active[unit.unit_id] = (unit.fence, task)
        task.add_done_callback(functools.partial(self._forget_without_outcome, unit))
        return task

    def _forget_without_outcome(self, unit: StartedUnit, task: asyncio.Task[UnitOutcome]) -> None:
        # A run with an outcome is forgotten when that is written; until then its lease is renewed.
        if task.cancelled() or task.exception() is not None:
            self._forget(unit.unit_id, unit.fence)

    async def _settle_stragglers(self, tasks: set[asyncio.Task[UnitOutcome]]) -> None:
        await self._settle(tasks, patience=None)

    async def _settle(
        self, tasks: set[asyncio.Task[UnitOutcome]], *, patience: float | None
    ) -> set[asyncio.Task[UnitOutcome]]:
        """Write outcomes as they come; returns the tasks still under way when patience ran out."""
        ends = None if patience is None else self._loop.time() + patience
        pending = tasks
        while pending:
            done, pending = await asyncio.wait(pending, timeout=SETTLE_EVERY)
            await self._write_outcomes(_outcome(task) for task in done)
            if pending and ends is not None and self._loop.time() >= ends and len(self._active) <= STRAGGLERS:
                return pending
        return set()

    async def _write_outcomes(self, finished: Iterable[UnitOutcome | None]) -> None:
        outcomes = [outcome for outcome in finished if outcome is not None]
        quiet = [outcome for outcome in outcomes if not outcome.to_merge]
        writes = [self._settle_changed(outcome) for outcome in outcomes if outcome.to_merge]
        if quiet:
            writes.append(self._settle_quiet(quiet))
        await asyncio.gather(*writes)

    async def _settle_quiet(self, outcomes: list[UnitOutcome]) -> None:
        def settle() -> None:
            ended = settling.settle_unchanged(self._database, outcomes)
            for outcome in outcomes:
                if outcome.unit.unit_id in ended and self._watching.is_watched(outcome):
                    self._watching.end(outcome, {}, 0)

        await self._settle_with(outcomes, settle)

    async def _settle_changed(self, outcome: UnitOutcome) -> None:
        def settle() -> None:
            self._watching.merging(outcome)
            began = clock.monotonic()
            merged = settling.settle_changed(self._database, outcome, self.settings)
            if self._watching.is_watched(outcome):
                self._watching.end(outcome, merged, int((clock.monotonic() - began) * 1000))

        await self._settle_with([outcome], settle)

    async def _settle_with(self, outcomes: list[UnitOutcome], work: Callable[[], None]) -> None:
        try:
            await self._write(work)
        except RunLost:
            log.info("run_superseded", unit_id=str(outcomes[0].unit.unit_id))
        except (SQLAlchemyError, events.StagingIncomplete) as error:
            # The leases end, and the units are due again: the one way back.
            log.exception("outcome_not_written", units=len(outcomes), error=type(error).__name__)
        finally:
            for outcome in outcomes:
                self._forget(outcome.unit.unit_id, outcome.unit.fence)

    def _forget(self, unit_id: UUID, fence: int) -> None:
        self._watching.forget(unit_id, fence)
        held = self._active.get(unit_id)
        if held is not None and held[0] == fence:
            del self._active[unit_id]

    async def _write(self, work: Callable[[], T]) -> T:
        """Run database work in a thread; a lost connection is tried again, as every statement checks its fence."""
        for attempt in range(1, WRITE_TRIES + 1):
            try:
                return await self._loop.run_in_executor(self._threads, work)
            except SQLAlchemyError as error:
                if attempt == WRITE_TRIES or not is_connection_loss(error):
                    raise
                log.warning("database_lost", attempt=attempt)
                await asyncio.sleep(0.2 * 2**attempt)
        raise AssertionError("unreachable")

    async def _drain(self, grace: float) -> None:
        tasks = [task for _, task in self._active.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
            await asyncio.sleep(SETTLE_EVERY)
        left = [(unit_id, fence) for unit_id, (fence, _) in self._active.items()]
        for _, task in self._active.values():
            task.cancel()
        await self._give_up(left)

    async def _give_up(self, pairs: list[tuple[UUID, int]]) -> None:
        """Hand units back, if Postgres answers soon."""
        if not pairs:
            return
        try:
            await asyncio.wait_for(self._write(lambda: self._hand_back(pairs)), HAND_BACK_WITHIN)
            log.info("units_handed_back", units=len(pairs))
        except (SQLAlchemyError, TimeoutError) as error:
            log.warning("units_not_handed_back", units=len(pairs), error=type(error).__name__)

    def _hand_back(self, pairs: list[tuple[UUID, int]]) -> None:
        reach("back.asked", units=pairs)
        with self._database.statement() as connection:
            returned = units.hand_back(connection, units=pairs)
        reach("back.committed", units=pairs, returned=returned)

    def _beat(self) -> None:
        """Renew the leases of everything that runs here, three times in the length of a lease."""
        pause = self.settings.sync_lease.total_seconds() / 3
        while not self._stopping.wait(pause):
            self._renew_holds()
            held = {unit_id: fence for unit_id, (fence, _) in list(self._active.items())}
            if not held and not self._batches:
                continue
            reach("renew.asked", units=held.items(), lease=self.settings.sync_lease)
            try:
                with self._database.statement() as connection:
                    lost = units.renew(
                        connection,
                        units=held.items(),
                        batches=list(self._batches),
                        lease=self.settings.sync_lease,
                    )
            except SQLAlchemyError as error:
                log.warning("heartbeat_failed", error=type(error).__name__)
                continue
            reach("renew.committed", units=held.items(), lost=lost)
            for unit_id in lost:
                self._loop.call_soon_threadsafe(functools.partial(self._stop_run, unit_id, held[unit_id]))

    def _renew_holds(self) -> None:
        try:
            self._allowances.holds.renew(self._loop)
        except SQLAlchemyError as error:
            log.warning("holds_not_renewed", error=type(error).__name__)

    def _stop_run(self, unit_id: UUID, fence: int) -> None:
        current = self._active.get(unit_id)
        if current is not None and current[0] == fence:
            log.info("run_lost_its_unit", unit_id=str(unit_id))
            current[1].cancel()

    # What runs ask for while they fetch (runs.Tools and runs.Storage).

    def provider(self, name: str) -> CalendarProvider:
        return self._adapters.provider(name)

    def credentials(self, calendar: DueCalendar) -> Credentials:
        return self._logins.open(calendar, persist=functools.partial(self._keep_token, calendar))

    def allowance(self, calendar: DueCalendar, lane: Lane, deadline: float) -> Allowance:
        return self._allowances.of(
            provider=calendar.provider,
            identity=calendar.identity,
            bulk=lane != Lane.SYNC,
            deadline=deadline - LAST_WAIT,
        )

    async def _keep_token(self, calendar: DueCalendar, token: str, expires_at: datetime) -> None:
        sealed = self._vault.seal(
            token.encode(),
            tenant_id=calendar.tenant_id,
            account_id=calendar.account_id,
            column="access_token",
        )

        def keep() -> None:
            with self._database.statement() as connection:
                accounts.keep_token(
                    connection,
                    tenant_id=calendar.tenant_id,
                    unit_id=calendar.unit_id,
                    fence=calendar.fence,
                    lease=self.settings.sync_lease,
                    account_id=calendar.account_id,
                    token=sealed,
                    expires_at=expires_at.astimezone(UTC),
                )

        await self._write(keep)

    async def known(self, calendar: DueCalendar, resources: Sequence[str]) -> Mapping[str, str | None]:
        def read() -> Mapping[str, str | None]:
            with self._database.statement() as connection:
                return events.known_etags(
                    connection,
                    tenant_id=calendar.tenant_id,
                    calendar_id=calendar.calendar_id,
                    resources=resources,
                )

        return await self._write(read)

    async def stage(self, calendar: DueCalendar, rows: Sequence[StagedRow]) -> int:
        def put() -> int:
            with self._database.transaction() as connection:
                if not units.take_fence(
                    connection,
                    tenant_id=calendar.tenant_id,
                    unit_id=calendar.unit_id,
                    fence=calendar.fence,
                    lease=self.settings.sync_lease,
                ):
                    raise RunLost
                staged = settling.stage(connection, calendar_id=calendar.calendar_id, fence=calendar.fence, rows=rows)
            self._watching.staged(calendar, staged)
            return staged

        # Not tried again: whether a lost commit arrived is unknown, and the merge counts rows.
        return await self._loop.run_in_executor(self._threads, put)

    async def unstage(self, calendar: DueCalendar) -> None:
        def clear() -> None:
            with self._database.statement() as connection:
                events.drop_staged(connection, calendar_id=calendar.calendar_id, fence=calendar.fence)

        await self._write(clear)


def _outcome(task: asyncio.Task[UnitOutcome]) -> UnitOutcome | None:
    """The outcome of a finished run; None where the run lost its unit and has nothing to say any more."""
    if task.cancelled():
        return None
    error = task.exception()
    if error is None:
        return task.result()
    if not isinstance(error, RunLost):
        log.error("run_ended_in_an_error", exc_info=error)
    return None
