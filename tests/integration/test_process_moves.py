"""What moves a process: every move that is declared, by what makes it, and every other refused with nothing written."""

from collections.abc import Callable
from datetime import timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from db.ids import new_id
from db.states import PROCESS_MOVES, ProcessState
from tenantsync.processes import service
from tenantsync.processes.moving import locked, move
from tenantsync.processes.service import MoveRefused, PayloadRefused, ProcessLost, ProcessUnknown, Wish
from tests.support.kept_database import database, database_url, kept_database  # noqa: F401 — fixtures
from tests.support.mirror import plant_tenant
from tests.support.stage import LEASE, WHICH, Stage

pytest_plugins = ["tests.support.stage_fixtures"]

STATES = [state.value for state in ProcessState]
OVER = ("completed", "failed", "cancelled")
PERSON = {
    "pause": {"pending": "paused", "waiting": "paused", "running": "running"},
    "resume": {"paused": "pending"},
    "cancel": {"pending": "cancelled", "waiting": "cancelled", "paused": "cancelled", "running": "running"},
}
RUN: dict[str, tuple[str, str, Callable[..., object], dict[str, Any]]] = {
    "complete": ("completed", "process_completed", service.complete, {"result": {"rows": 3}}),
    "fail": ("failed", "process_error", service.fail, {"error": "the shop is closed"}),
    "fail for now": ("pending", "process_error", service.fail, {"error": "busy", "recoverable": True}),
    "ask": ("waiting", "user_input_required", service.ask, {"question": WHICH}),
    "pause": ("paused", "process_paused", service.pause_here, {}),
    "cancel": ("cancelled", "process_cancelled", service.cancel_here, {}),
    "hand back": ("pending", "state_updated", service.hand_back, {}),
    "step": ("running", "step_update", service.start_step, {"step": "read"}),
    "finished step": ("running", "step_completed", service.finish_step, {"step": "read"}),
    "progress": ("running", "progress", service.progress, {"percentage": 50.0}),
}


@pytest.mark.parametrize(("old", "new"), [*product(STATES, STATES)])
def test_code_moves_a_process_as_declared_and_no_other_way(stage: Stage, old: str, new: str) -> None:
    process = stage.create()
    stage.put(process, old)
    before = stage.row(process)

    def work(connection: Connection) -> None:
        row, now = locked(connection, tenant_id=stage.tenant.tenant_id, process_id=process)
        move(connection, row, now, ProcessState(new))

    if (old, new) in PROCESS_MOVES:
        stage.do(work)
        assert stage.state(process) == new
    else:
        with pytest.raises(MoveRefused, match=f"is {old}"):
            stage.do(work)
        assert stage.row(process) == before


@pytest.mark.parametrize("word", RUN)
def test_what_a_run_does_moves_its_process_and_says_so(stage: Stage, word: str) -> None:
    to, event, function, given = RUN[word]
    held = stage.begin()

    stage.do(lambda connection: function(connection, held=held, **given))

    assert stage.state(held.process_id) == to
    assert stage.last(held.process_id).event_type == event
    assert (stage.row(held.process_id).completed_at is not None) == (to in OVER)
    assert (stage.row(held.process_id).lease_until is not None) == (to == "running")


@pytest.mark.parametrize("word", RUN)
@pytest.mark.parametrize("state", STATES)
def test_a_run_that_lost_its_process_writes_nothing(stage: Stage, word: str, state: str) -> None:
    _, _, function, given = RUN[word]
    held = stage.begin()
    stage.put(held.process_id, state, attempt=held.attempt + (state == "running"))
    before, events = stage.row(held.process_id), stage.types(held.process_id)

    with pytest.raises(ProcessLost):
        stage.do(lambda connection: function(connection, held=held, **given))

    assert (stage.row(held.process_id), stage.types(held.process_id)) == (before, events)


@pytest.mark.parametrize(("word", "state"), [*product(PERSON, STATES)])
def test_what_a_person_wants_is_done_or_refused_by_state(stage: Stage, word: str, state: str) -> None:
    process = stage.create()
    stage.put(process, state)
    before, events = stage.row(process), stage.types(process)

    if state in PERSON[word]:
        after = stage.wish(word, process)
        assert after.state == stage.state(process) == PERSON[word][state]
        assert stage.audit() == [("ann", f"process.{word}")]
        assert len(stage.types(process)) == len(events) + 1
    else:
        with pytest.raises(MoveRefused, match=state):
            stage.wish(word, process)
        assert (stage.row(process), stage.types(process), stage.audit()) == (before, events, [])


def test_a_process_begins_once(stage: Stage) -> None:
    process = stage.create()
    stage.begin(process)

    again = stage.do(lambda c: service.begin(c, process_id=process, worker="other", lease=LEASE))

    assert again is None
    assert stage.row(process).worker_id == "worker-1"


@pytest.mark.parametrize("state", [state for state in STATES if state != "pending"])
def test_what_does_not_wait_does_not_begin(stage: Stage, state: str) -> None:
    process = stage.create()
    stage.put(process, state)

    assert stage.do(lambda c: service.begin(c, process_id=process, worker="w", lease=LEASE)) is None


def test_what_is_not_there_does_not_begin(stage: Stage) -> None:
    assert stage.do(lambda c: service.begin(c, process_id=new_id(), worker="w", lease=LEASE)) is None


@pytest.mark.parametrize(
    ("wishes", "heard"),
    [([], Wish.GO_ON), (["pause"], Wish.PAUSE), (["cancel"], Wish.CANCEL), (["pause", "cancel"], Wish.CANCEL),
     (["pause", "resume"], Wish.GO_ON)],
)  # fmt: skip
def test_a_run_hears_what_people_want_when_it_renews(stage: Stage, wishes: list[str], heard: Wish) -> None:
    held = stage.begin()
    for word in wishes:
        stage.wish(word, held.process_id)

    assert stage.do(lambda c: service.renew(c, held=held, lease=timedelta(hours=1))) is heard
    assert stage.row(held.process_id).lease_until > stage.row(held.process_id).heartbeat_at + timedelta(minutes=59)  # type: ignore[operator]


def test_a_run_that_lost_its_process_hears_so(stage: Stage) -> None:
    held = stage.begin()
    stage.do(lambda c: service.hand_back(c, held=held))
    stage.begin(held.process_id)

    assert stage.do(lambda c: service.renew(c, held=held, lease=LEASE)) is Wish.LOST


class TestCreating:
    def test_one_open_process_serves_one_purpose(self, stage: Stage) -> None:
        subject = new_id()
        first = stage.create(subject_id=subject)

        assert stage.create(subject_id=subject) == first
        assert stage.create(subject_id=subject, kind="orders.import") != first
        stage.wish("cancel", first)
        assert stage.create(subject_id=subject) != first
        assert stage.types(first) == ["process_created", "process_cancelled"]

    def test_a_task_taken_in_twice_is_one_process(self, stage: Stage) -> None:
        task = new_id()

        assert [stage.create(process_id=task), stage.create(process_id=task)] == [task, task]
        assert stage.types(task) == ["process_created"]

    def test_what_it_was_asked_for_stands_in_its_first_event(self, stage: Stage) -> None:
        parent = stage.create()
        process = stage.create(
            initial_request={"month": "2026-11"}, parent_id=parent, priority=2, tags=["a", "b"], total_steps=3
        )

        (event,) = stage.events(process)
        assert (event.event_type, event.sequence, event.category, event.priority) == (
            "process_created",
            1,
            "process",
            3,
        )
        assert event.data["initial_request"] == {"month": "2026-11"}
        assert event.data["parent_id"] == str(parent)
        row = stage.row(process)
        assert (row.priority, list(row.tags), row.total_steps, row.parent_id) == (2, ["a", "b"], 3, parent)

    def test_another_tenants_process_cannot_be_had_by_its_id(self, stage: Stage, other: Stage) -> None:
        theirs = other.create()

        with pytest.raises(ProcessUnknown):
            stage.create(process_id=theirs)
        for word in PERSON:
            with pytest.raises(ProcessUnknown):
                stage.wish(word, theirs)
        assert other.types(theirs) == ["process_created"]

    def test_hostile_titles_and_tags_are_made_to_fit(self, stage: Stage) -> None:
        process = stage.create(title="a\0b\ud800" + "x" * 3000, tags=["\0tag"])

        row = stage.row(process)
        assert (row.title[:3], len(row.title), list(row.tags)) == ("ab?", 500, ["tag"])

    def test_a_request_that_is_not_json_is_refused(self, stage: Stage) -> None:
        with pytest.raises(PayloadRefused, match="NUL"):
            stage.create(initial_request={"a": "\0"})


def test_what_is_below_a_process_is_cancelled_with_it(stage: Stage) -> None:
    parent = stage.create()
    child, runs, over = (stage.create(parent_id=parent) for _ in range(3))
    grandchild = stage.create(parent_id=child)
    stage.begin(runs)
    stage.put(over, "completed")

    stage.wish("cancel", parent)

    assert {name: stage.state(one) for name, one in
            {"parent": parent, "child": child, "grandchild": grandchild, "over": over, "runs": runs}.items()} == {
        "parent": "cancelled", "child": "cancelled", "grandchild": "cancelled", "over": "completed", "runs": "running",
    }  # fmt: skip
    assert stage.row(runs).cancel_requested


@pytest.mark.parametrize("word", ["pause", "cancel"])
def test_what_a_sync_moves_on_is_neither_paused_nor_cancelled_under_way(stage: Stage, word: str) -> None:
    held = stage.begin(queue=None)

    with pytest.raises(MoveRefused, match="a sync moves"):
        stage.wish(word, held.process_id)


@pytest.fixture
def other(stage: Stage) -> Stage:
    """Another tenant's processes."""
    return Stage(stage.database, plant_tenant(stage.database, f"globex beside {stage.tenant.name}"))


class TestTheLedger:
    """The row of worker.tasks of a task that was taken in follows its process."""

    @pytest.fixture
    def task(self, stage: Stage) -> UUID:
        task = new_id()
        stage.execute(
            "insert into worker.tasks (id, supabase_task_id, tenant_id, kind, queue) "
            "values (:id, gen_random_uuid(), :tenant, 'orders.export', 'tasks')",
            id=task,
            tenant=stage.tenant.tenant_id,
        )
        return stage.create(process_id=task)

    @pytest.mark.parametrize(
        ("words", "status"),
        [(["pause"], "waiting"), (["pause", "resume"], "pending"), (["cancel"], "cancelled"), ([], "pending")],
    )
    def test_it_follows_what_people_want(self, stage: Stage, task: UUID, words: list[str], status: str) -> None:
        for word in words:
            stage.wish(word, task)

        assert self.status(stage, task) == (status, None, None)

    @pytest.mark.parametrize(
        ("word", "told"),
        [("complete", ("completed", {"rows": 3}, None)), ("fail", ("failed", None, "the shop is closed")),
         ("ask", ("waiting", None, None)), ("step", ("processing", None, None)),
         ("hand back", ("pending", None, None))],
    )  # fmt: skip
    def test_it_follows_its_run(self, stage: Stage, task: UUID, word: str, told: tuple[str, Any, Any]) -> None:
        _, _, function, given = RUN[word]
        held = stage.begin(task)

        stage.do(lambda connection: function(connection, held=held, **given))

        assert self.status(stage, task) == told

    @staticmethod
    def status(stage: Stage, task: UUID) -> tuple[str, Any, Any]:
        query = text("select status, result, error_log from worker.tasks where id = :id")
        row = stage.do(lambda connection: connection.execute(query, {"id": task}).one())
        return row.status, row.result, row.error_log
