"""Stopping in time: whoever tells a worker to stop tells its children too, and what does not end is ended.

Celery waits for the tasks of its children without a limit, and tells them nothing: a first sync would hold a
worker for half an hour. Here the children learn of it at once, through memory that they share with their
parent, let their runs finish within WORKER_SHUTDOWN_GRACE and hand the others back.
"""

import mmap
import os
import signal
import struct
import threading
from collections.abc import Callable
from typing import Any

import psutil
import structlog
from celery import Celery, bootsteps, signals

from config.settings import get_settings
from tenantsync import clock

log = structlog.get_logger(__name__)

LOOK = 0.2  # seconds between two looks at the shared moment
MARGIN = 6.0  # seconds after the grace for handing back and farewells; then the worker is ended
EXIT_FORCED = 4

_moment = mmap.mmap(-1, 8)  # made before the children are forked, so that all of them see what their parent writes


def install(app: Celery) -> None:
    """Register with the app."""
    app.steps["worker"].add(Deadline)
    signals.worker_shutting_down.connect(announce, weak=False)


def announce(**_: Any) -> None:
    """The worker is to stop, from now on. Called inside a signal's handler: takes no lock."""
    if asked_at() is None:
        _moment[:8] = struct.pack("d", clock.monotonic())


def asked_at() -> float | None:
    """When this worker was told to stop, by the machine's monotonic clock, which its processes share."""
    (moment,) = struct.unpack("d", _moment[:8])
    return moment or None


def time_left() -> float:
    """Seconds until the grace is over."""
    asked = asked_at()
    grace: float = get_settings().worker_shutdown_grace.total_seconds()
    return grace if asked is None else max(0.0, asked + grace - clock.monotonic())


def when_asked(act: Callable[[float], object]) -> None:
    """Call `act` with the seconds that are left, in a thread of its own, as soon as the worker is told to stop."""

    def watch() -> None:
        pause = threading.Event()
        while asked_at() is None:
            pause.wait(LOOK)
        try:
            act(time_left())
        except Exception:
            log.exception("stopping_failed")

    threading.Thread(target=watch, name="stopping", daemon=True).start()


class Deadline(bootsteps.StartStopStep):
    """Ends the worker and its children when they are not gone soon after the grace."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        when_asked(_end_when_late)

    def close(self, parent: Any) -> None:
        announce()  # remote control stops a worker without a signal

    def stop(self, parent: Any) -> None:
        """Celery stops the pool after this, and the thread goes on watching."""


def _end_when_late(left: float) -> None:
    threading.Event().wait(left + MARGIN)
    end_now("shutdown_forced")


def end_now(event: str, **about: Any) -> None:
    """End this process and its children at once, and say so. What they ran comes back when its leases end."""
    log.critical(event, **about)
    for child in psutil.Process().children(recursive=True):
        try:
            child.send_signal(signal.SIGKILL)
        except psutil.Error:
            continue
    os._exit(EXIT_FORCED)
