"""Every interleaving of the protocol keeps its rules; without any one of its guards, one does not.

`pytest tests/model -s -k without` prints the counterexamples.
"""

import sys

import pytest

from sandbox.protocol import ALL, Guards
from tests.model import sync, ticks
from tests.model.explorer import Report, explore

WORK, MIRROR = frozenset({"work"}), frozenset({"mirror"})
RUNS = sync.Bounds(polls=1, faults=3, troubled=WORK)
"""Two dispatchers and two workers, struck three times, Supabase left out."""
SENDERS = sync.Bounds(dispatchers=1, workers=1, senders=2, troubled=MIRROR)
"""Two senders, struck twice, and a worker that never fails."""
WHOLE = sync.Bounds(senders=2)
"""Everything at once, struck twice."""
WORLDS = {"runs": RUNS, "two units": sync.Bounds(units=2), "senders": SENDERS, "whole": WHOLE}
LOST = "nothing is lost: from here the good end is out of reach"


def say(text: str) -> None:
    sys.stdout.write(f"\n{text}\n")


def explored(bounds: sync.Bounds, guards: Guards = ALL) -> Report:
    good = sync.mirrored if bounds.senders else sync.settled
    return explore(sync.beginning(bounds), sync.Model(bounds, guards).steps, good, sync.alike)


def explored_ticks(guards: Guards = ALL) -> Report:
    model = ticks.Model(ticks.Bounds(), guards)
    return explore(ticks.beginning(model.bounds), model.steps, model.accounted, lambda world: world)


@pytest.mark.parametrize("world", WORLDS)
def test_every_interleaving_keeps_the_rules(world: str) -> None:
    report = explored(WORLDS[world])

    assert report.counterexample is None, str(report.counterexample)
    assert report.states > 1_000


def test_every_interleaving_of_beats_and_workers_accounts_for_each_tick_once() -> None:
    report = explored_ticks()

    assert report.counterexample is None, str(report.counterexample)
    assert report.states > 10_000


BROKEN = [
    ("fence_at_commit", RUNS, sync.STALE),
    ("lease_is_waited_for", RUNS, sync.TWO_RUNS),
    ("leases_end", RUNS, LOST),
    ("outbox_with_rows", WHOLE._replace(edits=1, senders=1, faults=1), LOST),
    ("cursor_with_rows", RUNS, sync.AHEAD),
    ("wake_up_consumed_first", SENDERS, LOST),
    ("acknowledged_to_sent", SENDERS, LOST),
    ("newest_wins", SENDERS, sync.OLD_WINS),
]


@pytest.mark.parametrize(("guard", "bounds", "rule"), BROKEN, ids=[guard for guard, *_ in BROKEN])
def test_without_a_guard_there_is_a_counterexample(guard: str, bounds: sync.Bounds, rule: str) -> None:
    report = explored(bounds, ALL._replace(**{guard: False}))

    say(f"without {guard}, {report.counterexample}")
    assert report.counterexample is not None
    assert report.counterexample.rule == rule


TICKS = [("one_row_a_tick", ticks.TWICE), ("attempt_at_end", ticks.TWICE), ("leases_end", LOST)]


@pytest.mark.parametrize(("guard", "rule"), TICKS, ids=[guard for guard, *_ in TICKS])
def test_without_a_guard_a_tick_is_lost_or_doubled(guard: str, rule: str) -> None:
    report = explored_ticks(ALL._replace(**{guard: False}))

    say(f"without {guard}, {report.counterexample}")
    assert report.counterexample is not None
    assert report.counterexample.rule == rule


def test_every_guard_is_taken_away_once() -> None:
    assert {guard for guard, *_ in (*BROKEN, *TICKS)} == set(Guards._fields)
