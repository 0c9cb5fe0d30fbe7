"""A question as a form, and its answer as the value that processes take."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from db.repositories.questions import QuestionRow
from tenantsync.processes.values import InvalidAnswer

SIMPLE = ("string", "integer", "number", "boolean")


@dataclass(frozen=True, slots=True)
class Choice:
    """An option."""

    index: int
    title: str
    note: str


@dataclass(frozen=True, slots=True)
class Input:
    """A field of an answer. `kind`: text, integer, number, boolean or select."""

    name: str
    label: str
    kind: str
    required: bool
    choices: tuple[str, ...]
    note: str


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """What a person fills in. Where there is neither a choice nor an input, any text is an answer."""

    question: QuestionRow
    choices: tuple[Choice, ...]
    inputs: tuple[Input, ...]
    actions: tuple[str, ...]
    free: str
    """text, json, or nothing"""


def as_form(question: QuestionRow) -> AnswerForm:
    """The form for a question."""
    choices = tuple(_choice(one, number) for number, one in enumerate(question.options))
    inputs = () if choices else _inputs(question.answer_schema)
    free = (
        "" if choices or inputs else "json" if question.answer_schema is not None and not _is_text(question) else "text"
    )
    return AnswerForm(question, choices, inputs, tuple(question.actions), free)


def _is_text(question: QuestionRow) -> bool:
    return (question.answer_schema or {}).get("type") == "string"


def _choice(option: Mapping[str, Any], number: int) -> Choice:
    title = next(
        (option[name] for name in ("title", "label", "name", "value", "id") if option.get(name) is not None), ""
    )
    note = next((option[name] for name in ("description", "reason", "summary") if option.get(name) is not None), "")
    return Choice(int(option.get("index", number)), _said(title), _said(note))


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _inputs(schema: Mapping[str, Any] | None) -> tuple[Input, ...]:
    """Fields for an object of simple properties; nothing for any other schema."""
    properties = (schema or {}).get("properties")
    if not isinstance(properties, Mapping) or not properties or len(properties) > 20:
        return ()
    required = schema.get("required", ()) if schema else ()
    made = []
    for name, about in properties.items():
        if not isinstance(about, Mapping) or not ("enum" in about or about.get("type") in SIMPLE):
            return ()
        if "enum" in about and not all(isinstance(one, str) for one in about["enum"]):
            return ()
        kind = "select" if "enum" in about else "text" if about["type"] == "string" else str(about["type"])
        made.append(
            Input(
                str(name),
                _said(about.get("title") or name),
                kind,
                name in required,
                tuple(about.get("enum", ())),
                _said(about.get("description") or ""),
            )
        )
    return tuple(made)


def read_answer(question: QuestionRow, given: Mapping[str, str], several: Mapping[str, Sequence[str]]) -> Any:
    """The answer that a form was filled in with. Raises InvalidAnswer."""
    form = as_form(question)
    if given.get("action"):
        return {"action": given["action"]}
    if form.choices:
        return {"selected_index": _integer(given.get("choice", ""))}
    if form.inputs:
        return {one.name: _value(one, given[f"field.{one.name}"]) for one in form.inputs if _filled(one, given)} | {
            one.name: f"field.{one.name}" in several for one in form.inputs if one.kind == "boolean"
        }
    text = given.get("answer", "").strip()
    if not text:
        raise InvalidAnswer("the answer is empty")
    if form.free == "json":
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise InvalidAnswer("the answer is not JSON") from None
    return text


def _filled(one: Input, given: Mapping[str, str]) -> bool:
    return one.kind != "boolean" and given.get(f"field.{one.name}", "").strip() != ""


def _value(one: Input, text: str) -> Any:
    if one.kind == "integer":
        return _integer(text)
    if one.kind == "number":
        try:
            return float(text)
        except ValueError:
            raise InvalidAnswer(f"{one.name[:40]} should be a number") from None
    return text


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidAnswer("choose one of the options") from None
