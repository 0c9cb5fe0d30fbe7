"""Beat's scheduler on a clock of the test's own: what it rings, when, and what it leaves alone."""

import importlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from kombu import Queue as BrokerQueue

from tests.support.product import imported_tasks

MOST_WAITING, LOOK_AGAIN = 5, 0.25


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app of two wake-ups, on a broker in this process's memory, whose queues are this test's alone."""
    loud, soft = f"loud-{uuid4()}", f"soft-{uuid4()}"
    made = Celery("test", set_as_current=False)
    made.conf.update(
        broker_url="memory://",
        task_queues=[BrokerQueue(name, routing_key=name) for name in (loud, soft)],
        beat_schedule={
            "loud": {"task": "ring.loud", "schedule": timedelta(seconds=1), "options": {"queue": loud}},
            "soft": {"task": "ring.soft", "schedule": timedelta(seconds=5), "options": {"queue": soft}},
        },
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def beat() -> Iterator[Any]:
    """The module tasks.beat."""
    with imported_tasks():
        yield importlib.import_module("tasks.beat")


@pytest.fixture
def make_metronome(beat: Any, clock: Clock) -> Iterator[Callable[[Celery], Any]]:
    made: list[Any] = []

    def make(app: Celery) -> Any:
        made.append(beat.Metronome(app, monotonic=clock))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def metronome(app: Celery, make_metronome: Callable[[Celery], Any]) -> Any:
    return make_metronome(app)


class Ear:
    """What was rung and not taken."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def waiting(self, name: str) -> int:
        with self._app.connection_for_read() as connection:
            channel: Any = connection.default_channel
            return int(channel._size(self._queue(name)))

    def take_all(self, name: str) -> None:
        with self._app.connection_for_read() as connection:
            channel: Any = connection.default_channel
            channel.queue_purge(self._queue(name))

    def _queue(self, name: str) -> str:
        return str(self._app.conf.beat_schedule[name]["options"]["queue"])


@pytest.fixture
def ear(app: Celery) -> Ear:
    return Ear(app)


def test_every_entry_is_rung_at_once_and_then_once_an_interval(metronome: Any, clock: Clock, ear: Ear) -> None:
    for _ in range(40):
        metronome.tick()
        clock.seconds += 0.1

    assert (ear.waiting("loud"), ear.waiting("soft")) == (4, 1)


def test_it_says_how_long_to_sleep(metronome: Any, clock: Clock) -> None:
    metronome.tick()
    clock.seconds += 0.4

    assert metronome.tick() == pytest.approx(0.6)


def test_a_beat_that_was_frozen_rings_once_when_it_wakes(metronome: Any, clock: Clock, ear: Ear) -> None:
    metronome.tick()
    clock.seconds += 3_600
    metronome.tick()
    metronome.tick()

    assert (ear.waiting("loud"), ear.waiting("soft")) == (2, 2)


def test_nothing_piles_up_where_nobody_listens(metronome: Any, clock: Clock, ear: Ear) -> None:
    for _ in range(1_000):
        metronome.tick()
        clock.seconds += 1.0

    assert (ear.waiting("loud"), ear.waiting("soft")) == (MOST_WAITING, MOST_WAITING)


def test_nothing_piles_up_however_many_beats_there_are(
    app: Celery, make_metronome: Callable[[Celery], Any], clock: Clock, ear: Ear
) -> None:
    beats = [make_metronome(app) for _ in range(3)]
    for _ in range(100):
        for one in beats:
            one.tick()
        clock.seconds += 1.0

    assert ear.waiting("loud") == MOST_WAITING


def test_a_full_queue_is_looked_at_again_soon_and_holds_up_no_other(metronome: Any, clock: Clock, ear: Ear) -> None:
    for _ in range(MOST_WAITING + 1):
        metronome.tick()
        clock.seconds += 1.0
    ear.take_all("soft")
    clock.seconds += 5.0

    pause = metronome.tick()

    assert pause == LOOK_AGAIN
    assert (ear.waiting("loud"), ear.waiting("soft")) == (MOST_WAITING, 1)
    ear.take_all("loud")
    metronome.tick()
    assert ear.waiting("loud") == 1


def test_of_two_entries_of_one_full_queue_neither_starves_the_other(
    app: Celery, make_metronome: Callable[[Celery], Any], clock: Clock
) -> None:
    queue = f"shared-{uuid4()}"
    app.conf.task_queues = [BrokerQueue(queue, routing_key=queue)]
    app.conf.beat_schedule = {
        name: {"task": f"ring.{name}", "schedule": timedelta(seconds=1), "options": {"queue": queue}} for name in "ab"
    }
    metronome = make_metronome(app)
    heard: list[str] = []

    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        for _ in range(200):
            metronome.tick()
            message = channel.basic_get(queue, no_ack=True)  # one a second is taken where two are rung
            heard.append(message.headers["task"])
            clock.seconds += 1.0

    assert abs(heard.count("ring.a") - heard.count("ring.b")) < 10


def test_wake_ups_carry_no_expiry_that_would_compare_two_clocks(app: Celery, metronome: Any, ear: Ear) -> None:
    metronome.tick()

    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        message = channel.basic_get(app.conf.beat_schedule["loud"]["options"]["queue"], no_ack=True)
    assert message.headers["expires"] is None
    assert message.headers["eta"] is None


def test_a_broker_that_is_away_ends_nothing_and_is_tried_again_soon(
    make_metronome: Callable[[Celery], Any],
) -> None:
    app = Celery("test", set_as_current=False)
    app.conf.update(
        broker_url="redis://127.0.0.1:1/0",
        beat_schedule={"a": {"task": "ring.a", "schedule": timedelta(seconds=1), "options": {"queue": "celery"}}},
    )
    metronome = make_metronome(app)

    pauses = {metronome.tick() for _ in range(3)}

    assert pauses == {LOOK_AGAIN}
