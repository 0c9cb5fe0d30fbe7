"""What a handler has in hand while it runs: steps that are done once, questions to people, progress, and its end.

A run may begin more than once: after a crash, a pause, an answer, a worker that was told to stop. What stands in a
finished step is not done again; what stands between steps is. Everything is written under the attempt's fence.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from itertools import count
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from db.repositories import ledger, processes, questions
from db.session import Database, in_transaction, is_connection_loss
from tenantsync import clock
from tenantsync.processes import service
from tenantsync.processes.publishing import Event, Publisher, prepare
from tenantsync.processes.values import Held, NewQuestion, ProcessLost, Wish
from tenantsync.work.handlers import Misused, TaskFailed
from tenantsync.work.holding import Keeper
from tenantsync.work.values import as_json, as_text

T = TypeVar("T")

LARGEST_STEP = 200_000  # bytes of JSON: its result travels in an event, too
LONGEST_NAME = 200  # characters of a step's or a question's name
PERSISTENCE = 10.0  # seconds in which a write is tried again while Postgres is away


class Leaving(StrEnum):
    """Why a run ends without an end of its process."""

    WAITING = "waiting"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    LOST = "lost"


class LeftOff(BaseException):
    """Ends a run between two steps. Not an Exception, so that a handler that catches those lets it pass."""

    def __init__(self, why: Leaving) -> None:
        super().__init__(why.value)
        self.why = why


def patiently(work: Callable[..., T], *args: Any, **options: Any) -> T:
    """Do something with Postgres, again and again for some seconds while it is away: a run's work is worth it."""
    trying = Retrying(
        retry=retry_if_exception(is_connection_loss),
        stop=stop_after_delay(PERSISTENCE),
        wait=wait_fixed(0.3),
        reraise=True,
    )
    done: T = trying(work, *args, **options)
    return done


def persistently(database: Database, write: Callable[[Connection], T]) -> T:
    """Write in a transaction, patiently."""
    done: T = patiently(in_transaction, database, write)
    return done


class Run:
    """One attempt at a task. Used from the handler's own thread."""

    def __init__(self, database: Database, held: Held, keeper: Keeper, publisher: Publisher) -> None:
        self._held, self._keeper, self._publisher = held, keeper, publisher
        self._memo = dict(held.memo)
        self._named: set[str] = set()
        self.database = database
        self.task_id: UUID = held.process_id
        self.tenant_id: UUID = held.tenant_id
        self.workspace_id: UUID | None = held.workspace_id
        self.attempt: int = held.attempt

    @property
    def cancelled(self) -> bool:
        """Whether the task is wanted no more, as of a second ago at most. A step's own loop may look here."""
        return self._keeper.wish(newest=False) in (Wish.CANCEL, Wish.LOST)

    def step(self, name: str, work: Callable[[], T], *, message: str = "") -> T:
        """Do a part of the task once, whatever happens to the worker; its result is kept and given again.

        The result has to be JSON and no larger than 200 kB. A name stands for one step: number those of a loop.
        """
        self._name(name)
        if name in self._memo:
            done: T = self._memo[name]
            return done
        self.checkpoint()
        persistently(
            self.database, lambda c: service.start_step(c, held=self._held, step=name, message=as_text(message))
        )
        began = clock.monotonic()
        try:
            result: T = as_json(work(), about=f"the result of the step {name}", largest=LARGEST_STEP)
        except Exception as error:
            self._log(name, began, success=False, details={"error": type(error).__name__})
            raise

        tries = count()

        def finish(connection: Connection) -> None:
            if next(tries) and processes.is_remembered(  # the answer of the commit was lost, and not the commit
                connection, tenant_id=self.tenant_id, process_id=self.task_id, attempt=self.attempt, step=name
            ):
                return
            service.finish_step(connection, held=self._held, step=name, result=result)
            ledger.log_steps(connection, [self._row(name, began, success=True, details=None)])

        persistently(self.database, finish)
        self._memo[name] = result
        return result

    def ask(
        self,
        name: str,
        *,
        input_type: str = "choice",
        prompt: str = "",
        options: Sequence[Any] = (),
        actions: Sequence[str] = (),
        answer_schema: Mapping[str, Any] | None = None,
        expires_in: timedelta | None = None,
        remind_in: timedelta | None = None,
        default: Any = None,
    ) -> Any:
        """What a person answered. Until somebody has, the run ends here and holds no worker; it begins anew then.

        Nobody does within `expires_in`: the default counts, and without one the task fails.
        """
        self._name(name)
        with self.database.statement() as connection:
            asked = questions.named(connection, tenant_id=self.tenant_id, process_id=self.task_id, name=name)
        if asked is not None and asked.state in ("answered", "expired"):
            return asked.answer
        if asked is not None and asked.state == "withdrawn":
            raise TaskFailed(f"the question {name} was withdrawn", final=True)
        self.checkpoint()
        question = NewQuestion(
            name=name,
            input_type=input_type,
            prompt=as_text(prompt),
            options=as_json(list(options), about=f"the options of {name}"),
            actions=tuple(actions),
            answer_schema=answer_schema,
            deadline=expires_in,
            remind_after=remind_in,
            default_answer=as_json(default, about=f"the default of {name}"),
        )
        patiently(self._publisher.flush)
        now_asked = persistently(self.database, lambda c: service.ask(c, held=self._held, question=question))
        if now_asked.state in ("answered", "expired"):  # somebody was faster than this run
            return now_asked.answer
        raise LeftOff(Leaving.WAITING)

    def progress(self, done: int, total: int, message: str = "") -> None:
        """Say how far the task is. Chatty calls cost little: people see the newest, five times a second."""
        percentage = min(100.0, max(0.0, 100.0 * done / total)) if total > 0 else 0.0
        self.publish("progress", {"percentage": round(percentage, 1), "message": as_text(message)})

    def publish(self, event_type: str, data: Mapping[str, Any], *, immediate: bool = False) -> None:
        """Publish an event of the task's process (tenantsync/processes/event_types.py)."""
        prepared = prepare(self._held, Event(event_type, data, immediate), 1)
        tries = count()
        try:
            patiently(
                lambda: self._publisher.put(self._held, prepared, immediate=immediate, again=next(tries) > 0),
            )
        except ProcessLost:
            raise LeftOff(Leaving.LOST) from None

    def log(self, name: str, details: Mapping[str, Any] | None = None) -> None:
        """Write a line of worker.execution_logs, with details that are JSON."""
        kept = None if details is None else as_json(details, about=f"the details of {name}", largest=LARGEST_STEP)
        self._log(as_text(name)[:LONGEST_NAME], None, success=True, details=kept)

    def checkpoint(self) -> None:
        """A place between two steps at which the run may be ended: cancelled, paused, or its worker stopped."""
        if self._keeper.lost:
            raise LeftOff(Leaving.LOST)
        if self._keeper.stopping:
            raise LeftOff(Leaving.STOPPED)
        match patiently(self._keeper.wish, newest=True):
            case Wish.CANCEL:
                raise LeftOff(Leaving.CANCELLED)
            case Wish.PAUSE:
                raise LeftOff(Leaving.PAUSED)
            case Wish.LOST:
                raise LeftOff(Leaving.LOST)
            case Wish.GO_ON:
                return

    def wait(self, seconds: float) -> None:
        """Wait without being in anybody's way: returns, or ends the run, as soon as somebody wants it to."""
        self._keeper.wait(seconds)
        self.checkpoint()

    def _name(self, name: str) -> None:
        if not 0 < len(name) <= LONGEST_NAME or as_text(name) != name:
            raise Misused(f"a step's or question's name should be a text of 1 to {LONGEST_NAME} characters")
        if name in self._named:
            raise Misused(f"the name {name!r} is used twice in a run: number the steps of a loop")
        self._named.add(name)

    def _row(self, name: str, began: float | None, *, success: bool, details: Any) -> dict[str, Any]:
        return {
            "task_id": self.task_id,
            "tenant_id": self.tenant_id,
            "step_name": name,
            "execution_time": None if began is None else int((clock.monotonic() - began) * 1000),
            "success": success,
            "details": details,
        }

    def _log(self, name: str, began: float | None, *, success: bool, details: Any) -> None:
        row = self._row(name, began, success=success, details=details)
        persistently(self.database, lambda connection: ledger.log_steps(connection, [row]))
