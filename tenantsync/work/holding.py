"""Keeping a process while a handler runs it: the lease, the time it may take, and whoever wants it to stop."""

import threading
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from db.session import Database
from tenantsync import clock
from tenantsync.processes import service
from tenantsync.processes.values import Held, ProcessLost, Wish

log = structlog.get_logger(__name__)

AGAIN = 0.3  # seconds, where an end could not be written
SLOWEST = 1.0  # seconds between two renewals: so old may be what `cancelled` says

Stop = Callable[[], float | None]
"""Seconds that are left once the worker was told to stop; None until then."""


def never() -> float | None:
    """Nobody stops this worker."""
    return None


class Keeper:
    """Renews the lease from a thread for as long as the block lasts.

    When the time is up, `give_up` ends the process; when the worker's grace is, the process is handed back. Either way
    the handler, which goes on until its child is killed, writes nothing any more: the fence does not let it.
    """

    def __init__(
        self,
        database: Database,
        held: Held,
        *,
        lease: timedelta,
        timeout: timedelta,
        stop: Stop,
        give_up: Callable[[Connection], object],
    ) -> None:
        self._database, self._held, self._lease, self._stop = database, held, lease, stop
        self._give_up = give_up
        self._ends = clock.monotonic() + timeout.total_seconds()
        self._every = min(SLOWEST, lease.total_seconds() / 3)
        self._renewed = clock.monotonic()
        self._wish = Wish.GO_ON
        self._late = False
        self._done = threading.Event()
        self._turned = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="task-heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    @property
    def lost(self) -> bool:
        """Whether the process is somebody else's, or over."""
        return self._wish is Wish.LOST

    @property
    def stopping(self) -> bool:
        """Whether the worker was told to stop."""
        return self._stop() is not None

    def wish(self, *, newest: bool) -> Wish:
        """What people want of the process: as it is in the database now, or as it was within the last second."""
        if self._wish is not Wish.LOST and (newest or clock.monotonic() - self._renewed > 2 * self._every):
            self._renew()
        return self._wish

    def wait(self, seconds: float) -> None:
        """Wait; less long when somebody wants something else."""
        ends = clock.monotonic() + seconds
        while (left := ends - clock.monotonic()) > 0 and self._wish is Wish.GO_ON and not self.stopping:
            self._turned.wait(min(left, 0.2))

    def _keep(self) -> None:
        while not self._done.wait(self._pause()):
            try:
                if clock.monotonic() >= self._ends:
                    self._late = True
                    self._end(self._give_up)
                elif self._stop() == 0:
                    self._end(lambda connection: service.hand_back(connection, held=self._held))
                else:
                    self._renew()
            except SQLAlchemyError as error:
                log.warning("task_heartbeat_failed", error=type(error).__name__)
            if self._wish is Wish.LOST:
                return

    def _pause(self) -> float:
        left = self._ends - clock.monotonic()
        return min(self._every, left) if left > 0 and not self._late else AGAIN

    def _end(self, end: Callable[[Connection], object]) -> None:
        try:
            with self._database.transaction() as connection:
                end(connection)
        except ProcessLost:
            pass
        self._hear(Wish.LOST)

    def _renew(self) -> None:
        asked = clock.monotonic()
        with self._database.statement() as connection:
            wish = service.renew(connection, held=self._held, lease=self._lease)
        self._renewed = asked
        self._hear(wish)

    def _hear(self, wish: Wish) -> None:
        if self._wish is not Wish.LOST:
            self._wish = wish
        if wish is not Wish.GO_ON:
            self._turned.set()
