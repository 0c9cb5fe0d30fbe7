"""Intake: rows that web apps insert at Supabase become tasks here, each once, whoever looks and however often.

A row is new to us until its version is not 0, which the return through the outbox makes so; until then it is seen
again and known by its key. What cannot be done is told at once: a row of a known tenant becomes a task that is over
already, one of nobody's tenant is failed at Supabase itself. A row that does harm is left alone after the others.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError

from db.ids import new_id
from db.racepoints import reach
from db.repositories import processes, scopes, work
from db.repositories.work import NewTask
from db.session import Database, is_connection_loss
from tenantsync import clock
from tenantsync.mirror.service import SCOPE
from tenantsync.mirror.supabase import MirrorError
from tenantsync.processes import service
from tenantsync.processes.values import MoveRefused, ProcessUnknown
from tenantsync.schedule.occurrences import Unfinished, carry_on
from tenantsync.work import opening, rules
from tenantsync.work.handlers import Handlers
from tenantsync.work.rules import Asked, Unreadable
from tenantsync.work.supabase_tasks import Row

log = structlog.get_logger(__name__)

PAGE = 200  # rows of one question to Supabase
MOST_PAGES = 25
"""Of one intake: 5,000 rows take half a minute; the next one goes on."""
BELL = "tasks"
UNWRITABLE = "could not be written down"


class Source(Protocol):
    """Where tasks come from. Raises MirrorError."""

    def new(self, *, after: Row | None, limit: int) -> list[dict[str, Any]]: ...

    def to_cancel(self, *, after: Row | None, limit: int) -> list[dict[str, Any]]: ...

    def refuse(self, rows: Sequence[tuple[Row, str]], *, now: str) -> None: ...


@dataclass(slots=True)
class TakenIn:
    """What an intake did."""

    taken: int = 0
    refused: int = 0
    cancelled: int = 0
    known: int = 0
    """Rows that were taken in before, and whose return has not arrived."""
    unwritable: int = 0


def take_in(
    database: Database,
    source: Source,
    handlers: Handlers,
    *,
    page: int = PAGE,
    step: Callable[[], None] = carry_on,
) -> dict[str, int]:
    """Take in what is new and cancel what is to be cancelled; how much of each.

    Raises Unfinished when Supabase cannot be asked; what was taken in until then stays.
    """
    done = TakenIn()
    with database.statement() as connection:
        if scopes.open_again_in(connection, *SCOPE) is not None:
            return asdict(done)  # the mirror has found it closed; it says when to try again
    intake = _Intake(database, source, handlers, done)
    try:
        for rows in _pages(source.new, page, step):
            intake.take(rows)
        for rows in _pages(source.to_cancel, page, step):
            intake.cancel(rows)
    except MirrorError as error:
        raise Unfinished(f"Supabase: {error.reason}", asdict(done)) from None
    return asdict(done)


def _pages(
    ask: Callable[..., list[dict[str, Any]]], page: int, step: Callable[[], None]
) -> Iterable[list[dict[str, Any]]]:
    after: Row | None = None
    for _ in range(MOST_PAGES):
        step()
        rows = ask(after=after, limit=page)
        if rows:
            yield rows
        if len(rows) < page:
            return
        after = rows[-1]


@dataclass(slots=True)
class _Intake:
    database: Database
    source: Source
    handlers: Handlers
    done: TakenIn

    def take(self, rows: Sequence[Row]) -> None:
        """Write a page down, each row in a transaction of its own."""
        asked = list(_readable(rows))
        with self.database.statement() as connection:
            taken = work.taken(connection, (one.id for one in asked))
            new = [one for one in asked if one.id not in taken]
            known = work.known(
                connection,
                tenants={one.tenant_id for one in new},
                workspaces={one.workspace_id for one in new if one.workspace_id is not None},
            )
        self.done.known += len(taken)
        strangers = [one for one in new if one.tenant_id not in known]
        for one in new:
            if one.tenant_id in known:
                self._take_one(one, known[one.tenant_id])
        if strangers:
            told = [({"id": str(one.id), "tenant_id": str(one.tenant_id)}, rules.NO_TENANT) for one in strangers]
            self.source.refuse(told, now=clock.now().isoformat())
            self.done.refused += len(strangers)

    def _take_one(self, asked: Asked, workspaces: set[UUID]) -> None:
        verdict = rules.judge(asked, self.handlers, workspaces)
        task = opening.task_of(asked, verdict, task_id=new_id(), supabase_task_id=asked.id, workspaces=workspaces)
        reach("task.taking", task=task.task_id)
        try:
            ours = self._write(task, asked)
        except DBAPIError as error:
            if is_connection_loss(error):
                raise
            # Nothing that is known to happen: a task that Postgres refuses must not keep the others waiting.
            log.warning("task_unwritable", supabase_task_id=str(asked.id), error=type(error.orig).__name__)
            self.done.unwritable += 1
            nothing: dict[str, Any] = dict.fromkeys(("queue", "workspace_id", "payload", "requested_by"))
            refusal = replace(task, **nothing, kind="?", status="failed", error=UNWRITABLE)
            with self.database.transaction() as connection:
                work.take(connection, refusal)
            return
        if not ours:
            self.done.known += 1
        elif verdict.status == "pending":
            self.done.taken += 1
        else:
            self.done.refused += verdict.status == "failed"
            self.done.cancelled += verdict.status == "cancelled"

    def _write(self, task: NewTask, asked: Asked) -> bool:
        """The task with its process; False if somebody was faster."""
        with self.database.transaction() as connection:
            if not opening.open_task(connection, task, self.handlers, priority=asked.priority):
                return False
        reach("task.taken", task=task.task_id)
        return True

    def cancel(self, rows: Sequence[Row]) -> None:
        """Ask the processes of these tasks to end; those that are over say so by themselves, through the outbox."""
        asked = {UUID(row["id"]): UUID(row["tenant_id"]) for row in rows}
        with self.database.statement() as connection:
            tasks = work.taken(connection, asked)
        for supabase_id, task_id in tasks.items():
            try:
                with self.database.transaction() as connection:
                    process = processes.get(connection, tenant_id=asked[supabase_id], process_id=task_id)
                    if process is None or not process.open or process.cancel_requested:
                        continue
                    service.cancel(connection, tenant_id=process.tenant_id, process_id=task_id, by=process.started_by)
            except (MoveRefused, ProcessUnknown):
                continue  # it was over, or gone, by the time we had it
            self.done.cancelled += 1


def _readable(rows: Sequence[Mapping[str, Any]]) -> Iterable[Asked]:
    for row in rows:
        try:
            yield rules.read(row)
        except Unreadable:
            log.warning("task_unreadable")


def ring(database: Database) -> None:
    """Say that something has been asked for at Supabase: it is taken in now, once for many rings in a moment."""
    with database.statement() as connection:
        work.ring(connection, bell=BELL)


def is_rung(database: Database) -> bool:
    """Whether somebody rang since the last answer, and that is not just now."""
    with database.statement() as connection:
        return work.rings(connection, bell=BELL)


def answer(database: Database, source: Source, handlers: Handlers) -> dict[str, int] | None:
    """Take in what was rung for; None if nobody rang, or somebody else answers."""
    with database.statement() as connection:
        if not work.answer(connection, bell=BELL):
            return None
    try:
        return take_in(database, source, handlers)
    except Unfinished as unfinished:
        log.warning("bell_unanswered", reason=str(unfinished))
        return dict(unfinished.result)
