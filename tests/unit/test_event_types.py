"""Every type of event: the seed's examples fit, what does not fit is refused before anything is written."""

from typing import Any

import pytest
from pydantic import BaseModel

from tenantsync.processes import event_types
from tenantsync.processes.event_types import Category, Kind, PayloadRefused

PROCESS = "123e4567-e89b-12d3-a456-426614174000"
SEED: dict[str, dict[str, Any]] = {
    "process_created": {"process_id": PROCESS, "initial_request": {"keyword": "札幌"}},
    "step_update": {
        "step": "theme_generating",
        "previous_step": "persona_selected",
        "message": "テーマ案を生成中...",
        "progress": {"completed_steps": 3, "total_steps": 8, "percentage": 37.5},
        "estimated_completion": "2025-01-31T12:02:30Z",
        "image_mode": False,
    },
    "step_completed": {"step": "persona_generating", "result": {"personas": 3}},
    "user_input_required": {
        "input_type": "SELECT_THEME",
        "timeout": "2025-01-31T12:31:45Z",
        "options": [{"index": 0, "title": "完全ガイド", "description": "…", "keywords": ["札幌"]}],
        "additional_actions": ["regenerate", "edit", "skip"],
    },
    "user_input_received": {"input_type": "SELECT_THEME", "selected": {"index": 0}},
    "research_progress": {"query_index": 1, "total_queries": 3, "query": "自然素材"},
    "section_chunk": {
        "section_index": 2,
        "section_heading": "設計ポイント",
        "html_chunk": "<p>札幌の厳しい冬季においては…</p>",
        "is_complete": False,
        "total_chars_generated": 145,
        "estimated_section_length": 800,
        "generation_progress": 18.1,
        "image_mode": False,
    },
    "section_completed": {"section_index": 0, "content": "<p>…</p>", "images": []},
    "image_placeholder_generated": {"placeholder_id": "p1", "description": "…", "prompt": "a house"},
    "image_generated": {"placeholder_id": "p1", "image_url": "https://example.test/p1.png", "gcs_path": "gs://b/p1"},
    "process_paused": {"reason": "user_request", "resume_available": True},
    "process_resumed": {"resumed_from_step": "outline_generating"},
    "process_completed": {"article_id": "a1", "final_content": "…", "statistics": {"words": 800}},
    "process_error": {
        "error_type": "recoverable",
        "step": "research",
        "message": "the search did not answer",
        "recovery_options": ["retry"],
    },
    "heartbeat": {"timestamp": "2025-01-31T12:00:00Z", "active_connections": 1},
}
OWN: dict[str, dict[str, Any]] = {
    "state_updated": {"current_step": "research", "status": "running", "is_waiting_for_input": False},
    "progress": {"percentage": 12.5, "message": "an eighth"},
    "input_reminder": {"input_type": "SELECT_THEME", "timeout": None},
    "input_expired": {"input_type": "SELECT_THEME", "used_default": True},
    "input_withdrawn": {"input_type": "SELECT_THEME", "reason": "the process is cancelled"},
    "process_cancelled": {"reason": "user_request"},
}
EXAMPLES = SEED | OWN
WRONG: dict[str, Any] = {
    "process_created": {"process_id": "no uuid"},
    "step_update": {"step": ""},
    "step_completed": {"result": 1},
    "user_input_required": {"input_type": "X", "options": "none"},
    "user_input_received": {},
    "research_progress": {"query_index": -1, "total_queries": 3},
    "section_chunk": {"section_index": 0},
    "section_completed": {"section_index": 0},
    "image_placeholder_generated": {"placeholder_id": ""},
    "image_generated": {"placeholder_id": "p1"},
    "process_paused": {"resume_available": "perhaps", "reason": "x"},
    "process_resumed": {"resumed_from_step": 7},
    "process_completed": {"statistics": []},
    "process_error": {"error_type": "odd", "message": "x"},
    "heartbeat": {"timestamp": "soon"},
    "state_updated": {"current_step": "research"},
    "progress": {"percentage": 101},
    "input_reminder": {},
    "input_expired": {"input_type": "X", "used_default": "perhaps"},
    "input_withdrawn": {},
    "process_cancelled": {},
}


class Shipped(BaseModel):
    """A project's own payload."""

    parcel: str


def test_every_type_has_an_example_here_and_the_seeds_fifteen_are_among_them() -> None:
    assert {one.name for one in event_types.OURS} == set(EXAMPLES) == set(WRONG)
    assert len(SEED) == 15


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_fits_and_keeps_all_its_fields(name: str) -> None:
    ready = event_types.checked(event_types.find(name), EXAMPLES[name])

    assert set(ready) == set(EXAMPLES[name])


@pytest.mark.parametrize("name", WRONG)
def test_a_payload_that_does_not_fit_is_refused_with_its_field(name: str) -> None:
    with pytest.raises(PayloadRefused, match=f"{name} does not fit its payload"):
        event_types.checked(event_types.find(name), WRONG[name])


@pytest.mark.parametrize("one", event_types.OURS, ids=lambda one: one.name)
def test_every_type_says_where_it_belongs(one: event_types.EventType) -> None:
    assert one.category in Category
    assert 1 <= one.priority <= 10
    assert one.source


def test_chatty_types_are_snapshots_and_chunks_are_pieces() -> None:
    kinds = {one.name: one.kind for one in event_types.OURS if one.kind is not Kind.DURABLE}

    assert kinds == {
        "state_updated": Kind.SNAPSHOT,
        "progress": Kind.SNAPSHOT,
        "research_progress": Kind.SNAPSHOT,
        "heartbeat": Kind.SNAPSHOT,
        "section_chunk": Kind.PIECE,
    }


def test_an_unknown_type_is_refused_and_what_to_do_is_said() -> None:
    with pytest.raises(PayloadRefused, match="register it"):
        event_types.find("no_such_thing")


def test_a_project_registers_types_of_its_own() -> None:
    event_types.register("parcel_shipped", Shipped, category="process", priority=2)

    known = event_types.find("parcel_shipped")

    assert event_types.checked(known, {"parcel": "p1"}) == {"parcel": "p1"}
    with pytest.raises(PayloadRefused, match="parcel: Field required"):
        event_types.checked(known, {})


def test_a_type_is_registered_once_and_the_same_again_is_fine() -> None:
    event_types.register("parcel_lost", Shipped, category=Category.ERROR)
    event_types.register("parcel_lost", Shipped, category=Category.ERROR)

    with pytest.raises(ValueError, match="registered already"):
        event_types.register("parcel_lost", Shipped, category=Category.DEBUG)
    with pytest.raises(ValueError, match="registered already"):
        event_types.register("process_created", Shipped, category=Category.DEBUG)


@pytest.mark.parametrize(("name", "priority"), [("Parcel", 5), ("", 5), ("parcel-x", 5), ("parcel_x", 0), ("p", 11)])
def test_a_type_has_a_plain_name_and_a_priority(name: str, priority: int) -> None:
    with pytest.raises(ValueError, match=r"named like|priority"):
        event_types.register(name, Shipped, category=Category.PROCESS, priority=priority)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"text": "a\0b"}, "NUL"),
        ({"a\0b": 1}, "NUL"),
        ({"text": "\ud800"}, "surrogate"),
        ({"number": 2**64}, "64-bit"),
        ({"much": "x" * 262_144}, "at most 262144"),
        ({"thing": object()}, "not JSON"),
        ({1: "number as a name"}, "not JSON"),
    ],
)
def test_what_postgres_cannot_hold_is_refused_by_name_and_not_quoted(value: Any, why: str) -> None:
    with pytest.raises(PayloadRefused, match=why):
        event_types.as_json(value, about="the result")


def test_nesting_that_json_cannot_hold_is_refused() -> None:
    deep: Any = 1
    for _ in range(1000):
        deep = [deep]

    with pytest.raises(PayloadRefused, match="not JSON"):
        event_types.as_json(deep, about="the result")
    with pytest.raises(PayloadRefused):
        event_types.checked(event_types.find("step_completed"), {"step": "a", "result": deep})


@pytest.mark.parametrize("value", [{"text": "a\0b"}, {"text": "\ud800"}, {"text": "x" * 262_144}])
def test_hostile_text_in_a_payload_is_refused_as_well(value: Any) -> None:
    with pytest.raises(PayloadRefused) as refused:
        event_types.checked(event_types.find("step_completed"), {"step": "a", "result": value})

    assert "x" * 20 not in str(refused.value)


def test_a_backslash_and_a_u_are_no_nul() -> None:
    assert event_types.as_json("a\\u0000", about="it") == b'"a\\\\u0000"'
    assert event_types.as_json("a\\\\u0000", about="it")
