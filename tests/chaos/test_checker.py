"""The checker sees what must not be, and reckons recovery as it says."""

from typing import Any

import pytest

from sandbox.chaos.checker import Affected, History, Step, Strike, affected, check, densest, jain, percentile

SYNC_A, SYNC_B, HOUSE = "chaos_sync_a", "chaos_sync_b", "chaos_house_a"


def step(at: float, was: str, now: str, **given: Any) -> Step:
    about: dict[str, Any] = {"unit": "u", "old_fence": 1, "fence": 1, "lease": None, "worker": None, "counted": 0}
    return Step(at=at, was=was, now=now, **{**about, "by": HOUSE, **given})


def claim(at: float, fence: int, *, was: str = "idle", **given: Any) -> Step:
    return step(at, was, "dispatched", fence=fence, **{"old_fence": fence - 1, **given})


def start(at: float, fence: int, *, worker: str = "sync-a@tenantsync", by: str = SYNC_A) -> Step:
    return step(at, "dispatched", "running", old_fence=fence, fence=fence, worker=worker, by=by)


def finish(at: float, fence: int, *, worker: str = "sync-a@tenantsync", by: str = SYNC_A, **given: Any) -> Step:
    about = {"old_fence": fence, "fence": fence, "worker": worker, "by": by, "counted": 1, **given}
    return step(at, "running", "idle", **about)


def expire(at: float, fence: int, *, lease: float, worker: str = "sync-a@tenantsync", by: str = HOUSE) -> Step:
    return step(at, "running", "idle", old_fence=fence, fence=fence, lease=lease, worker=worker, by=by)


HONEST = [claim(1.0, 2), start(1.1, 2), finish(1.2, 2)]
RECOVERED = [claim(1.0, 2), start(1.1, 2), expire(6.2, 2, lease=6.1), claim(6.5, 3), start(6.6, 3), finish(6.7, 3)]


@pytest.mark.parametrize("steps", [HONEST, RECOVERED], ids=["a quiet run", "a run whose lease ended"])
def test_an_honest_history_has_no_findings(steps: list[Step]) -> None:
    assert check(History(steps)).sentences == []


def test_a_unit_taken_from_a_live_run_ran_twice_at_once() -> None:
    stolen = claim(2.0, 3, was="running", lease=6.0, worker="sync-a@tenantsync")

    found = check(History([*HONEST[:2], stolen]))

    assert len(found.twice) == 1
    assert "another 4.00 s" in found.twice[0]


def test_a_run_ended_by_the_dispatcher_before_its_lease_was_over_is_found() -> None:
    found = check(History([*HONEST[:2], expire(2.0, 2, lease=6.0)]))

    assert len(found.twice) == 1


def test_what_a_pause_takes_back_under_a_new_fence_is_no_second_run() -> None:
    paused = step(2.0, "running", "idle", old_fence=2, fence=3, lease=6.0, worker="sync-a@tenantsync", by="postgres")

    assert check(History([*HONEST[:2], paused])).sentences == []


def test_a_run_that_another_process_ended_is_found() -> None:
    found = check(History([*HONEST[:2], finish(1.2, 2, by=SYNC_B)]))

    assert found.stale == ["unit u at 1.200, fence 2: begun by chaos_sync_a, ended by chaos_sync_b"]


@pytest.mark.parametrize(
    "again", [finish(1.3, 2), finish(1.3, 2, counted=2)], ids=["under the same fence", "counted twice"]
)
def test_a_run_that_ended_twice_is_found(again: Step) -> None:
    found = check(History([*HONEST, again]))

    assert len(found.stale) == 1


def test_a_fence_that_does_not_grow_is_found() -> None:
    found = check(History([*HONEST, claim(2.0, 2)]))

    assert len(found.fences) == 1


def recovery(steps: list[Step], *strikes: Strike, excused: frozenset[str] = frozenset()) -> list[Affected]:
    return affected(History(steps), strikes, excused=excused)


def test_the_clock_of_a_killed_run_starts_at_the_strike() -> None:
    found = recovery(RECOVERED, Strike("worker_kill", 1.15, 1.15, victims=frozenset({"sync-a@tenantsync"})))

    assert [(one.again, one.waited) for one in found] == [(6.6, pytest.approx(5.45))]


def test_the_clock_of_an_outage_starts_when_it_is_over() -> None:
    found = recovery(RECOVERED, Strike("postgres_restart", 1.15, 4.0, outage=True))

    assert [one.waited for one in found] == [pytest.approx(2.6)]


def test_a_run_that_ended_under_its_own_fence_after_an_outage_is_affected() -> None:
    found = recovery([*HONEST[:2], finish(4.5, 2)], Strike("postgres_restart", 1.15, 4.0, outage=True))

    assert [one.waited for one in found] == [pytest.approx(0.5)]


def test_a_stopped_run_that_ends_when_it_wakes_up_is_counted_from_the_stop() -> None:
    found = recovery([*HONEST[:2], finish(10.5, 2)], Strike("child_stop", 1.15, 10.2))

    assert [one.waited for one in found] == [pytest.approx(9.35)]


def test_a_message_that_waited_out_an_outage_is_counted_from_its_end() -> None:
    found = recovery([claim(1.0, 2), start(4.5, 2)], Strike("redis_freeze", 1.05, 4.0, outage=True))

    assert [one.waited for one in found] == [pytest.approx(0.5)]


@pytest.mark.parametrize(
    "strike",
    [
        Strike("child_kill", 1.15, 1.15),
        Strike("slow_network", 1.15, 4.0, outage=True),
        Strike("worker_kill", 1.15, 1.15, victims=frozenset({"sync-b@tenantsync"})),
        Strike("redis_flush", 3.0, 3.0),
    ],
    ids=["it ended all the same", "it ended during the fault", "another worker's", "nothing was in flight"],
)
def test_a_run_that_came_through_is_not_affected(strike: Strike) -> None:
    assert recovery(HONEST, strike) == []


def test_a_message_that_was_lost_is_counted_until_the_unit_runs() -> None:
    lost = [claim(1.0, 2), claim(6.1, 3, was="dispatched", lease=6.0), start(6.3, 3)]

    found = recovery(lost, Strike("redis_flush", 1.05, 1.05))

    assert [one.waited for one in found] == [pytest.approx(5.25)]


def test_a_unit_that_never_runs_again_is_lost() -> None:
    found = recovery(RECOVERED[:3], Strike("worker_kill", 1.15, 1.15))

    assert [(one.again, one.waited) for one in found] == [(None, None)]


def test_units_of_guests_are_excused() -> None:
    assert recovery(RECOVERED[:3], Strike("worker_kill", 1.15, 1.15), excused=frozenset({"u"})) == []


def test_a_unit_that_is_struck_again_while_it_waits_counts_once() -> None:
    strikes = Strike("worker_kill", 1.15, 1.15), Strike("redis_flush", 6.55, 6.55)
    again = [*RECOVERED[:4], claim(11.6, 4, was="dispatched", lease=11.5), start(11.7, 4)]

    found = recovery(again, *strikes)

    assert [(one.scenario, one.waited) for one in found] == [("redis_flush", pytest.approx(5.15))]


def test_time_in_another_outage_is_not_counted() -> None:
    strikes = Strike("worker_kill", 1.15, 1.15), Strike("postgres_restart", 2.0, 5.0, outage=True)

    found = recovery(RECOVERED, *strikes)

    assert [(one.scenario, one.waited) for one in found if one.scenario == "worker_kill"] == [
        ("worker_kill", pytest.approx(2.45))
    ]


def test_runs_are_those_that_ended() -> None:
    history = History([*RECOVERED, *(claim(7.0, 4), start(7.1, 4))])

    assert (history.runs(0, 100), history.runs(0, 6.69), history.runs(6.69, 6.7)) == (1, 0, 1)


def test_the_fullest_window_slides() -> None:
    moments = [0.0, 50.0, 59.9, 60.0, 61.0, 110.0]

    assert densest(moments, 60.0) == 4
    assert densest([], 60.0) == 0


def test_jain_is_one_when_all_are_served_alike_and_a_share_when_one_is() -> None:
    assert jain([5, 5, 5, 5]) == pytest.approx(1.0)
    assert jain([8, 0, 0, 0]) == pytest.approx(0.25)


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(number) for number in range(1, 101)]

    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (50.0, 99.0, 100.0)
    assert percentile([], 0.99) is None
