"""A worker whose every statement is heard and may be spoiled; the fixtures are in `tapped_fixtures.py`."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg2
from sqlalchemy.exc import SQLAlchemyError

from config.queues import Lane
from db.repositories.units import ClaimedUnit
from tests.support.fleet import Fleet
from tests.support.statements import Spoil, StatementTap

LEASE = "60s"  # no heartbeat comes between two statements


@dataclass(frozen=True, slots=True)
class Tapped:
    fleet: Fleet
    tap: StatementTap

    def run(
        self,
        unit: ClaimedUnit,
        *,
        lane: Lane = Lane.SYNC,
        at: int | None = None,
        how: Spoil = Spoil.REFUSED,
        matching: str = "",
    ) -> list[str]:
        """Run one unit with its n-th statement spoiled; returns the statements. Failing is its business alone."""
        with self.spoiled(at=at, how=how, matching=matching):
            self.fleet.run_batch(lane, [unit])
        return self.tap.seen

    @contextlib.contextmanager
    def spoiled(self, *, at: int | None = None, how: Spoil = Spoil.REFUSED, matching: str = "") -> Iterator[None]:
        """Statements are heard in the block, and the n-th is spoiled; what comes of that is no error here."""
        self.tap.arm(at=at, how=how, matching=matching)
        try:
            with contextlib.suppress(SQLAlchemyError, psycopg2.Error):
                yield
        finally:
            self.tap.disarm()
