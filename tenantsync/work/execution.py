"""Running a task: its process is begun under a new attempt, its handler called, and the outcome written.

Whatever a handler does ends in a state: what it returns is kept if it is JSON, what it raises fails the process or
puts it off for another try, and what takes too long is failed from the thread that keeps the lease.
"""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection

from db.racepoints import reach
from db.repositories import work
from db.session import Database, is_connection_loss
from tenantsync import clock
from tenantsync.processes import service
from tenantsync.processes.publishing import Publisher
from tenantsync.processes.values import Held, ProcessLost
from tenantsync.work import rules
from tenantsync.work.handlers import Handler, Handlers, TaskFailed
from tenantsync.work.holding import Keeper, Stop, never
from tenantsync.work.rules import Unfitting
from tenantsync.work.run import Leaving, LeftOff, Run, patiently, persistently
from tenantsync.work.values import NotJson, as_object

log = structlog.get_logger(__name__)

RETRY_DELAY = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(minutes=10)  # between two tries of a handler that failed


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run: a result, an error that may be worth another try, or neither because it left off."""

    result: Mapping[str, Any] | None = None
    error: str | None = None
    recoverable: bool = False
    left: Leaving | None = None

    @property
    def word(self) -> str:
        """For the log."""
        return self.left.value if self.left else "failed" if self.error else "completed"


def execute(
    database: Database,
    publisher: Publisher,
    handlers: Handlers,
    process_id: UUID,
    *,
    worker: str,
    lease: timedelta,
    retry_delay: timedelta = RETRY_DELAY,
    stop: Stop = never,
) -> str | None:
    """Run a task once; what came of it in a word, or None where it is not to be run, or somebody else runs it.

    Raises the database's errors when it is lost for longer than a run waits for it; the lease then ends.
    """
    with database.statement() as connection:
        about = work.before(connection, process_id=process_id)
    if about is None or about[1]:
        return None  # its tenant was paused meanwhile; it is sent again when that is over
    handler = handlers.get(about[0])
    begun = _begin(database, process_id, worker, lease)
    reach("task.begun", task=process_id, attempt=begun[0].attempt if begun else 0, won=begun is not None)
    if begun is None:
        return None
    held, payload = begun
    if handler is None:
        _settle(database, held, Outcome(error=rules.nobody_handles(held.kind, handlers)), retry_delay)
        return "failed"
    late = rules.unfinished(handler.timeout.total_seconds())
    began = clock.monotonic()
    with Keeper(
        database,
        held,
        lease=lease,
        timeout=handler.timeout,
        stop=stop,
        give_up=lambda connection: service.fail(connection, held=held, error=late),
    ) as keeper:
        outcome = _outcome(handler, held, payload, Run(database, held, keeper, publisher))
        _flush(publisher)
        reach("task.ending", task=process_id, attempt=held.attempt)
        ours = _settle(database, held, outcome, retry_delay)
    seconds = round(clock.monotonic() - began, 3)
    log.info("task_ran", task_id=str(process_id), kind=held.kind, outcome=outcome.word if ours else "lost", s=seconds)
    return outcome.word if ours else Leaving.LOST.value


def _begin(database: Database, process_id: UUID, worker: str, lease: timedelta) -> tuple[Held, Any] | None:
    with database.transaction() as connection:
        held = service.begin(connection, process_id=process_id, worker=worker, lease=lease)
        if held is None:
            return None
        payload = work.payload(connection, tenant_id=held.tenant_id, task_id=process_id)
        return held, payload


def _outcome(handler: Handler, held: Held, payload: Any, run: Run) -> Outcome:
    """Call the handler. Raises only what says that Postgres is lost, or that this process is to end."""
    try:
        result = handler.function(rules.parse(handler, payload), run)
        return Outcome(result=as_object(result, about="the result"))
    except LeftOff as left:
        return Outcome(left=left.why)
    except ProcessLost:
        return Outcome(left=Leaving.LOST)
    except (Unfitting, NotJson) as error:
        return Outcome(error=str(error))
    except (Exception, SystemExit) as error:
        if is_connection_loss(error):
            raise
        again = held.retry_count < handler.retries and not (isinstance(error, TaskFailed) and error.final)
        log.warning(
            "handler_failed", kind=handler.kind, task_id=str(run.task_id), error=type(error).__name__, at=_place(error)
        )
        return Outcome(error=rules.failure(error, handler), recoverable=again)


def _flush(publisher: Publisher) -> None:
    try:
        patiently(publisher.flush)
    except ProcessLost:
        return  # what it would have said is not this run's to say any more


def _place(error: BaseException) -> str:
    """Where it was raised. No message: it may quote a tenant's data."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "?"


def _settle(database: Database, held: Held, outcome: Outcome, retry_delay: timedelta) -> bool:
    """Write what came of a run; False, and nothing written, if the process is no longer ours."""
    if outcome.left in (Leaving.WAITING, Leaving.LOST):
        return outcome.left is Leaving.WAITING  # the question was asked already; the lease is somebody else's

    def write(connection: Connection) -> None:
        match outcome.left:
            case Leaving.PAUSED:
                service.pause_here(connection, held=held)
            case Leaving.CANCELLED:
                service.cancel_here(connection, held=held)
            case Leaving.STOPPED:
                service.hand_back(connection, held=held)
            case _ if outcome.error is not None:
                service.fail(connection, held=held, error=outcome.error, recoverable=outcome.recoverable)
                if outcome.recoverable:
                    pause = min(LONGEST_PAUSE, retry_delay * 2**held.retry_count)
                    work.put_off(connection, tenant_id=held.tenant_id, process_id=held.process_id, pause=pause)
            case _:
                service.complete(connection, held=held, result=outcome.result)

    try:
        persistently(database, write)
    except ProcessLost:
        log.warning("task_lost", task_id=str(held.process_id), kind=held.kind, attempt=held.attempt)
        return False
    return True
