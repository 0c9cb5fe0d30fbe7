"""People in the loop: asked once, answered once by what the question allows, reminded of, and over in time."""

from typing import Any

import pytest

from db.ids import new_id
from tenantsync.processes import service
from tenantsync.processes.service import AlreadyAnswered, InvalidAnswer, NewQuestion, NotFound
from tests.support.kept_database import database, database_url, kept_database  # noqa: F401 — fixtures
from tests.support.mirror import plant_tenant
from tests.support.stage import WHICH, Stage

pytest_plugins = ["tests.support.stage_fixtures"]

THEMES = NewQuestion(
    "theme", "SELECT_THEME", options=[{"id": 7, "title": "Wood"}, {"id": 9, "title": "Stone"}], actions=["regenerate"]
)
OUTLINE = NewQuestion(
    "outline",
    "EDIT",
    answer_schema={"type": "object", "properties": {"words": {"type": "integer", "minimum": 1}}, "required": ["words"]},
)
RED = {"selected_index": 0, "selected": {"index": 0, "title": "red", "value": "red"}}
STONE = {"selected_index": 1, "selected": {"index": 1, "id": 9, "title": "Stone"}}


def test_a_question_stops_its_process_until_somebody_answers(stage: Stage) -> None:
    held = stage.begin()

    question = stage.ask(held)
    waiting = stage.row(held.process_id)
    after = stage.answer(question, {"selected_index": 0})

    assert (waiting.state, waiting.lease_until) == ("waiting", None)
    assert after.state == stage.state(held.process_id) == "pending"
    answered = stage.question(question.question_id)
    assert (answered.state, answered.answer, answered.answered_by) == ("answered", RED, "ann")
    asked, received = stage.events(held.process_id)[-2:]
    assert (asked.event_type, asked.category, asked.priority) == ("user_input_required", "interaction", 1)
    assert [option["title"] for option in asked.data["options"]] == ["red", "green"]
    assert asked.data["additional_actions"] == ["skip"]
    assert (received.event_type, received.source) == ("user_input_received", "person")
    assert received.data["selected"]["value"] == "red"
    assert stage.audit() == [("ann", "process.answer")]


@pytest.mark.parametrize(
    ("question", "answer", "kept"),
    [
        (WHICH, 0, RED),
        (WHICH, "red", RED),
        (WHICH, {"selected": "red"}, RED),
        (WHICH, {"index": 0}, RED),
        (WHICH, {"action": "skip"}, {"action": "skip"}),
        (THEMES, {"selected_id": 9}, STONE),
        (THEMES, 9, STONE),
        (THEMES, 1, STONE),
        (THEMES, {"action": "regenerate", "hint": "more wood"}, {"action": "regenerate", "hint": "more wood"}),
        (OUTLINE, {"words": 800}, {"words": 800}),
        (NewQuestion("any", "TEXT"), "what you like", "what you like"),
        (NewQuestion("any", "TEXT"), False, False),
    ],
)
def test_an_answer_that_the_question_allows_is_kept(
    stage: Stage, question: NewQuestion, answer: Any, kept: Any
) -> None:
    asked = stage.ask(question=question)

    stage.answer(asked, answer)

    assert stage.question(asked.question_id).answer == kept


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (WHICH, 2), (WHICH, -1), (WHICH, 10**30), (WHICH, True), (WHICH, "blue"), (WHICH, None), (WHICH, {}),
        (WHICH, []), (WHICH, {"selected_index": "0"}), (WHICH, {"selected_index": 0.0}), (WHICH, {"action": "burn"}),
        (WHICH, {"selected": ["red"]}), (THEMES, {"selected_id": "9"}), (OUTLINE, {"words": 0}), (OUTLINE, {}),
        (OUTLINE, "words"), (NewQuestion("any", "TEXT"), None), (NewQuestion("any", "TEXT"), "a\0b"),
        (NewQuestion("any", "TEXT"), "\ud800"), (NewQuestion("any", "TEXT"), "x" * 300_000),
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_an_answer_that_the_question_does_not_allow_is_refused_and_the_question_stays(
    stage: Stage, question: NewQuestion, answer: Any
) -> None:
    asked = stage.ask(question=question)
    before = stage.types(asked.process_id)

    with pytest.raises(InvalidAnswer) as refused:
        stage.answer(asked, answer)

    assert "x" * 20 not in str(refused.value)
    assert (stage.state(asked.process_id), stage.types(asked.process_id)) == ("waiting", before)
    assert stage.question(asked.question_id).state == "open"
    assert stage.audit() == []


@pytest.mark.parametrize("reference", ["http://127.0.0.1:1/schema.json", "#/none", "#"])
def test_a_schema_that_leads_nowhere_takes_no_answer_and_fetches_nothing(stage: Stage, reference: str) -> None:
    asked = stage.ask(question=NewQuestion("x", "EDIT", answer_schema={"$ref": reference}))

    with pytest.raises(InvalidAnswer, match="leads nowhere"):
        stage.answer(asked, {"a": 1})


def test_a_second_answer_is_refused(stage: Stage) -> None:
    asked = stage.ask()
    stage.answer(asked, 0)

    with pytest.raises(AlreadyAnswered, match="answered"):
        stage.answer(asked, 1)

    assert stage.question(asked.question_id).answer == RED


def test_questions_that_are_not_there_or_anothers_are_not_found(stage: Stage) -> None:
    asked = stage.ask()
    other = Stage(stage.database, plant_tenant(stage.database, "globex who is nosy"))

    for tenant, process, question in (
        (other.tenant, asked.process_id, asked.question_id),
        (stage.tenant, stage.create(), asked.question_id),
        (stage.tenant, asked.process_id, new_id()),
        (stage.tenant, new_id(), asked.question_id),
    ):
        with pytest.raises(NotFound):
            stage.do(
                lambda c, t=tenant, p=process, q=question: service.answer(
                    c, tenant_id=t.tenant_id, process_id=p, question_id=q, answer=0, by="mallory"
                )
            )
    assert stage.question(asked.question_id).state == "open"


def test_a_name_is_asked_once_and_a_later_run_finds_the_answer(stage: Stage) -> None:
    first = stage.ask()
    stage.answer(first, 0)
    held = stage.begin(first.process_id)

    again = stage.ask(held)

    assert (again.question_id, again.answer) == (first.question_id, RED)
    assert stage.state(first.process_id) == "running"
    assert stage.types(first.process_id).count("user_input_required") == 1


@pytest.mark.parametrize(
    "question",
    [
        NewQuestion("x", "X", answer_schema={"type": "no such type"}),
        NewQuestion("x", "X", options=["a"], default_answer="b"),
        NewQuestion("x", "X", options=[str(n) for n in range(201)]),
        NewQuestion("x", "X", options=["a\0"]),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(stage: Stage, question: NewQuestion) -> None:
    held = stage.begin()

    with pytest.raises(ValueError):
        stage.ask(held, question)

    assert stage.state(held.process_id) == "running"


def test_a_paused_process_takes_its_answer_and_stays_paused(stage: Stage) -> None:
    asked = stage.ask()
    stage.wish("pause", asked.process_id)

    stage.answer(asked, 1)

    assert stage.state(asked.process_id) == "paused"
    stage.wish("resume", asked.process_id)
    assert stage.ask(stage.begin(asked.process_id)).answer["selected_index"] == 1


def test_a_paused_question_is_asked_on_after_the_resume(stage: Stage) -> None:
    asked = stage.ask()
    stage.wish("pause", asked.process_id)
    stage.wish("resume", asked.process_id)

    again = stage.ask(stage.begin(asked.process_id))

    assert again.question_id == asked.question_id
    assert stage.state(asked.process_id) == "waiting"
    assert stage.answer(again, 0).state == "pending"


def test_a_cancelled_process_withdraws_its_question(stage: Stage) -> None:
    asked = stage.ask()

    stage.wish("cancel", asked.process_id)

    assert stage.question(asked.question_id).state == "withdrawn"
    assert stage.types(asked.process_id)[-2:] == ["input_withdrawn", "process_cancelled"]
    with pytest.raises(AlreadyAnswered, match="withdrawn"):
        stage.answer(asked, 0)


def test_an_answer_ends_what_nothing_runs(stage: Stage) -> None:
    asked = stage.ask(stage.begin(queue=None))

    after = stage.answer(asked, {"action": "skip"})

    assert (after.state, stage.row(asked.process_id).result) == ("completed", {"answer": {"action": "skip"}})
