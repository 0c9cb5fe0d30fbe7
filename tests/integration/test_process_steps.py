"""What a run says of its process while it works: steps and their durations, how far it is, when it will be over."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tenantsync.processes import service
from tenantsync.processes.service import PayloadRefused
from tests.support.kept_database import database, database_url, kept_database  # noqa: F401 — fixtures
from tests.support.stage import LEASE, Stage

pytest_plugins = ["tests.support.stage_fixtures"]

AGED = "update process.processes set step_started_at = step_started_at - :by where process_id = :process"


def test_steps_bear_their_durations_their_place_and_their_results(stage: Stage) -> None:
    held = stage.begin(total_steps=4)

    stage.do(lambda c: service.start_step(c, held=held, step="read", message="reading"))
    stage.execute(AGED, by=timedelta(seconds=2), process=held.process_id)
    stage.do(lambda c: service.finish_step(c, held=held, step="read", result={"rows": 7}))
    stage.do(lambda c: service.start_step(c, held=held, step="write"))

    _, _, read, done, write = stage.events(held.process_id)
    assert read.data["message"] == "reading"
    assert read.data["progress"] == {"completed_steps": 0, "total_steps": 4, "percentage": None}
    assert done.data["result"] == {"rows": 7}
    assert 2000 <= done.data["duration_ms"] < 10_000
    assert (write.data["previous_step"], write.data["progress"]["percentage"]) == ("read", 25.0)
    row = stage.row(held.process_id)
    assert (row.step, row.completed_steps, row.percentage, row.memo) == ("write", 1, 25.0, {"read": {"rows": 7}})
    assert 2000 <= row.step_durations["read"] < 10_000


def test_a_later_attempt_finds_what_earlier_ones_finished(stage: Stage) -> None:
    held = stage.begin()
    stage.do(lambda c: service.finish_step(c, held=held, step="read", result=[1, 2]))
    stage.do(lambda c: service.finish_step(c, held=held, step="nothing", result=None))
    stage.do(lambda c: service.hand_back(c, held=held))

    again = stage.begin(held.process_id)

    assert (again.attempt, again.memo) == (2, {"read": [1, 2], "nothing": None})


def test_a_step_that_is_done_again_counts_once_and_its_time_is_added(stage: Stage) -> None:
    held = stage.begin(total_steps=2)
    for _ in range(2):
        stage.do(lambda c: service.start_step(c, held=held, step="read"))
        stage.execute(AGED, by=timedelta(seconds=1), process=held.process_id)
        stage.do(lambda c: service.finish_step(c, held=held, step="read"))

    row = stage.row(held.process_id)
    assert (row.completed_steps, row.percentage) == (1, 50.0)
    assert row.step_durations["read"] >= 2000


@pytest.mark.parametrize("result", [{"a": "\0"}, {"a": "\ud800"}, object()])
def test_a_result_that_is_not_json_is_refused_and_nothing_is_written(stage: Stage, result: Any) -> None:
    held = stage.begin()
    before = stage.row(held.process_id)

    for end in (
        lambda c: service.finish_step(c, held=held, step="read", result=result),
        lambda c: service.complete(c, held=held, result=result),
    ):
        with pytest.raises(PayloadRefused):
            stage.do(end)

    assert stage.row(held.process_id) == before


def test_a_large_result_is_kept_and_its_event_says_how_large_it_is(stage: Stage) -> None:
    held = stage.begin()

    stage.do(lambda c: service.finish_step(c, held=held, step="read", result="x" * 100_000))

    assert stage.last(held.process_id).data["result"] == {"omitted": True, "bytes": 100_002}
    assert stage.row(held.process_id).memo["read"] == "x" * 100_000


def test_progress_is_shown_by_the_row_and_tells_when_it_will_be_over(stage: Stage) -> None:
    held = stage.begin()
    stage.execute(
        "update process.processes set started_at = now() - interval '10 s' where process_id = :p", p=held.process_id
    )

    stage.do(lambda c: service.progress(c, held=held, percentage=50, message="half"))

    row, event = stage.row(held.process_id), stage.last(held.process_id)
    assert (event.event_type, event.data["percentage"], event.data["message"]) == ("progress", 50.0, "half")
    assert row.percentage == 50.0
    assert row.estimated_completion_at is not None
    left = row.estimated_completion_at - datetime.now(UTC)
    assert timedelta(seconds=5) < left < timedelta(seconds=15)


def test_what_begins_is_expected_to_take_as_long_as_its_kind_usually_works(stage: Stage) -> None:
    for seconds in (60, 120):
        held = stage.begin()
        stage.do(lambda c, held=held: service.start_step(c, held=held, step="read"))
        stage.execute(AGED, by=timedelta(seconds=seconds), process=held.process_id)
        stage.do(lambda c, held=held: service.finish_step(c, held=held, step="read"))
        stage.do(lambda c, held=held: service.complete(c, held=held))

    expected = stage.row(stage.begin().process_id).estimated_completion_at

    assert expected is not None
    assert timedelta(seconds=80) < expected - datetime.now(UTC) < timedelta(seconds=95)
    assert stage.row(stage.begin(kind="another.kind").process_id).estimated_completion_at is None


def test_a_recoverable_failure_is_tried_again_as_often_as_it_may_and_not_too_soon(stage: Stage) -> None:
    process = stage.create(max_retries=2)
    for _ in range(3):
        held = stage.begin(process)
        stage.do(
            lambda c, held=held: service.fail(
                c, held=held, error="busy", recoverable=True, retry_after=timedelta(minutes=5)
            )
        )
        row = stage.row(process)

    assert (row.state, row.retry_count, row.error, row.attempt) == ("failed", 2, "busy", 3)
    errors = [event.data["error_type"] for event in stage.events(process) if event.event_type == "process_error"]
    assert errors == ["recoverable", "recoverable", "fatal"]


def test_a_retry_rests_until_its_moment(stage: Stage) -> None:
    held = stage.begin()

    stage.do(lambda c: service.fail(c, held=held, error="x", recoverable=True, retry_after=timedelta(minutes=5)))

    rests = stage.row(held.process_id).lease_until
    assert rests is not None
    assert timedelta(minutes=4) < rests - datetime.now(UTC) <= timedelta(minutes=5)


def test_a_failures_text_is_made_to_fit(stage: Stage) -> None:
    held = stage.begin()

    stage.do(lambda c: service.fail(c, held=held, error="a\0b\ud800" + "x" * 5000))

    assert stage.row(held.process_id).error == "ab?" + "x" * 1997


def test_a_pause_survives_the_worker_and_what_was_done_is_not_done_again(stage: Stage) -> None:
    held = stage.begin(total_steps=2)
    stage.do(lambda c: service.finish_step(c, held=held, step="read", result=1))
    stage.wish("pause", held.process_id)
    stage.do(lambda c: service.pause_here(c, held=held))

    stage.wish("resume", held.process_id)
    again = stage.begin(held.process_id)
    stage.do(lambda c: service.finish_step(c, held=again, step="write", result=2))
    stage.do(lambda c: service.complete(c, held=again, result={"rows": 3}))

    row = stage.row(held.process_id)
    assert (row.state, row.memo, row.result, row.percentage) == (
        "completed",
        {"read": 1, "write": 2},
        {"rows": 3},
        100.0,
    )
    assert [one for one in stage.types(held.process_id) if one.startswith("process_")] == [
        "process_created",
        "process_paused",
        "process_resumed",
        "process_completed",
    ]


def test_numbers_follow_one_another_whatever_happens(stage: Stage) -> None:
    held = stage.begin()
    question = stage.ask(held)
    stage.answer(question, 0)
    again = stage.begin(held.process_id)
    stage.do(lambda c: service.renew(c, held=again, lease=LEASE))
    stage.do(lambda c: service.complete(c, held=again))

    events = stage.events(held.process_id)

    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert all(one.created_at <= two.created_at for one, two in pairwise(events))
    assert stage.row(held.process_id).last_sequence == len(events)
