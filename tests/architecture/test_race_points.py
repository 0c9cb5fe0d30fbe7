"""The table of race points and the code say the same."""

import ast

from db.racepoints import KEPT, POINTS
from sandbox.tracesteps import ANSWERS
from tests.architecture.sources import Source, sources


def reached() -> list[tuple[Source, ast.Call]]:
    """Every call of `reach` in the product."""
    return [
        (source, node)
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reach"
    ]


def test_every_race_point_is_declared_and_reached_in_one_place() -> None:
    named = [str(ast.literal_eval(call.args[0])) for _, call in reached()]

    assert sorted(named) == sorted(POINTS)


def test_every_fact_of_a_race_point_is_one_that_a_trace_may_hold() -> None:
    strange = [
        f"{source.name}:{call.lineno}: {keyword.arg}"
        for source, call in reached()
        for keyword in call.keywords
        if keyword.arg not in KEPT
    ]

    assert strange == []


def test_the_replay_knows_points_that_exist() -> None:
    assert {*ANSWERS, *ANSWERS.values()} <= POINTS.keys()
