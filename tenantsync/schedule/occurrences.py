"""Doing an occurrence: it is begun once at a time, held by a lease that a thread renews, and ended under its fence."""

import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from db.racepoints import reach
from db.repositories import schedules
from db.repositories.schedules import Begun
from db.session import Database
from tenantsync import clock

log = structlog.get_logger(__name__)

Step = Callable[[], None]
"""Called between two steps of a long job. Raises OccurrenceLost once somebody else does it."""
Work = Callable[[Step], Mapping[str, Any] | None]
"""A job; what it returns stands in the ledger. Raises Unfinished when it did what it could."""


class OccurrenceLost(Exception):
    """The lease ended before it was renewed, and the occurrence is somebody else's or over."""


class Unfinished(Exception):
    """A job that could not do everything, for a reason that says what to do; no bug, so nothing is raised further."""

    def __init__(self, reason: str, result: Mapping[str, Any]) -> None:
        super().__init__(reason)
        self.result = result


def carry_on() -> None:
    """The step of a job that nobody else can be at."""


def run(database: Database, occurrence: UUID, work: Work, *, worker: str, lease: timedelta) -> bool:
    """Do an occurrence; False if it is over, or somebody is at it, or took it from us.

    An error of the work fails the occurrence, with its type as reason, and is raised.
    """
    reach("occurrence.asked", task=occurrence, lease=lease)
    with database.transaction() as connection:
        begun = schedules.begin(connection, occurrence=occurrence, worker=worker, lease=lease)
    reach("occurrence.begun", task=occurrence, attempt=begun.attempt if begun else 0, won=begun is not None)
    if begun is None:
        return False
    result: Mapping[str, Any] | None = None
    error: str | None = None
    with _Held(database, begun, worker=worker, lease=lease) as held:
        try:
            result = work(held.step)
        except Unfinished as unfinished:
            result, error = unfinished.result, str(unfinished)
        except OccurrenceLost:
            log.warning("occurrence_lost", kind=begun.kind, attempt=begun.attempt)
            return False
        except Exception as failure:
            _end(database, begun, None, type(failure).__name__)
            raise
    return _end(database, begun, result, error)


def _end(database: Database, begun: Begun, result: Mapping[str, Any] | None, error: str | None) -> bool:
    reach("occurrence.ending", task=begun.occurrence, attempt=begun.attempt)
    with database.transaction() as connection:
        ours = schedules.end(connection, begun=begun, result=result, error=error)
    reach("occurrence.ended", task=begun.occurrence, attempt=begun.attempt, won=ours)
    if not ours:
        log.warning("occurrence_lost", kind=begun.kind, attempt=begun.attempt)
    return ours


class _Held:
    """Renews the lease three times in its length, from a thread, for as long as the block lasts."""

    def __init__(self, database: Database, begun: Begun, *, worker: str, lease: timedelta) -> None:
        self._database, self._begun, self._worker, self._lease = database, begun, worker, lease
        self._renewed = clock.monotonic()
        self._lost = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="occurrence-heartbeat", daemon=True)

    def __enter__(self) -> "_Held":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def step(self) -> None:
        """Raises OccurrenceLost once it is not ours; asks the database when the lease may have ended meanwhile."""
        if not self._lost and clock.monotonic() - self._renewed > self._lease.total_seconds():
            self._renew()  # this process stood still, its thread too
        if self._lost:
            raise OccurrenceLost

    def _beat(self) -> None:
        while not self._done.wait(self._lease.total_seconds() / 3):
            try:
                self._renew()
            except SQLAlchemyError as error:
                log.warning("occurrence_heartbeat_failed", error=type(error).__name__)

    def _renew(self) -> None:
        asked = clock.monotonic()
        with self._database.statement() as connection:
            if schedules.renew(connection, begun=self._begun, worker=self._worker, lease=self._lease):
                self._renewed = asked
            else:
                self._lost = True
