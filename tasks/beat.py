"""Beat's scheduler: rings wake-ups on a clock that nobody can set, and outlives whatever the broker does.

Celery's own reckons in wall-clock time: stepped back an hour it is silent for an hour; and it waits for a broker that
is away at intervals of its own. Several of these may ring at once: what is rung for happens once, because it is
rows. Figures and the alternatives that were tried: docs/decisions/0012-beats-are-wake-ups.md.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from celery import Celery
from celery.beat import Scheduler
from kombu import Connection

from tasks import broker
from tenantsync import clock

log = structlog.get_logger(__name__)

MOST_WAITING = 5
"""Messages in a queue beyond which no wake-up joins them. They need no expiry then, which would compare the clocks of
two machines: every wake-up of a beat whose clock lags would be dropped."""
LOOK_AGAIN = 0.25  # seconds, where a queue was full or the broker away
LONGEST_PAUSE = 1.0  # seconds


class Metronome(Scheduler):
    """Rings each entry once an interval, the longest overdue first. Never rings twice for what it slept through.

    `monotonic`: seconds of a clock that never runs backwards.
    """

    def __init__(
        self, app: Celery, *args: Any, monotonic: Callable[[], float] = clock.monotonic, **options: Any
    ) -> None:
        self._monotonic = monotonic
        self._silent = False
        super().__init__(app, *args, **options)

    def setup_schedule(self) -> None:
        wake_ups: Any = self.app.conf.beat_schedule
        self.merge_inplace(wake_ups)
        self._every = {name: one["schedule"].total_seconds() for name, one in wake_ups.items()}
        self._queue: dict[str, str] = {name: one["options"]["queue"] for name, one in wake_ups.items()}
        self._due = dict.fromkeys(wake_ups, self._monotonic())

    def tick(self, *_: Any, **__: Any) -> float:
        """Ring what is due; returns the seconds until the next look."""
        for name in sorted(self._due, key=lambda each: self._due[each]):
            if self._due[name] <= self._monotonic() and self._rung(name):
                self._due[name] = self._monotonic() + self._every[name]
        pause = min(self._due.values(), default=math.inf) - self._monotonic()
        return min(pause if pause > 0 else LOOK_AGAIN, LONGEST_PAUSE)

    def _rung(self, name: str) -> bool:
        """Whether the wake-up was sent. It is not when enough wait already, and when the broker does not take it."""
        try:
            producer = self.producer
            if broker.length(self.connection, self._queue[name]) >= MOST_WAITING:
                return False
            self.apply_async(self.schedule[name], producer=producer, advance=False)
        except Exception as error:  # noqa: BLE001 — whatever a broker or its client comes up with, beat goes on
            self._hang_up(error)
            return False
        if self._silent:
            log.info("beat_heard_again")
            self._silent = False
        return True

    def _ensure_connected(self) -> Connection:
        """One try. Celery's own would try at growing intervals, up to 30 s after the broker is back."""
        self.connection.connect()
        return self.connection

    def _hang_up(self, error: Exception) -> None:
        """Forget the connection, so that the next wake-up makes another; said once an outage."""
        if not self._silent:
            log.warning("beat_not_heard", error=type(error).__name__)
            self._silent = True
        self.__dict__.pop("producer", None)
        connection: Connection | None = self.__dict__.pop("connection", None)
        if connection is not None:
            with suppress(Exception):
                connection.release()
