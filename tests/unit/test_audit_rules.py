"""Comparing two sides: every difference is found, and nothing else."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from db.repositories.auditing import StoredResource
from tenantsync.audit.rules import Differences, compare_calendar, compare_rows, first_difference
from tenantsync.calendars.provider import Listed


def listed(resource: str, digest: str, *, visible: bool = True) -> dict[str, Listed]:
    return {resource: Listed(resource, None, digest, visible)}


def stored(resource: str, *digests: str, visible: bool = True) -> dict[str, StoredResource]:
    return {resource: StoredResource(frozenset(digests), visible)}


@pytest.mark.parametrize(
    ("there", "here", "found"),
    [
        ({}, {}, {}),
        (listed("a", "1"), stored("a", "1"), {}),
        (listed("a", "1"), {}, {"a": "1"}),
        ({}, stored("a", "1"), {"a": None}),
        (listed("a", "2"), stored("a", "1"), {"a": "2"}),
        (listed("a", "1", visible=False), {}, {}),
        ({}, stored("a", "1", visible=False), {}),
        (listed("a", "2", visible=False), stored("a", "1"), {"a": "2"}),
        (listed("a", "1", visible=False), stored("a", "1", visible=False), {}),
        (listed("a", "1"), stored("a", "1", "2"), {}),
        (listed("a", "1") | listed("b", "1"), stored("b", "1") | stored("c", "1"), {"a": "1", "c": None}),
    ],
    ids=[
        "both empty", "equal", "missing here", "surplus here", "changed", "missing, but not shown there",
        "surplus, but not shown here", "cancelled there", "cancelled on both", "several events of one resource",
        "several differences",
    ],
)  # fmt: skip
def test_a_calendar_differs_where_the_two_sides_show_different_things(
    there: dict[str, Listed], here: dict[str, StoredResource], found: dict[str, str | None]
) -> None:
    assert compare_calendar(there, here).by_resource == found


@pytest.mark.parametrize(
    ("first", "second", "persisting"),
    [
        ({"a": "1"}, {"a": "1"}, {"a": "1"}),
        ({"a": None}, {"a": None}, {"a": None}),
        ({"a": "1"}, {}, {}),
        ({"a": "1"}, {"a": "2"}, {}),
        ({}, {"a": "1"}, {}),
        ({}, {"a": None}, {}),
        ({"a": None}, {"a": "1"}, {}),
        ({"a": "1"}, {"a": None}, {}),
        ({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}, {"a": "1"}),
    ],
)
def test_what_the_provider_changed_in_between_does_not_persist(
    first: dict[str, str | None], second: dict[str, str | None], persisting: dict[str, str | None]
) -> None:
    assert Differences(second).persisting(Differences(first)).by_resource == persisting


def test_no_difference_counts_as_none() -> None:
    assert not Differences()
    assert Differences({"a": None})


# Rows

IDS = [UUID(int=number) for number in range(1, 9)]


def ours(*numbers: int, **changes: Any) -> Iterator[dict[str, Any]]:
    return iter([{"id": IDS[number], "title": "t", **changes} for number in numbers])


def theirs(*numbers: int, **changes: Any) -> Iterator[dict[str, Any]]:
    return iter([{"id": str(IDS[number]), "title": "t", "extra": 1, **changes} for number in numbers])


def names(*numbers: int) -> list[str]:
    return [str(IDS[number]) for number in numbers]


@pytest.mark.parametrize(
    ("expected", "mirrored", "missing", "surplus"),
    [
        ((), (), (), ()),
        ((0, 1, 2), (0, 1, 2), (), ()),
        ((0, 1, 2), (), (0, 1, 2), ()),
        ((), (0, 1, 2), (), (0, 1, 2)),
        ((0, 2, 4), (1, 2, 3), (0, 4), (1, 3)),
        ((0, 1), (1, 2), (0,), (2,)),
        ((5, 6, 7), (0, 1, 7), (5, 6), (0, 1)),
    ],
)
def test_rows_that_only_one_side_has_are_named(
    expected: tuple[int, ...], mirrored: tuple[int, ...], missing: tuple[int, ...], surplus: tuple[int, ...]
) -> None:
    found = compare_rows(ours(*expected), theirs(*mirrored))

    assert (found.missing, found.surplus, found.differing) == (names(*missing), names(*surplus), {})
    assert found.rows == len(expected)
    assert found.count == len(missing) + len(surplus)


def test_a_row_that_differs_is_named_with_its_column() -> None:
    found = compare_rows(ours(0, 1), iter([*theirs(0), *theirs(1, title="other")]))

    assert found.differing == {str(IDS[1]): "title"}
    assert found


def test_a_column_that_the_mirror_lacks_is_a_difference() -> None:
    assert first_difference({"id": "1", "title": None}, {"id": "1"}) == "title"


def test_a_column_that_only_the_mirror_has_is_none() -> None:
    assert first_difference({"id": "1"}, {"id": "1", "owners_own": 5}) is None


MOMENT = datetime(2026, 3, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize("column", ["deleted_at", "starts_at", "ends_at", "original_start", "provider_updated_at"])
@pytest.mark.parametrize(
    "written", ["2026-03-01T10:00:00+00:00", "2026-03-01T11:00:00+01:00", "2026-03-01T10:00:00.000000Z"]
)
def test_moments_are_compared_as_moments(column: str, written: str) -> None:
    assert first_difference({column: MOMENT}, {column: written}) is None


@pytest.mark.parametrize(
    ("here", "there"),
    [(MOMENT, "2026-03-01T10:00:01+00:00"), (MOMENT, None), (None, "2026-03-01T10:00:00+00:00")],
)
def test_moments_that_differ_are_different(here: datetime | None, there: str | None) -> None:
    assert first_difference({"starts_at": here}, {"starts_at": there}) == "starts_at"


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("a", "b"), ("", None), (None, ""), (True, False), (False, None), (1, 2), ([], None),
        ([{"a": 1}], [{"a": 2}]), ([1, 2], [2, 1]), ({"a": None}, {}), (2**53 + 1, 2**53),
    ],
)  # fmt: skip
def test_values_that_differ_are_different(here: object, there: object) -> None:
    assert first_difference({"value": here}, {"value": there}) == "value"


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (IDS[0], str(IDS[0])), (None, None), ("é", "é"), ([{"a": 1, "b": 2}], [{"b": 2, "a": 1}]), (False, False),
    ],
)  # fmt: skip
def test_values_that_travelled_as_json_are_equal(here: object, there: object) -> None:
    assert first_difference({"value": here}, {"value": there}) is None
