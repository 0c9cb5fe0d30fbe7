"""What every scenario works with: the world, chance, and the list of what was struck when."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg2

from sandbox.chaos.checker import Strike
from sandbox.chaos.world import BATCH_RUNNERS, StormWorld, node_of

BUSY = 3.0  # seconds that a strike waits for its victim to have something in its hands
RUNNING = "select count(*) from sync.units where state = 'running' and worker_id = any(%s)"
DISPATCHED = "select count(*) from sync.units where state = 'dispatched' and %s is not null"
LOOK = 0.005  # seconds


class NotRun(Exception):
    """A scenario that this machine cannot be put through; the text says why."""


@dataclass(slots=True)
class Field:
    """The storm's field. `pace` shortens what takes its time: 1 in a full run, less in the short form."""

    world: StormWorld
    rng: random.Random
    scenario: str = ""
    pace: float = 1.0
    strikes: list[Strike] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    """Faults by scenario: kills, terminated backends and reset connections count one each."""
    notes: dict[str, Any] = field(default_factory=dict)
    stopping: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self, seconds: float) -> None:
        """So long, as far as the pace goes."""
        self.stopping.wait(seconds * self.pace)

    def strike(self, *workers: str, faults: int = 1, at: float | None = None) -> None:
        """Note an instant fault; call it right before it happens. No workers means that it meets everybody."""
        moment = time.time() if at is None else at
        self._note(Strike(self.scenario, moment, moment, victims=frozenset(map(node_of, workers))), faults)

    @contextmanager
    def lasting(self, *workers: str, outage: bool, faults: int = 1, since: float | None = None) -> Iterator[None]:
        """A fault as long as the block. Of an outage the clocks begin when it is over."""
        began = time.time() if since is None else since
        try:
            yield
        finally:
            victims = frozenset(map(node_of, workers))
            self._note(Strike(self.scenario, began, time.time(), outage=outage, victims=victims), faults)

    def count(self, faults: int) -> None:
        """More faults of the strike that is under way."""
        with self._lock:
            self.faults[self.scenario] = self.faults.get(self.scenario, 0) + faults

    def when_busy(self, *workers: str) -> None:
        """Return when one of the workers runs a unit, or after a while anyway."""
        self._when(RUNNING, *workers)

    def when_under_way(self) -> None:
        """Return when units are on their way through the broker, or after a while anyway."""
        self._when(DISPATCHED)

    def _when(self, query: str, *workers: str) -> None:
        nodes = [node_of(worker) for worker in workers or BATCH_RUNNERS]
        ends = time.monotonic() + BUSY
        with (
            suppress(psycopg2.Error),
            self.world.postgres.connect("tenantsync") as connection,
            connection.cursor() as cursor,
        ):
            while time.monotonic() < ends:
                cursor.execute(query, (nodes,))
                found = cursor.fetchone()
                if found and found[0]:
                    return
                time.sleep(LOOK)

    def _note(self, strike: Strike, faults: int) -> None:
        with self._lock:
            self.strikes.append(strike)
            self.faults[strike.scenario] = self.faults.get(strike.scenario, 0) + faults


Scenario = Callable[[Field], None]
