"""What the page of a process says."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from db.repositories.process_events import EventRow
from tenantsync.web.pages.processes import durations, said
from tenantsync.web.pages.texts import speaker

NOBODY = UUID(int=0)


def ended(step: str, sequence: int) -> EventRow:
    data, now = {"step": step}, datetime.now(UTC)
    return EventRow(NOBODY, sequence, NOBODY, NOBODY, "step_completed", data, "process", 5, "test", now, archived=False)


def test_steps_stand_in_the_order_in_which_they_ended() -> None:
    events = [ended("prepare", 4), ended("book", 9)]

    assert durations({"book": 16, "prepare": 22}, events) == [("prepare", 22.0), ("book", 16.0)]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"selected_index": 0, "selected": {"index": 0, "title": "Monday", "value": "mon"}}, "Monday"),
        ("whatever", '"whatever"'),
        ({"action": "skip"}, '"action": "skip"'),
    ],
)
def test_an_answer_is_told_by_what_was_chosen(answer: object, words: str) -> None:
    assert words in said(answer, speaker("en"))
