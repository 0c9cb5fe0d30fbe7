"""What is expected is arithmetic over policies and pauses."""

from datetime import UTC, datetime, timedelta

import pytest

from tenantsync.accounting import rules

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
EVERY_MINUTE = [(NOON - HOUR, MINUTE)]


@pytest.mark.parametrize(
    ("begin", "end", "expected"),
    [
        (NOON, NOON, 0),
        (NOON, NOON + MINUTE, 1),
        (NOON - timedelta(microseconds=1), NOON, 1),
        (NOON, NOON + MINUTE - timedelta(microseconds=1), 0),
        (NOON + MINUTE, NOON, 0),
        (NOON - 5 * HOUR, NOON, 60),
    ],
)
def test_a_tick_counts_once_and_for_the_time_that_ends_with_it(begin: datetime, end: datetime, expected: int) -> None:
    assert rules.expected(begin, end, EVERY_MINUTE, []) == expected


def test_each_policy_counts_for_as_long_as_it_held() -> None:
    policies = [(NOON, MINUTE), (NOON + HOUR, 2 * MINUTE)]

    assert rules.expected(NOON, NOON + 2 * HOUR, policies, []) == 60 + 30


def test_pauses_count_for_nothing_even_where_they_are_not_over() -> None:
    pauses = rules.spans([(NOON, NOON + HOUR / 2), (NOON + HOUR, None)])

    assert rules.expected(NOON - HOUR, NOON + 5 * HOUR, EVERY_MINUTE, pauses) == 60 + 30


def test_a_pause_that_was_over_before_it_began_counts_for_nothing() -> None:
    assert rules.expected(NOON, NOON + HOUR, EVERY_MINUTE, [(NOON + HOUR / 2, NOON)]) == 60


def test_the_first_tick_outside_a_pause_is_found() -> None:
    pauses = rules.spans([(NOON - MINUTE, NOON + 3 * MINUTE)])

    assert rules.first_tick(NOON, NOON + HOUR, EVERY_MINUTE, pauses) == NOON + 4 * MINUTE
    assert rules.first_tick(NOON, NOON + 3 * MINUTE, EVERY_MINUTE, pauses) is None
