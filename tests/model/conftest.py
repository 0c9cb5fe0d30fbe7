"""A small storm on the real code: two dispatchers, two workers and two senders, struck at race points, recorded."""

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from config.queues import Lane
from db import racepoints
from db.repositories import ledger, readings, units
from db.repositories.units import ClaimedUnit
from sandbox.tracesteps import TIME_PASSED
from tenantsync.dispatching import service as dispatching
from tests.support.fleet import Fleet
from tests.support.mirror import MirrorSide
from tests.support.waiting import wait_until

AGE_UNITS = """
with lk as materialized (  -- in the product's order, as runs are under way
  select unit_id from sync.units where lease_until is not null order by unit_id for no key update)
update sync.units u set lease_until = now() - interval '1 second' from lk where u.unit_id = lk.unit_id
"""
AGE_THE_REST = """
update mirror.turns set lease_until = now() - interval '1 second', ready_at = now() where lease_until is not null;
update worker.tasks set lease_until = now() - interval '1 second' where lease_until is not null;
delete from sync.cooldowns;
"""


class Struck(Exception):
    """What a test does to a thread instead of a SIGKILL: it gets no further."""


STOPS = ("start.committed", "fence.asked", "quiet.asked")
"""Where a thread may stand still: it holds no lock there. Its question may be asked, and be answered much later."""
AT_ONCE = 2  # threads that stand still; each may hold a connection


class Strikes:
    """Records every point that is reached. At some of them a thread is killed, before or after the line, or stopped."""

    def __init__(self, path: Path) -> None:
        self.recorder = racepoints.Recorder(path)
        self.chance = random.Random(3)  # noqa: S311 — the same strikes every time, as far as threads allow
        self.rate = 0.0
        self.struck = 0
        self.stopped = 0
        self.stops = False
        self._resume = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, point: str, facts: Mapping[str, Any]) -> None:
        with self._lock:
            strikes, unheard = self.chance.random() < self.rate, self.chance.random() < 0.5
            self.struck += strikes
            stops = not strikes and self.stops and point in STOPS and self.stopped < AT_ONCE
            self.stopped += stops
            resume = self._resume
        if strikes and unheard:
            raise Struck(point)
        self.recorder(point, facts)
        if strikes:
            raise Struck(point)
        if stops:
            resume.wait(30)

    def resume(self) -> None:
        """Whoever stands still goes on."""
        with self._lock:
            self._resume.set()
            self._resume, self.stopped, self.stops = threading.Event(), 0, False


class Storm:
    """What a round does: claim twice, lose and repeat messages, run them in two workers, drain twice.

    Some runs stand still until their leases have ended and others have taken their units and finished.
    """

    def __init__(self, fleets: tuple[Fleet, Fleet], mirror: MirrorSide, strikes: Strikes) -> None:
        self.fleets = fleets
        self.mirror = mirror
        self.strikes = strikes
        self.threads = ThreadPoolExecutor(12)
        self.dispatchers = ThreadPoolExecutor(2)

    def round(self) -> None:
        self.strikes.stops = self.strikes.rate > 0
        under_way = self._wave()
        wait_until(lambda: self.strikes.stopped or all(one.done() for one in under_way), about="a run to stand still")
        self.strikes.stops = False
        if self.strikes.rate:
            self._age(AGE_UNITS)
            for _ in range(2):  # the first finds the suspects, the second claims them
                wait(self._wave())
        self.strikes.resume()
        under_way += [self.threads.submit(self._drain) for _ in range(2)]
        for work in under_way:
            work.result()
        self._age(AGE_UNITS)
        self._age(AGE_THE_REST)

    def _wave(self) -> "list[Future[None]]":
        """Everything is due, is claimed by two dispatchers, and is on its way to two workers."""
        self.fleets[0].due()
        dispatching_ones = [self.dispatchers.submit(self._dispatch, fleet) for fleet in self.fleets]
        messages = [message for sent in dispatching_ones for message in sent.result()]
        chance = self.strikes.chance
        times = (0, 1, 1, 1, 2) if self.strikes.rate else (1,)
        arriving = [message for message in messages for _ in range(chance.choice(times))]
        chance.shuffle(arriving)
        return [self.threads.submit(self._run, self.fleets[place % 2], *m) for place, m in enumerate(arriving)]

    def _age(self, statement: str) -> None:
        """As if all leases had ended, which the trace is told. Nobody claims meanwhile."""
        self.strikes.recorder(TIME_PASSED, {})
        self.fleets[0].execute(statement)
        self.strikes.recorder(TIME_PASSED, {})

    def settle(self) -> None:
        """Strikes are over: an operator releases what died alone three times, and all is run until nothing is due."""
        self.strikes.rate = 0.0
        with self.fleets[0].database.transaction() as connection:
            for parked in readings.parked_units(connection, limit=1000):
                units.release(connection, unit_id=parked["unit_id"])
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
    made.dispatchers.shutdown()
