"""A worker that is connected and does not consume is replaced: it ends, and its orchestrator starts another.

Celery's consumer can lose its place on Redis without an error (docs/decisions/0016-outages.md): messages wait,
slots are free, and nothing is received. No timeout of Celery's own ends that.
"""

import os
import signal
import threading
from typing import Any

import structlog
from celery import Celery, bootsteps
from kombu.exceptions import OperationalError

from tasks import stopping
from tasks.broker import length
from tenantsync import clock
from tenantsync.dispatching.vigil import PATIENCE, Sight, Vigil

log = structlog.get_logger(__name__)

LOOK = 2.0  # seconds between two looks


def install(app: Celery) -> None:
    """Register with the app."""
    app.steps["worker"].add(Watchdog)


class Watchdog(bootsteps.StartStopStep):
    """Looks every two seconds, over a connection of its own, from a thread of the worker's main process."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, parent: Any) -> None:
        self._stopped.clear()
        queues = [str(name) for name in parent.app.amqp.queues.consume_from]  # before anybody cancels one
        self._thread = threading.Thread(target=self._watch, args=(parent, queues), name="watchdog", daemon=True)
        self._thread.start()

    def stop(self, parent: Any) -> None:
        """Not waited for: the broker may keep the thread for some seconds, and it touches nothing."""
        self._stopped.set()

    def _watch(self, parent: Any, queues: list[str]) -> None:
        vigil = Vigil()
        while not self._stopped.wait(LOOK):
            sight = Sight(
                waiting=_waiting(parent.app, queues),
                free=(parent.pool.num_processes if parent.pool else 0) - len(parent.state.active_requests),
                received=parent.state.all_total_count[0] + len(parent.state.reserved_requests),
            )
            if vigil.is_over(sight, clock.monotonic()) and stopping.asked_at() is None:
                log.critical("worker_not_consuming", queues=queues, waiting=sight.waiting, patience=PATIENCE)
                _replace()
                return


def _waiting(app: Any, queues: list[str]) -> int | None:
    try:
        with app.connection_for_read() as connection:
            return sum(length(connection, queue) for queue in queues)
    except (OperationalError, OSError):
        return None


def _replace() -> None:
    """Stop as if told to. A main thread that hangs hears no signal, so the deadline is set here."""
    stopping.announce()
    os.kill(os.getpid(), signal.SIGTERM)
