"""Limits in their pure form: whatever is asked for when, and sent as late as allowed, no window is over its budget."""

from collections import deque
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantsync.limits import rules
from tenantsync.limits.rules import BULK, POLLS, VALID_FOR, WINDOW, pace
from tests.support.windows import fullest, most_at_once

Asks = Sequence[tuple[int, int, int, float]]
"""(microseconds since the ask before, requests wanted, microseconds until they are sent, share of the burst)."""
Limiter = Callable[[int, int, float], int]
"""(now in microseconds, wanted, share) to what is granted."""

SECOND = 1_000_000
VALID = WINDOW / VALID_FOR
LIMITS = st.integers(2, 120)
ASKS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, SECOND), st.sampled_from([0, 1, 59 * SECOND, 60 * SECOND, 70 * SECOND])),
        st.integers(1, 40),
        st.one_of(st.integers(0, int(VALID * SECOND)), st.sampled_from([0, int(VALID * SECOND)])),
        st.sampled_from([POLLS, BULK]),
    ),
    max_size=120,
)


def gcra(limit: int) -> Limiter:
    chosen, arrival = pace(limit), deque([None], maxlen=1)

    def grant(now: int, wanted: int, share: float) -> int:
        decision = rules.decide(
            arrival=arrival[0], now=now / SECOND, wanted=wanted, interval=chosen.interval, room=chosen.room(share)
        )
        arrival.append(decision.arrival)
        return decision.granted

    return grant


def sliding_counter(limit: int) -> Limiter:
    """The usual estimate: this minute's count, and the last one's by the share of it that the window still covers."""
    counts: dict[int, int] = {}

    def grant(now: int, wanted: int, share: float) -> int:
        minute, into = divmod(now, int(WINDOW * SECOND))
        estimate = counts.get(minute - 1, 0) * (1 - into / (WINDOW * SECOND)) + counts.get(minute, 0)
        granted = max(0, min(wanted, int(limit - estimate)))
        counts[minute] = counts.get(minute, 0) + granted
        return granted

    return grant


def play(limiter: Limiter, asks: Asks) -> list[int]:
    """When requests are sent, in microseconds."""
    now, sent = 0, []
    for pause, wanted, late, share in asks:
        now += pause
        sent += [now + late] * limiter(now, wanted, share)
    return sent


@settings(max_examples=200, deadline=None)
@given(limit=LIMITS, asks=ASKS)
def test_no_window_holds_more_than_the_limit_however_late_reservations_are_used(limit: int, asks: Asks) -> None:
    sent = play(gcra(limit), asks)

    assert fullest(sent, WINDOW * SECOND) <= limit


@pytest.mark.parametrize("limit", [2, 10, 50, 600])
def test_the_worst_case_is_exactly_the_limit(limit: int) -> None:
    """An idle budget whose every reservation of the first moments is sent as late as it may, and all others at once."""
    step, held_back = int(VALID * SECOND / 500), int(VALID * SECOND)
    asks = [(step, limit, max(0, held_back - number * step), POLLS) for number in range(1, 4500)]

    sent = play(gcra(limit), asks)

    assert limit - 1 <= fullest(sent, WINDOW * SECOND) <= limit


def test_the_judge_finds_what_the_usual_sliding_window_lets_through() -> None:
    asks = [(45 * SECOND, 50, 0, POLLS), (30 * SECOND, 50, 0, POLLS), (29 * SECOND, 50, 0, POLLS)]

    assert fullest(play(sliding_counter(50), asks), WINDOW * SECOND) > 50
    assert fullest(play(gcra(50), asks), WINDOW * SECOND) <= 50


@given(limit=st.integers(2, 10_000_000))
def test_burst_and_rate_fill_the_window_and_the_life_of_a_reservation_but_not_more(limit: int) -> None:
    chosen = pace(limit)
    reserved = chosen.burst + (WINDOW + VALID) / chosen.interval

    assert reserved <= limit * (1 + 1e-12)
    assert chosen.burst >= 1


@pytest.mark.parametrize("limit", [60, 600, 3_000, 10_000])
def test_four_fifths_of_a_limit_can_be_used_for_good(limit: int) -> None:
    assert WINDOW / pace(limit).interval >= 0.8 * limit


def test_first_syncs_leave_half_of_the_burst_to_polls() -> None:
    chosen = pace(600)
    bulk = rules.decide(arrival=None, now=0.0, wanted=1000, interval=chosen.interval, room=chosen.room(BULK))

    polls = rules.decide(arrival=bulk.arrival, now=0.0, wanted=1000, interval=chosen.interval, room=chosen.room(POLLS))

    assert bulk.granted == chosen.burst // 2
    assert polls.granted == chosen.burst - bulk.granted


def test_who_is_refused_is_told_when_one_request_fits_and_not_later() -> None:
    chosen = pace(600)
    now = {"interval": chosen.interval, "room": chosen.room(POLLS)}
    used_up = rules.decide(arrival=None, now=0.0, wanted=1000, **now)

    early = rules.decide(arrival=used_up.arrival, now=used_up.wait - 0.001, wanted=5, **now)
    in_time = rules.decide(arrival=used_up.arrival, now=used_up.wait + 0.000_001, wanted=5, **now)

    assert (early.granted, in_time.granted) == (0, 1)


class TestSoManyAtATime:
    @given(
        limit=st.integers(1, 8),
        steps=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20), st.integers(0, 20)), max_size=60),
    )
    def test_processes_never_hold_more_than_the_limit_together(
        self, limit: int, steps: list[tuple[int, int, int]]
    ) -> None:
        held: dict[int, int] = {}
        for process, wanted, ended in steps:
            in_use = max(0, held.get(process, 0) - ended)
            others = {other: number for other, number in held.items() if other != process}
            held[process] = rules.holds_granted(
                limit=limit,
                held_by_others=sum(others.values()),
                in_use=in_use,
                wanted=max(wanted, in_use),
                interested=len(others) + 1,
            )

            assert sum(held.values()) <= limit
            assert held[process] >= in_use

    def test_one_alone_may_have_them_all_and_two_share(self) -> None:
        alone = rules.holds_granted(limit=16, held_by_others=0, in_use=0, wanted=40, interested=1)
        second = rules.holds_granted(limit=16, held_by_others=0, in_use=0, wanted=40, interested=2)

        assert (alone, second) == (16, 8)
        assert [rules.ceiling(limit=4, interested=n) for n in (1, 2, 4, 9)] == [4, 2, 1, 1]


@pytest.mark.parametrize(
    ("accounts", "tenants", "concerned"), [(5, 2, True), (50, 20, True), (4, 4, False), (50, 1, False)]
)
def test_five_refused_accounts_of_two_tenants_mean_their_project(accounts: int, tenants: int, concerned: bool) -> None:
    assert rules.concerns_project(accounts=accounts, tenants=tenants) is concerned


def test_the_judge_counts_both_ends_of_a_window_and_overlaps_of_spans() -> None:
    assert fullest([0, 30, 60, 61, 120], 60) == 3
    assert most_at_once([(0, 2), (1, 3), (2, 4), (3, 5)]) == 2
