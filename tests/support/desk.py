"""Both ends of a task in this process: the web app that asks for it at Supabase, and the workers that do it."""

import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from db.ids import new_id
from db.repositories import ledger
from tenantsync.processes import service as processes
from tenantsync.processes.publishing import Publisher
from tenantsync.work import dispatch, execution, intake
from tenantsync.work.handlers import Handlers, TaskFailed
from tenantsync.work.holding import Stop, never
from tenantsync.work.run import Run
from tenantsync.work.supabase_tasks import SupabaseTasks
from tests.support.fleet import Fleet, TenantHandle
from tests.support.mirror import MirrorSide, open_again

LEASE = timedelta(seconds=5)
NO_DELAY = timedelta(0)


class Letter(BaseModel):
    """A payload with a rule or two."""

    words: list[str] = Field([], max_length=3)
    copies: int = Field(1, ge=1, le=9)


class Desk:
    """A tenant's web app and a worker. Nothing happens by itself: `take_in`, `work` and `bring_back` do it."""

    def __init__(self, fleet: Fleet, mirror: MirrorSide) -> None:
        self.fleet, self.mirror, self.database = fleet, mirror, fleet.database
        self.handlers = Handlers()
        self.source = SupabaseTasks(mirror.supabase)
        self.publisher = Publisher(self.database)
        self.calls: list[str] = []
        add_handlers(self.handlers, self.calls)

    def close(self) -> None:
        self.publisher.close()

    # The web app

    def ask(self, tenant: TenantHandle, kind: str = "letters.write", payload: Any = None, **columns: Any) -> UUID:
        """Insert a row as a member would; its id."""
        about = {
            "id": str(new_id()),
            "tenant_id": str(tenant.tenant_id),
            "workspace_id": str(tenant.workspace_id),
            "kind": kind,
            "payload": json.dumps(payload if payload is not None else {}),
            **columns,
        }
        names, values = ", ".join(about), ", ".join(f"%({name})s" for name in about)
        self.mirror.execute(f"insert into public.tasks ({names}) values ({values})", about)
        return UUID(str(about["id"]))

    def wants_cancelled(self, asked: UUID) -> None:
        self.mirror.execute("update public.tasks set cancel_requested_at = now() where id = %s", (str(asked),))

    def seen(self, asked: UUID) -> dict[str, Any]:
        """The row as the web app sees it."""
        (row,) = self.mirror.rows("select * from public.tasks where id = %s", (str(asked),))
        return row

    # The workers

    def take_in(self, **options: Any) -> dict[str, int]:
        return intake.take_in(self.database, self.source, self.handlers, **options)

    def id_of(self, asked: UUID) -> UUID:
        found: UUID = self.fleet.one("select id from worker.tasks where supabase_task_id = :asked", asked=asked)["id"]
        return found

    def task(self, asked: UUID) -> dict[str, Any]:
        return self.fleet.one("select * from worker.tasks where supabase_task_id = :asked", asked=asked)

    def process(self, asked: UUID) -> dict[str, Any]:
        return self.fleet.one("select * from process.processes where process_id = :id", id=self.id_of(asked))

    def events(self, asked: UUID) -> list[str]:
        found = self.fleet.rows(
            "select event_type from process.events where process_id = :id order by sequence", id=self.id_of(asked)
        )
        return [row["event_type"] for row in found]

    def steps(self, asked: UUID) -> dict[str, dict[str, Any]]:
        found = self.fleet.rows("select * from worker.execution_logs where task_id = :id", id=self.id_of(asked))
        return {row["step_name"]: row for row in found}

    def worker(self, name: str = "tasks@one", *, slots: int = 2) -> None:
        """A worker that says that it lives."""
        reading = {"slots": slots, "cpu": 0, "memory": 0, "active": 0, "now": None}
        with self.database.statement() as connection:
            ledger.heartbeat(connection, worker=name, queues=["tasks"], reading=reading)

    def hand_out(self) -> list[UUID]:
        """One dispatch; what it sent."""
        sent: list[UUID] = []

        def publish(process_id: UUID, *, time_limit: int) -> None:
            sent.append(process_id)

        dispatch.dispatch(self.database, publish, self.handlers)
        return sent

    def run(
        self,
        process_id: UUID,
        *,
        lease: timedelta = LEASE,
        stop: Stop = never,
        retry_delay: timedelta = NO_DELAY,
    ) -> str | None:
        return execution.execute(
            self.database,
            self.publisher,
            self.handlers,
            process_id,
            worker="tasks@one",
            lease=lease,
            retry_delay=retry_delay,
            stop=stop,
        )

    def work(self, *, rounds: int = 20) -> list[str | None]:
        """Hand out and run until nothing waits; what came of each run."""
        done: list[str | None] = []
        for _ in range(rounds):
            self.worker()
            sent = self.hand_out()
            if not sent:
                break
            done += [self.run(process_id) for process_id in sent]
        return done

    def tend(self) -> dict[str, int]:
        return dict(processes.tend(self.database))

    def bring_back(self) -> None:
        """What the mirror does every second."""
        open_again(self.database)
        self.mirror.drain(self.database)

    def done(self, asked: UUID) -> dict[str, Any]:
        """Take in, work and bring back; the row as the web app sees it then."""
        self.take_in()
        self.work()
        self.bring_back()
        return self.seen(asked)


def add_handlers(handlers: Handlers, calls: list[str]) -> None:
    """Kinds for tests. `calls` hears of what was really done."""

    @handlers.handler("letters.write", title="Write a letter")
    def write(letter: Letter, run: Run) -> dict[str, Any]:
        text = run.step("compose", lambda: " ".join(letter.words), message="Composing")
        return {"text": text, "copies": letter.copies}

    @handlers.handler("letters.steps", timeout=30)
    def steps(letter: Letter, run: Run) -> dict[str, Any]:
        done = [run.step(f"step {number}", lambda number=number: _heard(calls, number)) for number in range(3)]  # type: ignore[misc]
        return {"done": done}

    @handlers.handler("letters.ask", timeout=30)
    def ask(_: Letter, run: Run) -> dict[str, Any]:
        run.step("before", lambda: _heard(calls, "before"))
        answer = run.ask("paper", prompt="Which paper?", options=["white", "blue"], expires_in=timedelta(hours=1))
        run.step("after", lambda: _heard(calls, "after"))
        return {"paper": answer["selected"]["title"]}

    @handlers.handler("letters.refuse")
    def refuse(_: Letter, run: Run) -> None:
        raise TaskFailed("the post office is closed")

    @handlers.handler("letters.crash", retries=2)
    def crash(_: Letter, run: Run) -> None:
        calls.append("crash")
        raise KeyError("Kanarienvogel")

    @handlers.handler("letters.hang", timeout=1)
    def hang(_: Letter, run: Run) -> dict[str, Any]:
        ends = time.monotonic() + 3
        while time.monotonic() < ends and not run.cancelled:
            time.sleep(0.02)
        calls.append("still there")
        return {}


def _heard(calls: list[str], what: Any) -> Any:
    calls.append(str(what))
    return what


def returning(handlers: Handlers, kind: str, make: Callable[[], Any]) -> None:
    """A handler that returns what `make` makes."""

    @handlers.handler(kind)
    def give(_: Letter, run: Run) -> Any:
        return make()
