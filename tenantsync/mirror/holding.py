"""The leases of tenants while their rows are being sent: renewed by a thread, asked about before every call.

A sender that dies is replaced when its short lease ends. One that was only stopped finds out before its next
call that it may be too late, asks, and leaves alone what is somebody else's now. What it sends all the same
can do no harm: versions decide who wins.
"""

import threading
from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType
from typing import Self
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from db.repositories import mirroring
from db.repositories.mirroring import LeasedTenant
from db.session import Database
from tenantsync import clock

log = structlog.get_logger(__name__)

LEASE = timedelta(seconds=6)
"""With the next tick and a start it has to fit into the 10 s that recovery may take."""
RENEWALS = 4  # in the length of a lease


class Holding:
    """Leased tenants, kept until the block ends and then given back, after `pause`."""

    def __init__(self, database: Database, *, limit: int, lease: timedelta = LEASE) -> None:
        """Takes up to `limit` tenants that have something to send; there may be none."""
        self._database = database
        self._lease = lease
        self._lock = threading.Lock()
        self._sure_until = clock.monotonic() + lease.total_seconds()  # reckoned from before the question
        with database.statement() as connection:
            held = mirroring.lease_tenants(connection, limit=limit, lease=lease)
        self._held = {one.tenant_id: one for one in held}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="mirror-leases", daemon=True)
        self.pause = timedelta(0)

    def __bool__(self) -> bool:
        return bool(self._held)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()  # a renewal under way would change the marks by which tenants are given back
        with self._database.statement() as connection:
            mirroring.release(connection, self._held.values(), pause=self.pause)

    @property
    def tenants(self) -> list[UUID]:
        return list(self._held)

    def ours(self, tenants: Iterable[UUID]) -> set[UUID]:
        """Those of the tenants that nobody else has taken. Asks the database if the leases may have ended."""
        with self._lock:
            if clock.monotonic() >= self._sure_until:
                self._renew()
            return self._held.keys() & set(tenants)

    def _keep(self) -> None:
        while not self._ended.wait(self._lease.total_seconds() / RENEWALS):
            try:
                with self._lock:
                    self._renew()
            except SQLAlchemyError as error:
                log.warning("mirror_leases_not_renewed", error=type(error).__name__)

    def _renew(self) -> None:
        asked = clock.monotonic()
        with self._database.statement() as connection:
            answers = mirroring.renew(connection, self._held.values(), lease=self._lease)
        lost = [one.tenant_id for one in answers if one.lost]
        for one in answers:
            if one.lost:
                del self._held[one.tenant_id]
            elif one.lease_until is not None:
                self._held[one.tenant_id] = LeasedTenant(one.tenant_id, one.lease_until)
        if lost:
            log.info("mirror_leases_lost", tenants=len(lost))
        self._sure_until = asked + self._lease.total_seconds()
