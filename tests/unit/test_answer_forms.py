"""Questions as forms, and what was filled in as answers."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from db.repositories.questions import QuestionRow
from tenantsync.processes.values import InvalidAnswer
from tenantsync.web.pages.forms import as_form, read_answer

SIMPLE = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "title": "Your name"},
        "age": {"type": "integer"},
        "height": {"type": "number"},
        "agreed": {"type": "boolean"},
        "colour": {"enum": ["red", "green"]},
    },
    "required": ["name"],
}


def question(**values: Any) -> QuestionRow:
    given: dict[str, Any] = {
        "question_id": uuid4(), "process_id": uuid4(), "tenant_id": uuid4(), "name": "q", "input_type": "x",
        "prompt": "", "options": (), "actions": (), "answer_schema": None, "state": "open",
        "asked_at": datetime.now(UTC), "remind_at": None, "reminded_at": None, "expires_at": None,
        "default_answer": None, "answer": None, "answered_by": None, "answered_at": None,
    }  # fmt: skip
    return QuestionRow(**(given | values))


def filled(asked: QuestionRow, **given: str) -> Any:
    return read_answer(asked, given, {name: [value] for name, value in given.items()})


def test_options_are_shown_by_their_titles_and_chosen_by_their_index() -> None:
    asked = question(options=[{"title": "Red", "description": "warm", "index": 0}, {"value": 7, "index": 1}])

    form = as_form(asked)

    assert [(one.title, one.note) for one in form.choices] == [("Red", "warm"), ("7", "")]
    assert filled(asked, choice="1") == {"selected_index": 1}


@pytest.mark.parametrize("given", [{}, {"choice": ""}, {"choice": "x"}, {"choice": "1.5"}])
def test_no_choice_is_no_answer(given: dict[str, str]) -> None:
    with pytest.raises(InvalidAnswer):
        filled(question(options=[{"title": "Red", "index": 0}]), **given)


def test_an_action_wins_over_everything_else() -> None:
    assert filled(question(options=[{"index": 0}], actions=["skip"]), action="skip", choice="0") == {"action": "skip"}


def test_a_schema_of_simple_fields_becomes_inputs_and_their_values() -> None:
    asked = question(answer_schema=SIMPLE)

    kinds = {one.name: one.kind for one in as_form(asked).inputs}
    answer = read_answer(
        asked,
        {"field.name": "Ann", "field.age": "41", "field.height": "1.7", "field.colour": "red"},
        {"field.name": ["Ann"]},
    )

    assert kinds == {"name": "text", "age": "integer", "height": "number", "agreed": "boolean", "colour": "select"}
    assert answer == {"name": "Ann", "age": 41, "height": 1.7, "agreed": False, "colour": "red"}


@pytest.mark.parametrize("field", ["field.age", "field.height"])
def test_what_should_be_a_number_and_is_none_is_refused(field: str) -> None:
    with pytest.raises(InvalidAnswer):
        filled(question(answer_schema=SIMPLE), **{field: "many"})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"deep": {"type": "object"}}},
        {"type": "array"},
        {"type": "object", "properties": {"x": {"enum": [1, 2]}}},
        {"type": "object", "properties": {"x": {"type": ["string", "null"]}}},
        {"type": "object", "properties": "nonsense"},
        {"type": "object", "properties": {f"f{n}": {"type": "string"} for n in range(21)}},
    ],
)
def test_any_other_schema_is_answered_in_json(schema: dict[str, Any]) -> None:
    asked = question(answer_schema=schema)

    assert as_form(asked).free == "json"
    assert filled(asked, answer=' {"deep": [1]} ') == {"deep": [1]}
    for wrong in ("", "{", "[" * 5000):
        with pytest.raises(InvalidAnswer):
            filled(asked, answer=wrong)


@pytest.mark.parametrize("schema", [None, {"type": "string", "maxLength": 5}])
def test_without_anything_to_choose_from_a_text_is_the_answer(schema: dict[str, Any] | None) -> None:
    assert filled(question(answer_schema=schema), answer=" yes ") == "yes"
