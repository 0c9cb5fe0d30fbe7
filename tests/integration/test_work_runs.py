"""Runs of tasks: whatever a handler does ends in a clear state, and what was done is not done again."""

import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from db.repositories import questions
from tenantsync.processes import service as processes
from tenantsync.work.handlers import TaskFailed
from tenantsync.work.run import Run
from tests.support.desk import Desk, Letter, returning
from tests.support.fleet import TenantHandle
from tests.support.logs import captured_logs
from tests.support.shared_database import database_url, shared_database
from tests.support.waiting import wait_until

pytest_plugins = ["tests.support.supabase_fixtures", "tests.support.desk_fixtures"]
__all__ = ["database_url", "shared_database"]

pytestmark = pytest.mark.timeout(300)

LOST = "update process.processes set lease_until = now() - interval '1 second' where state = 'running'"


class Stamp(BaseModel):
    value: float


# What a handler returns


@pytest.mark.parametrize(
    ("made", "kept"),
    [
        ({"a": [1, "ü", None, True]}, {"a": [1, "ü", None, True]}),
        (Stamp(value=2), {"value": 2.0}),
        (None, None),
        ({"tuple": (1, 2)}, {"tuple": [1, 2]}),
    ],
    ids=["a mapping", "a model", "nothing", "a tuple inside"],
)
def test_a_result_that_is_json_is_kept(desk: Desk, asker: TenantHandle, made: Any, kept: Any) -> None:
    returning(desk.handlers, "letters.give", lambda: made)

    seen = desk.done(desk.ask(asker, "letters.give"))

    assert (seen["status"], seen["result"]) == ("completed", kept)


def endless() -> dict[str, Any]:
    inner: dict[str, Any] = {}
    inner["again"] = inner
    return inner


NOT_JSON: list[tuple[str, Callable[[], Any], str]] = [
    ("a list", lambda: [1], "the result is a list: it should be a mapping or a model"),
    ("a moment", lambda: {"at": datetime(2026, 1, 1, tzinfo=UTC)}, "the result.at is a datetime, which is not JSON"),
    ("bytes in a list", lambda: {"a": [b"x"]}, "the result.a[0] is a bytes"),
    ("not a number", lambda: {"a": math.nan}, "the result.a is nan"),
    ("infinity in a model", lambda: Stamp(value=math.inf), "the result.value is inf"),
    ("NUL", lambda: {"a": "x\x00"}, "the result.a holds a NUL character"),
    ("half a character", lambda: {"a": "\udc00"}, "the result.a holds half of a character"),
    ("a huge number", lambda: {"a": 2**64}, "the result.a is a number of more than 64 bits"),
    ("a key that is no text", lambda: {1: 2}, "the result has a key that is a int"),
    ("itself", endless, "the result is nested deeper than 64 levels"),
    ("a lot", lambda: {"a": "x" * 1_100_000}, "the result is 1100008 bytes of JSON"),
    ("a set under somebody's text", lambda: {"Bob's secret": {1}}, "the result.… is a set"),
]


@pytest.mark.parametrize(("make", "reason"), [one[1:] for one in NOT_JSON], ids=[one[0] for one in NOT_JSON])
def test_a_result_that_is_not_json_fails_the_task(
    desk: Desk, asker: TenantHandle, make: Callable[[], Any], reason: str
) -> None:
    returning(desk.handlers, "letters.give", make)

    seen = desk.done(desk.ask(asker, "letters.give"))

    assert (seen["status"], seen["result"]) == ("failed", None)
    assert seen["error_message"].startswith(reason)


# What a handler raises


def test_a_failure_that_is_meant_for_people_is_told(desk: Desk, asker: TenantHandle) -> None:
    seen = desk.done(desk.ask(asker, "letters.refuse"))

    assert (seen["status"], seen["error_message"]) == ("failed", "TaskFailed: the post office is closed")


def test_an_exception_is_told_by_its_type_alone_and_logged_by_its_place(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker, "letters.crash")

    with captured_logs(desk.fleet.settings) as log:
        seen = desk.done(asked)

    assert seen["status"] == "failed"
    assert seen["error_message"].startswith("KeyError: the handler of letters.crash failed")
    assert "Kanarienvogel" not in seen["error_message"] + log.getvalue()
    assert "desk.py:" in log.getvalue()


def test_a_handler_that_declares_retries_gets_them(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker, "letters.crash")

    desk.done(asked)

    assert desk.calls == ["crash"] * 3
    assert (desk.process(asked)["retry_count"], desk.process(asked)["attempt"]) == (2, 3)
    assert desk.events(asked).count("process_error") == 3


def test_a_retry_waits_longer_each_time(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker, "letters.crash")
    desk.take_in()
    desk.worker()

    desk.run(desk.hand_out()[0], retry_delay=timedelta(minutes=2))

    waits = desk.process(asked)["lease_until"] - datetime.now(UTC)
    assert timedelta(seconds=100) < waits <= timedelta(minutes=2)
    assert desk.hand_out() == []
    assert desk.task(asked)["status"] == "pending"


def test_a_failure_that_is_final_is_not_tried_again(desk: Desk, asker: TenantHandle) -> None:
    @desk.handlers.handler("letters.final", retries=5)
    def final(_: Letter, run: Run) -> None:
        desk.calls.append("final")
        raise TaskFailed("there is no such street", final=True)

    assert desk.done(desk.ask(asker, "letters.final"))["status"] == "failed"
    assert desk.calls == ["final"]


@pytest.mark.parametrize(
    "error", [SystemExit(3), RecursionError("x"), MemoryError()], ids=lambda one: type(one).__name__
)
def test_a_handler_that_gives_up_on_everything_fails_alone(desk: Desk, asker: TenantHandle, error: Any) -> None:
    @desk.handlers.handler("letters.exit")
    def leave(_: Letter, run: Run) -> None:
        raise error

    assert desk.done(desk.ask(asker, "letters.exit"))["error_message"].startswith(type(error).__name__)


def test_a_handler_that_is_gone_by_the_time_of_the_run_fails_the_task(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker)
    desk.take_in()
    desk.handlers._by_kind.pop("letters.write")

    desk.work()

    assert desk.task(asked)["error_log"].startswith("nobody handles tasks of the kind 'letters.write'")


def test_a_step_that_returns_what_is_not_json_fails_the_task(desk: Desk, asker: TenantHandle) -> None:
    @desk.handlers.handler("letters.step")
    def step(_: Letter, run: Run) -> None:
        run.step("seal", lambda: {1, 2})

    asked = desk.ask(asker, "letters.step")

    assert desk.done(asked)["error_message"] == "the result of the step seal is a set, which is not JSON"
    assert desk.steps(asked)["seal"]["success"] is False


def test_two_steps_of_one_name_are_a_mistake_that_is_told(desk: Desk, asker: TenantHandle) -> None:
    @desk.handlers.handler("letters.twice")
    def twice(_: Letter, run: Run) -> None:
        run.step("fold", lambda: 1)
        run.step("fold", lambda: 2)

    message = desk.done(desk.ask(asker, "letters.twice"))["error_message"]

    assert message == "Misused: the name 'fold' is used twice in a run: number the steps of a loop"


# What takes too long, and what dies


def test_a_handler_that_hangs_is_failed_in_time_and_writes_nothing_any_more(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker, "letters.hang")
    desk.take_in()
    thread = threading.Thread(target=desk.work)
    thread.start()

    wait_until(lambda: desk.task(asked)["status"] == "failed", about="the end of a run that hangs", longest=6)
    thread.join()

    assert desk.task(asked)["error_log"] == "did not finish within 1 s"
    assert desk.calls == ["still there"]
    assert desk.task(asked)["result"] is None


def test_steps_that_were_done_are_not_done_again_after_a_crash(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker, "letters.steps")
    desk.take_in()
    died = Died(desk, after=2)
    desk.worker()

    with pytest.raises(Died):
        desk.run(desk.hand_out()[0], stop=died.stop)
    desk.fleet.execute(LOST)
    desk.tend()
    desk.work()

    assert desk.task(asked)["result"] == {"done": [0, 1, 2]}
    assert desk.calls == ["0", "1", "2"]
    assert desk.process(asked)["attempt"] == 2


class Died(BaseException):
    """Ends a run as a killed worker does: nothing is written after it. Raised at a step's boundary."""

    def __init__(self, desk: Desk, *, after: int) -> None:
        super().__init__()
        self.desk, self.after = desk, after

    def stop(self) -> float | None:
        if threading.current_thread() is threading.main_thread() and len(self.desk.calls) >= self.after:
            raise self
        return None


def test_a_task_that_kills_its_worker_again_and_again_fails_and_says_so(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker, "letters.steps")
    desk.take_in()
    for _ in range(4):
        desk.worker()
        with pytest.raises(Died):
            desk.run(desk.hand_out()[0], stop=Died(desk, after=0).stop)
        desk.fleet.execute(LOST)
        desk.tend()

    assert desk.task(asked)["status"] == "failed"
    assert "its worker was lost" in desk.task(asked)["error_log"]
    assert "for the 4. time" in desk.task(asked)["error_log"]
    assert desk.calls == []


def test_a_zombie_writes_nothing_once_somebody_else_runs_its_task(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker, "letters.zombie")
    outcomes: list[str | None] = []

    @desk.handlers.handler("letters.zombie")
    def zombie(_: Letter, run: Run) -> dict[str, Any]:
        if run.attempt == 1:
            desk.fleet.execute(LOST)
            desk.tend()
            outcomes.append(desk.run(run.task_id))
        return {"attempt": run.attempt}

    desk.take_in()
    outcomes += desk.work()

    assert outcomes == ["completed", "lost"]
    assert desk.task(asked)["result"] == {"attempt": 2}


def test_a_worker_that_is_told_to_stop_hands_its_task_back_between_two_steps(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker, "letters.steps")
    desk.take_in()
    desk.worker()

    outcome = desk.run(desk.hand_out()[0], stop=lambda: 9.0 if len(desk.calls) == 1 else None)

    assert outcome == "stopped"
    assert (desk.task(asked)["status"], desk.process(asked)["retry_count"]) == ("pending", 0)
    assert desk.work() == ["completed"]
    assert desk.calls == ["0", "1", "2"]


def test_a_worker_whose_grace_is_over_hands_back_what_does_not_stop(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker, "letters.deaf")

    @desk.handlers.handler("letters.deaf")
    def deaf(_: Letter, run: Run) -> dict[str, Any]:
        if run.attempt == 1:
            wait_until(lambda: desk.task(asked)["status"] == "pending", about="the handing back")
        return {"attempt": run.attempt}

    desk.take_in()
    desk.worker()

    assert desk.run(desk.hand_out()[0], stop=lambda: 0.0) == "lost"
    assert desk.work() == ["completed"]
    assert desk.task(asked)["result"] == {"attempt": 2}


# Cancelling


def test_a_task_that_is_cancelled_before_it_is_taken_in_is_never_run(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker)
    desk.wants_cancelled(asked)

    seen = desk.done(asked)

    assert (seen["status"], seen["error_message"]) == ("cancelled", "cancelled before it was taken in")
    assert desk.fleet.rows("select * from process.processes") == []


def test_a_task_that_waits_for_a_worker_is_cancelled_at_once(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker)
    desk.take_in()
    desk.bring_back()
    desk.wants_cancelled(asked)

    assert desk.done(asked)["status"] == "cancelled"
    assert desk.steps(asked) == {}


def test_a_task_that_runs_is_cancelled_at_its_next_step(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker, "letters.long")

    @desk.handlers.handler("letters.long")
    def long(_: Letter, run: Run) -> None:
        run.step("first", lambda: _cancel(desk, asked))
        run.step("second", lambda: desk.calls.append("second"))

    desk.take_in()
    desk.bring_back()

    assert desk.work() == ["cancelled"]
    assert desk.calls == []
    desk.bring_back()
    assert desk.seen(asked)["status"] == "cancelled"


def _cancel(desk: Desk, asked: UUID) -> None:
    desk.bring_back()
    desk.wants_cancelled(asked)
    assert desk.take_in()["cancelled"] == 1
    assert desk.take_in()["cancelled"] == 0


def test_a_step_that_looks_whether_it_is_still_wanted_hears_it_within_a_second(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker, "letters.look")

    @desk.handlers.handler("letters.look")
    def look(_: Letter, run: Run) -> None:
        _cancel(desk, asked)
        wait_until(lambda: run.cancelled, about="hearing of it", longest=2.5)
        run.checkpoint()

    desk.take_in()

    assert desk.work() == ["cancelled"]


def test_a_task_that_waits_for_a_person_is_cancelled_with_its_question(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker, "letters.ask")
    assert desk.done(asked)["status"] == "waiting"
    desk.wants_cancelled(asked)

    assert desk.done(asked)["status"] == "cancelled"
    assert "input_withdrawn" in desk.events(asked)


def test_a_paused_task_is_cancelled(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker)
    desk.take_in()
    wish(desk, asked, processes.pause)
    desk.bring_back()
    desk.wants_cancelled(asked)

    assert desk.done(asked)["status"] == "cancelled"


def test_a_wish_that_comes_too_late_changes_nothing(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker)
    desk.take_in()
    desk.work()
    desk.wants_cancelled(asked)  # Supabase does not know yet that it is over

    seen = desk.done(asked)

    assert (seen["status"], seen["result"]) == ("completed", {"text": "", "copies": 1})


def wish(desk: Desk, asked: UUID, act: Callable[..., object]) -> None:
    with desk.database.transaction() as connection:
        act(connection, tenant_id=desk.task(asked)["tenant_id"], process_id=desk.id_of(asked), by="ann")


# People in the loop


def test_a_task_that_asks_a_person_goes_on_after_the_answer(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker, "letters.ask")

    assert desk.done(asked)["status"] == "waiting"
    answer(desk, asked, 1)
    seen = desk.done(asked)

    assert (seen["status"], seen["result"]) == ("completed", {"paper": "blue"})
    assert desk.calls == ["before", "after"]
    assert "user_input_required" in desk.events(asked)
    assert "user_input_received" in desk.events(asked)


def answer(desk: Desk, asked: UUID, chosen: int) -> None:
    about = {"tenant_id": desk.task(asked)["tenant_id"], "process_id": desk.id_of(asked)}
    with desk.database.transaction() as connection:
        question = questions.named(connection, name="paper", **about)
        assert question is not None
        processes.answer(
            connection, question_id=question.question_id, answer={"selected_index": chosen}, by="ann", **about
        )


def test_a_question_that_nobody_answers_in_time_fails_the_task(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker, "letters.ask")
    desk.done(asked)
    desk.fleet.execute("update process.questions set expires_at = now()")

    desk.tend()

    assert desk.done(asked)["error_message"] == "nobody answered 'paper' in time"


def test_a_task_that_is_paused_goes_on_where_it_stopped(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker, "letters.rest")

    @desk.handlers.handler("letters.rest")
    def rest(_: Letter, run: Run) -> dict[str, Any]:
        run.step("first", lambda: wish(desk, asked, processes.pause) or desk.calls.append("first"))
        run.step("second", lambda: desk.calls.append("second"))
        return {"attempt": run.attempt}

    assert desk.done(asked)["status"] == "waiting"
    assert desk.work() == []
    wish(desk, asked, processes.resume)

    assert desk.done(asked)["result"] == {"attempt": 2}
    assert desk.calls == ["first", "second"]


# What a run says


def test_a_run_logs_what_it_wants_and_shows_how_far_it_is(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker, "letters.chatty")

    @desk.handlers.handler("letters.chatty")
    def chatty(_: Letter, run: Run) -> None:
        run.log("stamps bought", {"stamps": 3})
        for number in range(1, 51):
            run.progress(number, 50, "writing")
        run.publish("section_chunk", {"section_index": 0, "chunk": "Dear"})

    desk.done(asked)

    assert desk.steps(asked)["stamps bought"]["details"] == {"stamps": 3}
    assert desk.process(asked)["percentage"] == 100
    events = desk.events(asked)
    assert events.count("progress") < 10
    assert events.index("section_chunk") < events.index("process_completed")
