"""Keeps editing calendars at their providers, as their people would."""

import random
import threading
import time
from types import TracebackType
from typing import Self

import httpx

from sandbox.google.control import ControlRefusedError
from sandbox.population import Planted, as_ics, sketches
from sandbox.world import World

ROUND = 0.25  # seconds
GOOGLE_SHARE = 0.95  # a PUT to the CalDAV server costs it some 15 ms, an edit at the stand-in a fraction of one


class Gardener:
    """Edits at a rate until it is stopped: inserts, changes, deletes, moved and cancelled instances."""

    def __init__(self, world: World, planted: list[Planted], *, edits_per_second: float, seed: int = 3) -> None:
        self._world = world
        self._rng = random.Random(seed)
        self._google = [(email, calendar) for one in planted for email, names in one.google for calendar in names]
        self._caldav = [place for one in planted for place in one.caldav]
        self._rate = edits_per_second
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="gardener", daemon=True)
        self.edits = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(10)

    def _work(self) -> None:
        with self._world.google.control() as google:
            while not self._stop.is_set():
                began = time.monotonic()
                budget = int(self._rate * ROUND) or 1
                try:
                    for _ in range(4):
                        email, calendar = self._rng.choice(self._google)
                        share = max(1, int(budget * GOOGLE_SHARE / 4))
                        self.edits += google.churn(share, account=email, calendar=calendar)
                    self._edit_caldav(max(1, int(budget * (1 - GOOGLE_SHARE))))
                except (httpx.HTTPError, ControlRefusedError):
                    continue
                self._stop.wait(max(0.0, ROUND - (time.monotonic() - began)))

    def _edit_caldav(self, edits: int) -> None:
        if not self._caldav:
            return
        user, calendar = self._rng.choice(self._caldav)
        url = self._world.radicale.calendar_url(user, calendar)
        with self._world.radicale.client(user) as client:
            for sketch in sketches(self._rng, edits):
                name = f"{user}-{self._rng.randrange(250)}"
                if self._rng.random() < 0.2:
                    client.delete(f"{url}{name}.ics")
                else:
                    client.put(f"{url}{name}.ics", content=as_ics(sketch, name).encode())
                self.edits += 1
