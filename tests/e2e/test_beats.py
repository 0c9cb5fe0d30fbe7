"""Real beats over a real broker: any number of them, dead, frozen or out of time, and every occurrence once."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from sandbox.chaos import faketime
from sandbox.chaos.faketime import Clock, NoFaketime
from sandbox.servers.process import ManagedProcess
from sandbox.world import CHECKOUT, World
from tests.support.worlds import ask, eventually

pytestmark = pytest.mark.timeout(180)
HAND_OVER = 15.0  # seconds until a dead beat is replaced
MOST_WAITING = 5  # messages
QUICK = """
import sys
from datetime import timedelta
sys.path.insert(0, {checkout!r})
import beat_schedule
from config.timetable import Entry
beat_schedule.OCCURRENCES["collect-metrics"] = Entry("metrics.collect", every=timedelta(seconds=1), policy="latest")
"""
"""What a worker of this module reads before all else: ticks that come often enough for a test."""
ACCOUNTED = "select done + failed + skipped + superseded from worker.schedules where kind = 'metrics.collect'"
STARTS = "select count(*), count(distinct due_at) from worker.tasks where kind = 'metrics.collect'"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A world of one house worker."""
    with World() as running:
        (running.folder / "quick").mkdir()
        (running.folder / "quick" / "sitecustomize.py").write_text(QUICK.format(checkout=str(CHECKOUT)))
        quick = {"PYTHONPATH": str(running.folder / "quick")}
        running.start_worker("house", "wakeups,mirror,maintenance", concurrency=2, environment=quick)
        yield running


@pytest.fixture
def beats(world: World) -> Iterator[Callable[..., ManagedProcess]]:
    """Starts beats; they end with the test."""
    started: list[ManagedProcess] = []

    def start(environment: dict[str, str] | None = None) -> ManagedProcess:
        started.append(world.start_beat(f"beat-{len(world.processes)}", environment=environment))
        return started[-1]

    yield start
    for one in started:
        one.thaw()
        one.kill()


@pytest.fixture
def heard(world: World) -> Callable[[], int]:
    """Occurrences that have come and gone so far."""
    return lambda: int((ask(world, ACCOUNTED) or [(0,)])[0][0])


@pytest.fixture
def go_on(world: World, heard: Callable[[], int]) -> Callable[[int], None]:
    """Waits until some more occurrences have come and gone, at most as long as a dead beat may be missed."""

    def wait(ticks: int) -> None:
        before = heard()
        eventually(lambda: heard() >= before + ticks, "occurrences go on", timeout=HAND_OVER)

    return wait


def assert_each_tick_once(world: World) -> None:
    ((rows, moments),) = ask(world, STARTS)
    assert rows == moments > 0


def test_of_two_beats_one_may_die_and_none_is_missed(
    world: World, beats: Callable[..., ManagedProcess], go_on: Callable[[int], None]
) -> None:
    first, _ = beats(), beats()
    go_on(1)

    first.kill()

    go_on(2)
    assert_each_tick_once(world)


def test_a_beat_that_was_frozen_past_several_ticks_doubles_none_when_it_wakes(
    world: World, beats: Callable[..., ManagedProcess], go_on: Callable[[int], None]
) -> None:
    frozen, _ = beats(), beats()
    go_on(1)

    frozen.freeze()
    go_on(2)
    frozen.thaw()

    go_on(2)
    assert_each_tick_once(world)


def test_a_beat_outlives_a_broker_that_forgets_everything_or_is_away(
    world: World, beats: Callable[..., ManagedProcess], go_on: Callable[[int], None]
) -> None:
    beat = beats()
    go_on(1)

    with redis.Redis.from_url(world.valkey.url(0)) as client:
        client.flushall()
    go_on(1)
    world.valkey.kill()
    eventually(lambda: "beat_not_heard" in beat.log_path.read_text(), "beat notices")
    world.valkey.start()

    go_on(2)
    assert beat.alive
    assert_each_tick_once(world)


@pytest.fixture
def stepped(tmp_path: Path) -> Clock:
    """A clock for the processes that are given it."""
    try:
        return Clock(faketime.find(), tmp_path / "clock")
    except NoFaketime as missing:
        pytest.skip(str(missing))


def test_a_beat_whose_clock_is_stepped_rings_on(
    world: World, beats: Callable[..., ManagedProcess], go_on: Callable[[int], None], stepped: Clock
) -> None:
    beats(stepped.environment(world.environment))
    go_on(1)

    stepped.step(-3_600)
    go_on(2)
    stepped.step(3_600)
    go_on(2)

    assert_each_tick_once(world)


def test_no_wake_ups_pile_up_where_nobody_takes_them(world: World, beats: Callable[..., ManagedProcess]) -> None:
    with redis.Redis.from_url(world.valkey.url(0)) as client:
        house = world.processes["house"]
        house.freeze()
        beats(), beats()

        def full() -> bool:
            return client.llen("tenantsync:wakeups") >= MOST_WAITING

        eventually(full, "wake-ups wait")
        seen = {client.llen("tenantsync:wakeups") for _ in range(500)}
        house.thaw()

    assert max(seen) <= MOST_WAITING + 1  # two beats may look at the same moment
