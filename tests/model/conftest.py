"""A small storm on the real code: two dispatchers, two workers and two senders, struck at race points, recorded."""

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from config.queues import Lane
from db import racepoints
from db.repositories import ledger
from db.repositories.units import ClaimedUnit
from sandbox.tracesteps import TIME_PASSED
from tenantsync.dispatching import service as dispatching
from tests.support.fleet import Fleet
from tests.support.mirror import MirrorSide

AGE = """
update sync.units set lease_until = now() - interval '1 second' where lease_until is not null;
update mirror.turns set lease_until = now() - interval '1 second', ready_at = now() where lease_until is not null;
update worker.tasks set lease_until = now() - interval '1 second' where lease_until is not null;
"""


class Struck(Exception):
    """What a test does to a thread instead of a SIGKILL: it gets no further."""


class Strikes:
    """Records every point that is reached, and stops threads at some of them, before or after the line."""

    def __init__(self, path: Path) -> None:
        self.recorder = racepoints.Recorder(path)
        self.chance = random.Random(3)  # noqa: S311 — the same strikes every time, as far as threads allow
        self.rate = 0.0
        self.struck = 0
        self._lock = threading.Lock()

    def __call__(self, point: str, facts: Mapping[str, Any]) -> None:
        with self._lock:
            strikes, unheard = self.chance.random() < self.rate, self.chance.random() < 0.5
            self.struck += strikes
        if strikes and unheard:
            raise Struck(point)
        self.recorder(point, facts)
        if strikes:
            raise Struck(point)


class Storm:
    """What a round does: claim twice, lose and repeat messages, run them in two workers, drain twice."""

    def __init__(self, fleets: tuple[Fleet, Fleet], mirror: MirrorSide, strikes: Strikes) -> None:
        self.fleets = fleets
        self.mirror = mirror
        self.strikes = strikes
        self.threads = ThreadPoolExecutor(4)

    def round(self) -> None:
        first = self.fleets[0]
        first.due()
        messages = [message for sent in self.threads.map(self._dispatch, self.fleets) for message in sent]
        chance = self.strikes.chance
        arriving = [message for message in messages for _ in range(chance.choice((0, 1, 1, 1, 2)))]
        if not self.strikes.rate:
            arriving = messages
        chance.shuffle(arriving)
        running = [self.threads.submit(self._run, self.fleets[place % 2], *m) for place, m in enumerate(arriving)]
        draining = [self.threads.submit(self._drain) for _ in range(2)]
        for work in (*running, *draining):
            work.result()
        self.age()

    def age(self) -> None:
        """As if all leases had ended, which the trace is told."""
        self.fleets[0].execute(AGE)
        self.fleets[0].execute("delete from sync.cooldowns")
        self.strikes.recorder(TIME_PASSED, {})

    def settle(self) -> None:
        """Strikes are over: until nothing is due any more."""
        self.strikes.rate = 0.0
        for _ in range(4):
            self.round()

    def _dispatch(self, fleet: Fleet) -> list[tuple[Lane, UUID, list[ClaimedUnit]]]:
        sent: list[tuple[Lane, UUID, list[ClaimedUnit]]] = []
        reading = {"slots": 500, "cpu": 0, "memory": 0, "active": 0, "now": datetime.now(UTC)}
        with fleet.database.transaction() as connection:
            queues = [lane.queue.value for lane in Lane]
            ledger.heartbeat(connection, worker="everybody", queues=queues, reading=reading)
        with suppress(Struck):
            dispatching.dispatch(
                fleet.database, lambda lane, batch, units: sent.append((lane, batch, list(units))),
                batch_size=5, budget=0.0,
            )  # fmt: skip
        return sent

    def _run(self, fleet: Fleet, lane: Lane, batch: UUID, claimed: list[ClaimedUnit]) -> None:
        with suppress(Struck):
            fleet.runner.run_batch(batch, lane, [(unit.unit_id, unit.fence) for unit in claimed])

    def _drain(self) -> None:
        with suppress(Struck):
            self.mirror.drain(self.fleets[0].database, batch_size=20)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace.jsonl"


@pytest.fixture
def storm(make_fleet: Callable[..., Fleet], mirror: MirrorSide, trace: Path) -> Iterator[Storm]:
    """Two workers that record what they do, and are struck once `strikes.rate` says so."""
    strikes = Strikes(trace)
    made = Storm((make_fleet(worker="worker-1"), make_fleet(worker="worker-2")), mirror, strikes)
    with racepoints.hooked(strikes):
        yield made
    made.threads.shutdown()
