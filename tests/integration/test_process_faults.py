"""P11 for processes: whatever is done to one fails at every one of its statements, in three ways, and is done or not.

Statements are found by listening at the driver while the same is done once without trouble, as in
`test_fault_injection.py`.
"""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel
from sqlalchemy import Connection

from config.settings import Settings
from db.ids import new_id
from db.repositories import work
from db.repositories.work import NewTask
from db.session import Database, in_transaction
from tenantsync.processes import service
from tenantsync.processes.publishing import Publisher
from tenantsync.processes.service import Held, NewQuestion
from tenantsync.work import execution
from tenantsync.work.handlers import Handlers
from tenantsync.work.run import Run
from tests.support.logs import captured_logs
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.stage import LEASE, WHICH, Stage
from tests.support.statements import Spoil
from tests.support.tapped import Tapped

pytest_plugins = ["tests.support.stage_fixtures", "tests.support.tapped_fixtures"]

HOUR = timedelta(hours=1)
STANDING = """
select concat_ws(' ', p.state, p.attempt, p.retry_count, p.step, p.completed_steps, p.percentage, p.memo,
                 p.lease_until is not null, p.completed_at is not null, p.result, p.error is not null,
                 t.status, (select count(*) from process.events e where e.process_id = p.process_id), p.last_sequence,
                 (select string_agg(q.state, ',') from process.questions q where q.process_id = p.process_id),
                 (select count(*) from worker.audit_logs a where a.details ->> 'process_id' = p.process_id::text),
                 (select version from mirror.outbox o where o.row_id = p.process_id and o.entity = 'process_events'))
  from process.processes p join worker.tasks t on t.id = p.process_id where p.process_id = :process
"""
BROKEN = """
select p.process_id from process.processes p left join worker.tasks t on t.id = p.process_id
  left join lateral (select count(*) as n, min(sequence) as low, max(sequence) as high from process.events e
                      where e.process_id = p.process_id) e on true
 where e.n <> p.last_sequence or (e.n > 0 and (e.low <> 1 or e.high <> e.n))
    or t.status <> case p.state when 'running' then 'processing' when 'paused' then 'waiting' else p.state end
    or (p.state = 'waiting' or p.completed_at is not null) and (p.state = 'waiting') <> exists (
         select 1 from process.questions q where q.process_id = p.process_id and q.state = 'open')
    or (p.state <> 'running' and p.state <> 'pending' and p.lease_until is not null)
"""
"""Processes whose numbers have gaps, whose ledger row says something else, or who wait for nobody."""
GONE = """
update process.processes set lease_until = now() - interval '1 second' where process_id = :process and state = 'running'
"""
OVER = "update process.questions set {} = now() - interval '1 second' where process_id = :process"


class Order(BaseModel):
    """Nothing is asked of one."""


@pytest.fixture(autouse=True)
def log(settings: Settings) -> Iterator[io.StringIO]:
    """The product's own log: every fault writes a traceback, and structlog's default takes a second to paint one."""
    with captured_logs(settings) as lines:
        yield lines


class Tasks:
    """Tasks with their processes, in the state in which something is to be done to them."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def new(self) -> UUID:
        return self.stage.do(lambda connection: taken(connection, self.stage.tenant.tenant_id))

    def running(self) -> Held:
        held = self.stage.begin(self.new())
        self.stage.do(lambda c: service.start_step(c, held=held, step="write"))
        return held

    def asking(self, question: NewQuestion = WHICH) -> Any:
        return self.stage.ask(self.running(), question)

    def wished(self, word: str) -> Held:
        held = self.running()
        self.stage.wish(word, held.process_id)
        return held


def taken(connection: Connection, tenant: UUID) -> UUID:
    """What an intake writes of a task."""
    task = NewTask(new_id(), new_id(), tenant, None, "orders.export", "tasks", {}, "ann")
    assert work.take(connection, task)
    return service.create(
        connection, tenant_id=tenant, workspace_id=None, kind="orders.export", title="t", started_by="ann",
        process_id=task.task_id, queue="tasks",
    )  # fmt: skip


Deed = tuple[Callable[[Tasks], Any], Callable[[Database, Any, UUID], Any]]


def under(make: Callable[[Tasks], Any], do: Callable[[Connection, Any], Any]) -> Deed:
    """Done in a transaction to a process that stands as it was made."""
    return make, lambda database, made, _: in_transaction(database, lambda connection: do(connection, made))


def wish(word: str) -> Callable[[Connection, Any], Any]:
    def do(connection: Connection, made: Any) -> Any:
        function = {"pause": service.pause, "resume": service.resume, "cancel": service.cancel}[word]
        return function(connection, tenant_id=made.tenant_id, process_id=made.process_id, by="ann")

    return do


def paused(tasks: Tasks) -> Held:
    held = tasks.wished("pause")
    tasks.stage.do(lambda c: service.pause_here(c, held=held))
    return held


def stuck(tasks: Tasks) -> Held:
    held = tasks.running()
    tasks.stage.execute(GONE, process=held.process_id)
    return held


def due(column: str, **options: Any) -> Callable[[Tasks], Any]:
    def make(tasks: Tasks) -> Any:
        asked = tasks.asking(NewQuestion("x", "X", deadline=HOUR, remind_after=HOUR / 2, **options))
        tasks.stage.execute(OVER.format(column), process=asked.process_id)
        return asked

    return make


def tend(database: Database, _: Any, __: UUID) -> Any:
    return service.tend(database)


DEEDS: dict[str, Deed] = {
    "begin": under(Tasks.new, lambda c, made: service.begin(c, process_id=made, worker="w", lease=LEASE)),
    "start_step": under(Tasks.running, lambda c, held: service.start_step(c, held=held, step="send")),
    "finish_step": under(Tasks.running, lambda c, held: service.finish_step(c, held=held, step="write", result=[1])),
    "ask": under(Tasks.running, lambda c, held: service.ask(c, held=held, question=WHICH)),
    "answer": under(
        Tasks.asking,
        lambda c, one: service.answer(
            c, tenant_id=one.tenant_id, process_id=one.process_id, question_id=one.question_id, answer=0, by="ann"
        ),
    ),
    "pause": under(Tasks.asking, wish("pause")),
    "pause what runs": under(Tasks.running, wish("pause")),
    "pause_here": under(lambda tasks: tasks.wished("pause"), lambda c, held: service.pause_here(c, held=held)),
    "resume": under(paused, wish("resume")),
    "cancel": under(Tasks.asking, wish("cancel")),
    "cancel_here": under(lambda tasks: tasks.wished("cancel"), lambda c, held: service.cancel_here(c, held=held)),
    "complete": under(Tasks.running, lambda c, held: service.complete(c, held=held, result={"a": 1})),
    "fail": under(Tasks.running, lambda c, held: service.fail(c, held=held, error="no")),
    "fail for now": under(Tasks.running, lambda c, held: service.fail(c, held=held, error="no", recoverable=True)),
    "hand_back": under(Tasks.running, lambda c, held: service.hand_back(c, held=held)),
    "tend a stuck one": (stuck, tend),
    "tend a question that is over": (due("expires_at"), tend),
    "tend one with a default": (due("expires_at", default_answer=1), tend),
    "tend a reminder": (due("remind_at"), tend),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_p11_a_fault_at_any_statement_does_all_of_it_or_nothing(
    stage: Stage, tapped: Callable[[], Tapped], deed: str
) -> None:
    tasks, worker, (make, do) = Tasks(stage), tapped(), DEEDS[deed]

    def strike(at: int | None, how: Spoil = Spoil.REFUSED) -> tuple[str, str, list[str]]:
        """(how it stood, how it stands, statements)."""
        made = make(tasks)
        process: UUID = made if isinstance(made, UUID) else made.process_id
        before = stage.column(STANDING, process=process)[0]
        with worker.spoiled(at=at, how=how):
            do(worker.fleet.database, made, process)
        after = stage.column(STANDING, process=process)[0]
        stage.execute("update process.questions set remind_at = null, expires_at = null")
        stage.execute("update process.processes set lease_until = now() + interval '1 hour' where state = 'running'")
        return before, after, worker.tap.seen

    before, whole, statements = strike(None)
    outcomes = [strike(place)[1] for place in range(1, len(statements) + 1)]
    for how in (Spoil.CUT_BEFORE, Spoil.CUT_AFTER):  # within a transaction, to be cut off is to be refused
        outcomes += [strike(place, how)[1] for place, one in enumerate(statements, 1) if one == "COMMIT"]

    assert (len(statements) >= 3, before != whole) == (True, True)
    assert set(outcomes) <= {before, whole}
    assert stage.column(BROKEN) == []


ATTEMPTS = 6


@pytest.fixture
def handlers() -> Handlers:
    """A kind that does a bit of everything that a run can do without a person."""
    made = Handlers()

    @made.handler("orders.export", retries=3)
    def export(_: Order, run: Run) -> dict[str, Any]:
        rows = run.step("read", lambda: [1, 2, 3])
        for number in range(3):
            run.publish("section_chunk", {"section_index": 0, "chunk": str(number)})
            run.progress(number, 3)
        run.publish("section_completed", {"section_index": 0, "content": "012"})
        return {"rows": run.step("write", lambda: len(rows))}

    return made


def test_p11_a_fault_at_any_statement_of_a_run_leaves_no_task_without_an_end(
    stage: Stage, tapped: Callable[[], Tapped], handlers: Handlers
) -> None:
    """Where the session was cut off the same run goes on: nothing is done twice, and nothing is told twice."""
    tasks = Tasks(stage)

    def go(database: Database, process: UUID) -> None:
        publisher = Publisher(database)
        try:
            execution.execute(database, publisher, handlers, process, worker="w", lease=LEASE, retry_delay=timedelta(0))
        finally:
            publisher.close()

    def strike(worker: Tapped, at: int | None, how: Spoil = Spoil.REFUSED) -> tuple[UUID, list[str]]:
        process = tasks.new()
        with worker.spoiled(at=at, how=how):
            go(worker.fleet.database, process)
        return process, worker.tap.seen

    workers = [tapped() for _ in range(6)]
    model, statements = strike(workers[0], None)
    at_once = ("COMMIT", "process.events", "process.snapshots", "process.questions")
    faults = [
        (place, how)
        for place, one in enumerate(statements, 1)
        for how in Spoil
        if how is Spoil.REFUSED or any(part in one for part in at_once)  # within a transaction, it is to be refused
    ]

    def strike_some(number: int) -> list[tuple[tuple[int, Spoil], UUID]]:
        return [((place, how), strike(workers[number], place, how)[0]) for place, how in faults[number :: len(workers)]]

    with ThreadPoolExecutor(len(workers)) as threads:
        struck = {fault: process for some in threads.map(strike_some, range(len(workers))) for fault, process in some}

    assert len(statements) >= 25
    begun = statements.index("COMMIT") + 1
    for (place, how), process in struck.items():
        if how is not Spoil.REFUSED and place > begun:
            about = (place, how, statements[place - 1])
            assert (about, stage.state(process), stage.row(process).attempt) == (about, "completed", 1)
            assert (about, told(stage, process)) == (about, told(stage, model))
    for _ in range(ATTEMPTS):
        for process in struck.values():
            stage.execute(GONE, process=process)
        stage.tend()
        for process in stage.column("select process_id from process.processes where state = 'pending'"):
            go(stage.database, process)
    assert {stage.state(process) for process in struck.values()} <= {"completed", "failed"}
    assert stage.column(BROKEN) == []


def told(stage: Stage, process: UUID) -> list[tuple[str, str]]:
    """What somebody who follows a process hears, its progress and what begins twice left out."""
    events = [(one.event_type, str(one.data.get("chunk", one.data.get("step", "")))) for one in stage.events(process)]
    return [one for one in events if one[0] not in ("progress", "step_update")]
