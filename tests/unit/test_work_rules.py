"""Handlers, what they promise, and what is told of rows and results: values in, verdicts out."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator

from tenantsync.work import handlers as handling
from tenantsync.work import rules
from tenantsync.work.handlers import Handlers, HandlersBroken, TaskFailed
from tenantsync.work.run import Run
from tenantsync.work.values import NotJson, as_json, as_object, as_text


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: int = Field(1, ge=1)
    note: str = ""

    @field_validator("note")
    @classmethod
    def _polite(cls, value: str) -> str:
        if "damn" in value:
            raise ValueError(f"{value!r} is not polite")
        return value


def export(order: Order, run: Run) -> dict[str, Any]:
    return {}


def with_kinds(*kinds: str) -> Handlers:
    made = Handlers()
    for kind in kinds:
        made.handler(kind)(export)
    return made


def another(order: Order, run: Run) -> None: ...


async def later(order: Order, run: Run) -> None: ...


def bare(order: Any, run: Run) -> None: ...


def lonely(order: Order) -> None: ...


@pytest.mark.parametrize(
    ("function", "options", "reason"),
    [
        (later, {}, "should be a plain function of two parameters"),
        (lonely, {}, "should be a plain function of two parameters"),
        (bare, {}, "annotate 'order' with a pydantic model"),
        (export, {"kind": "Export"}, "it should look like orders.export"),
        (export, {"kind": "a." + "b" * 100}, "it should look like orders.export"),
        (export, {"timeout": 0.5}, "between 1 s and 6 hours"),
        (export, {"timeout": 1e6}, "between 1 s and 6 hours"),
        (export, {"retries": 21}, "between 0 and 20"),
    ],
)
def test_a_handler_that_cannot_work_is_refused_where_it_is_written(
    function: Any, options: dict[str, Any], reason: str
) -> None:
    kind = options.pop("kind", "orders.export")

    with pytest.raises(HandlersBroken, match=reason):
        Handlers().handler(kind, **options)(function)


def test_a_kind_has_one_handler() -> None:
    made = with_kinds("orders.export")
    made.handler("orders.export")(export)

    with pytest.raises(HandlersBroken, match="rename one"):
        made.handler("orders.export")(another)


def test_the_shipped_handlers_are_there_and_a_module_that_is_not_is_named() -> None:
    assert {"calendar.report", "calendar.sync_now"} <= set(handling.load().kinds)

    with pytest.raises(HandlersBroken, match=r"'acme\.no_such_module', which cannot be imported"):
        handling.load(["acme.no_such_module"])


PAYLOADS: list[tuple[dict[str, Any], str]] = [
    ({"number": 0}, "number: Input should be greater than or equal to 1"),
    ({"number": "my secret"}, "number: Input should be a valid integer"),
    ({"note": "damn secret"}, "note: is refused by its rule"),
    ({"secret key of mine": 1}, "…: Extra inputs are not permitted"),
    ({"extra": 1}, "extra: Extra inputs are not permitted"),
]


@pytest.mark.parametrize(("payload", "reason"), PAYLOADS)
def test_reasons_name_fields_and_rules_and_quote_nothing(payload: dict[str, Any], reason: str) -> None:
    handler = with_kinds("orders.export").get("orders.export")
    assert handler is not None

    with pytest.raises(rules.Unfitting) as refused:
        rules.parse(handler, payload)

    assert reason in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_long_list_of_reasons_is_cut() -> None:
    handler = with_kinds("orders.export").get("orders.export")
    assert handler is not None

    with pytest.raises(rules.Unfitting, match="; and 4 more"):
        rules.parse(handler, {f"field_{number}": 1 for number in range(9)})


def test_an_exceptions_message_is_told_only_where_the_handler_calls_it_safe() -> None:
    made = Handlers()
    made.handler("orders.export", safe=(LookupError,))(export)
    handler = made.get("orders.export")
    assert handler is not None

    assert rules.failure(KeyError("row 7"), handler) == "KeyError: 'row 7'"
    assert rules.failure(TaskFailed("closed\x00"), handler) == "TaskFailed: closed"
    assert rules.failure(TaskFailed("x" * 9000), handler) == "TaskFailed: " + "x" * 2000
    assert "secret" not in rules.failure(ValueError("secret"), handler)


@pytest.mark.parametrize(
    "row", [{}, {"id": 3}, {"id": "x", "tenant_id": "y"}, {"id": str(UUID(int=1)), "tenant_id": None}], ids=str
)
def test_a_row_that_is_no_task_is_unreadable(row: dict[str, Any]) -> None:
    with pytest.raises(rules.Unreadable):
        rules.read(row)


TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_what_is_json_stays_as_it_is(value: Any) -> None:
    assert as_json(value, about="it") == value


@given(st.text())
def test_any_text_can_be_made_one_that_postgres_takes(text: str) -> None:
    made = as_text(text)

    assert "\x00" not in made
    assert made.encode().decode() == made


def test_a_place_is_named_and_somebodys_text_is_not() -> None:
    with pytest.raises(NotJson, match=r"^it\.rows\[1\]\.…\.at is a set, which is not JSON$"):
        as_json({"rows": [1, {"Meeting with Bob": {"at": set()}}]}, about="it")


def test_only_a_mapping_or_a_model_is_a_result() -> None:
    assert as_object(None, about="it") is None
    assert as_object(Order(number=3), about="it") == {"number": 3, "note": ""}
    with pytest.raises(NotJson, match="it is a str"):
        as_object("text", about="it")
