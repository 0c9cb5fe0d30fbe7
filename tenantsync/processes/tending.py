"""What nobody does by itself: stuck processes, questions whose time has come, heartbeats, snapshots that lie about.

Every process is seen to in a transaction of its own, which looks again under the lock: what the list said may be over
by then, and one process that cannot be seen to keeps no other waiting.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from uuid import UUID

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from db.repositories import processes, questions
from db.repositories.processes import ProcessRow
from db.session import Database, in_transaction, is_connection_loss
from db.states import ProcessState
from tenantsync import clock
from tenantsync.processes import asking, publishing, running, syncs
from tenantsync.processes.moving import locked, move, state_updated
from tenantsync.processes.publishing import Event
from tenantsync.processes.values import ProcessUnknown

log = structlog.get_logger(__name__)

HEARTBEAT_EVERY = timedelta(seconds=30)
Seen = Callable[[Connection, UUID, UUID], bool]


def catch_up(database: Database) -> Mapping[str, int]:
    """What cannot wait for `tend`, once a second: snapshots whose writer is gone, and processes whose worker is."""
    with database.statement() as connection:
        stuck = processes.stuck(connection)
    return {"late": publishing.flush_late(database), "stuck": _each(database, stuck, free)}


def tend(database: Database) -> Mapping[str, int]:
    """See to every process that needs it; returns how many of each sort."""
    with database.reading() as connection:
        due = questions.due(connection)
        overdue, stuck = processes.overdue(connection), processes.stuck(connection)
        unasked = processes.unasked(connection)
        quiet = processes.quiet_runners(connection, every=HEARTBEAT_EVERY)
    result = {
        "expired": _questions(database, due, asking.expire),
        "reminded": _questions(database, due, asking.remind),
        "overdue": _each(database, overdue, end_overdue),
        "stuck": _each(database, stuck, free),
        "unasked": _each(database, unasked, go_on_unasked),
        "heartbeats": _heartbeats(database, quiet),
        "late": publishing.flush_late(database),
        "mended": syncs.mend(database),
    }
    if any(result.values()):
        log.info("processes_tended", **result)
    return result


def _each(database: Database, pairs: Iterable[tuple[UUID, UUID]], see_to: Seen) -> int:
    def about(tenant: UUID, process: UUID) -> Callable[[Connection], bool]:
        return lambda connection: see_to(connection, tenant, process)

    return sum(_one(database, about(*pair)) for pair in pairs)


def _questions(database: Database, due: Sequence[questions.QuestionRow], see_to: Callable[..., bool]) -> int:
    def about(question: questions.QuestionRow) -> Callable[[Connection], bool]:
        return lambda connection: see_to(
            connection,
            tenant_id=question.tenant_id,
            process_id=question.process_id,
            question_id=question.question_id,
        )

    return sum(_one(database, about(question)) for question in due)


def _one(database: Database, work: Callable[[Connection], bool]) -> bool:
    try:
        with database.transaction() as connection:
            return work(connection)
    except ProcessUnknown:
        return False  # deleted meanwhile
    except SQLAlchemyError as error:
        if is_connection_loss(error):
            raise
        log.exception("process_not_tended", error=type(error).__name__)
        return False


def free(connection: Connection, tenant_id: UUID, process_id: UUID) -> bool:
    """A process whose worker let its lease end: as its people want, or again, or failed when it was lost too often."""
    row, now = locked(connection, tenant_id=tenant_id, process_id=process_id)
    if row.state != ProcessState.RUNNING or row.lease_until is None or row.lease_until > now:
        return False
    if row.cancel_requested:
        running.cancelled(connection, row, now)
    elif row.pause_requested:
        running.paused(connection, row, now)
    else:
        where = f" in step {row.step!r}" if row.step else ""
        running.failed(connection, row, now, _lost(row, where), recoverable=True)
    return True


def _lost(row: ProcessRow, where: str) -> str:
    if row.retry_count < row.max_retries:
        return f"its worker was lost{where}; it is tried again"
    return f"its worker was lost{where}, for the {row.retry_count + 1}. time; look in the worker's log for why it ends"


def go_on_unasked(connection: Connection, tenant_id: UUID, process_id: UUID) -> bool:
    """A process that waits for an answer to nothing goes on: its next run asks again, or finds the answer."""
    row, now = locked(connection, tenant_id=tenant_id, process_id=process_id)
    if row.state != ProcessState.WAITING or questions.listed(
        connection, tenant_id=tenant_id, process_id=process_id, states=["open"], limit=1
    ):
        return False
    if row.queue is None:
        running.failed(connection, row, now, "it waits for a person, and nobody is asked anything")
    else:
        move(connection, row, now, ProcessState.PENDING, state_updated(row, ProcessState.PENDING, reason="unasked"))
    return True


def end_overdue(connection: Connection, tenant_id: UUID, process_id: UUID) -> bool:
    """A process whose deadline has passed fails, whatever it does."""
    row, now = locked(connection, tenant_id=tenant_id, process_id=process_id)
    if not row.open or row.deadline_at is None or row.deadline_at > now:
        return False
    running.failed(connection, row, now, f"it was to be over by {row.deadline_at:%Y-%m-%d %H:%M:%S} UTC")
    return True


def _heartbeats(database: Database, pairs: Sequence[tuple[UUID, UUID]]) -> int:
    """A heartbeat for each that still runs, one transaction a tenant; where that fails, one a process."""
    shown = 0
    for tenant, several in groupby(pairs, key=lambda pair: pair[0]):
        quiet = [process for _, process in several]
        try:
            shown += in_transaction(database, lambda c, t=tenant, q=quiet: _show(c, t, q))  # type: ignore[misc]
        except SQLAlchemyError as error:
            if is_connection_loss(error):
                raise
            shown += _each(database, [(tenant, process) for process in quiet], lambda c, t, p: bool(_show(c, t, [p])))
    return shown


def _show(connection: Connection, tenant_id: UUID, quiet: Sequence[UUID]) -> int:
    event = Event("heartbeat", {"timestamp": clock.now()}, immediate=True)
    running = processes.lock_running(connection, tenant_id=tenant_id, process_ids=quiet)
    return len(publishing.publish_many(connection, tenant_id=tenant_id, events={one: [event] for one in running}))
