"""The list of guards does not rot: what is to be broken is there, and so is the test that has to notice."""

import ast
from collections import Counter

import pytest

from tests.architecture.sources import CHECKOUT
from tests.guards import GUARDS, Guard


def named(guard: Guard) -> str:
    return guard.name


@pytest.mark.parametrize("guard", GUARDS, ids=named)
def test_the_text_of_a_guard_stands_in_its_file_once(guard: Guard) -> None:
    counts = [(CHECKOUT / change.file).read_text().count(change.text) for change in guard.changes]

    assert counts == [1] * len(guard.changes)
    assert all(change.text != change.broken for change in guard.changes)


@pytest.mark.parametrize("guard", GUARDS, ids=named)
def test_the_test_of_a_guard_exists(guard: Guard) -> None:
    file, *path = guard.test.partition("[")[0].split("::")
    nodes = ast.parse((CHECKOUT / file).read_text()).body
    for name in path:
        (found,) = [node for node in nodes if getattr(node, "name", None) == name]
        nodes = getattr(found, "body", [])

    assert path[-1].startswith("test_")


def test_every_guard_has_a_name_of_its_own() -> None:
    assert max(Counter(guard.name for guard in GUARDS).values()) == 1
