"""Numbers, answers and beginnings with eight operating-system processes at once."""

from collections import Counter
from itertools import pairwise
from uuid import UUID

import pytest

from tests.support import writers
from tests.support.kept_database import database, database_url, kept_database  # noqa: F401 — fixtures
from tests.support.stage import Stage
from tests.support.waiting import wait_until

pytest_plugins = ["tests.support.stage_fixtures"]

EIGHT = 8
EACH = 45


@pytest.fixture
def process(stage: Stage) -> UUID:
    return stage.create()


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("one", dict.fromkeys(range(EACH), 1)),
        ("mixed", {number: 3 if number % 4 == 3 else 1 for number in range(EACH) if number % 4 != 2}),
    ],
)
def test_numbers_have_no_gaps_and_none_comes_twice_whoever_writes(
    stage: Stage,
    process: UUID,
    database_url: str,  # noqa: F811
    how: str,
    expected: dict[int, int],
) -> None:
    with writers.writers(EIGHT) as pool:
        work = [
            pool.submit(writers.write, database_url, stage.tenant.tenant_id, process, writer, EACH, how)
            for writer in range(EIGHT)
        ]
        for one in work:
            one.result(60)

    events = stage.events(process)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert all(one.created_at <= two.created_at for one, two in pairwise(events))
    assert len({event.event_id for event in events}) == len(events)
    for writer in range(EIGHT):
        own = Counter(event.data["number"] for event in events if event.data.get("writer") == writer)
        assert {number: own[number] for number in expected} == expected
        one_at_a_time = [
            event.data["number"]
            for event in events
            if event.data.get("writer") == writer and event.event_type == "section_completed"
        ]
        assert one_at_a_time == sorted(one_at_a_time)


def test_of_eight_answers_one_is_taken(stage: Stage, database_url: str) -> None:  # noqa: F811
    asked = stage.ask()

    with writers.writers(EIGHT) as pool:
        work = [
            pool.submit(
                writers.answer, database_url, stage.tenant.tenant_id, asked.process_id, asked.question_id, writer
            )
            for writer in range(EIGHT)
        ]
        taken = [one.result(60) for one in work]

    assert taken.count(True) == 1
    question = stage.question(asked.question_id)
    assert (question.state, question.answered_by) == ("answered", f"person-{taken.index(True)}")
    assert stage.types(asked.process_id).count("user_input_received") == 1
    assert len(stage.audit()) == 1


def test_of_eight_workers_one_begins(stage: Stage, process: UUID, database_url: str) -> None:  # noqa: F811
    with writers.writers(EIGHT) as pool:
        work = [
            pool.submit(writers.begin, database_url, stage.tenant.tenant_id, process, writer) for writer in range(EIGHT)
        ]
        attempts = [one.result(60) for one in work]

    assert sorted(attempts, key=str) == [1] + [None] * 7
    assert stage.types(process) == ["process_created", "state_updated"]


def test_snapshots_of_eight_writers_come_no_oftener_than_those_of_one(
    stage: Stage,
    process: UUID,
    database_url: str,  # noqa: F811
) -> None:
    with writers.writers(EIGHT) as pool:
        work = [
            pool.submit(writers.report, database_url, stage.tenant.tenant_id, process, writer, 1.0)
            for writer in range(EIGHT)
        ]
        sent = [one.result(60) for one in work]
    finals = {f"{writer}:{count}" for writer, count in enumerate(sent)}
    wait_until(lambda: writers.flushed(stage, process, finals), about="the last snapshot")

    shown = [event.created_at for event in stage.events(process) if event.event_type == "progress"]
    assert sum(sent) > 20 * len(shown)
    assert 4 <= len(shown) <= 1.0 / 0.2 + 4
    assert min(writers.spread(shown)) >= 0.19


def test_the_last_snapshot_of_a_writer_that_is_killed_arrives(
    stage: Stage,
    process: UUID,
    database_url: str,  # noqa: F811
) -> None:
    ended = writers.killed(writers.report_and_die, database_url, stage.tenant.tenant_id, process)
    at_once = [event.data["message"] for event in stage.events(process)[1:]]

    wait_until(lambda: writers.flushed(stage, process, {"last words"}), about="the wake-up that finds it")

    assert (ended, at_once) == (-9, ["first"])
