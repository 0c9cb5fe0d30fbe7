"""Dispatch: claim due units for the free slots of live workers, write the batches down, publish them.

Run by a tick every second. While there is more due than fits, it goes on claiming as slots become free,
until the next tick is near. A message that cannot be published is not taken back: its units are due
again when the time they may take to start has passed.
"""

import time
from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

import structlog

from config.queues import Lane
from db.ids import new_id
from db.racepoints import reach
from db.repositories import ledger, units
from db.repositories.units import START_WITHIN, ClaimedUnit
from db.session import Database
from tenantsync import clock
from tenantsync.dispatching import rules

log = structlog.get_logger(__name__)

BUDGET = 0.9  # seconds of one dispatch; ticks come every second
LANES = (Lane.QUARANTINE, Lane.ISOLATED, Lane.BULK, Lane.SYNC)
RECHECK = 0.02  # seconds between looks for a slot that has become free


class Publish(Protocol):
    """Sends one batch to a lane's queue. Raises PublishFailed."""

    def __call__(self, lane: Lane, batch_id: UUID, batch: Sequence[ClaimedUnit]) -> None: ...


def dispatch(database: Database, publish: Publish, *, batch_size: int, budget: float = BUDGET) -> int:
    """Hand out what is due; returns the number of units."""
    ends, handed = clock.monotonic() + budget, 0
    while True:
        with database.statement() as connection:
            room = ledger.capacity(connection, lanes=LANES)
        free = {lane: rules.free_messages(lane, room[lane]) for lane in LANES}
        full, claimed = any(room[lane].slots and not free[lane] for lane in LANES), 0
        for lane in (lane for lane in LANES if free[lane]):
            for batch_id, batch in _claim(database, lane, free[lane], batch_size):
                publish(lane, batch_id, batch)
                reach("batch.published", lane=lane, units=batch)
                claimed += len(batch)
        handed += claimed
        if clock.monotonic() >= ends or not (claimed or full):
            return handed
        if full:
            time.sleep(RECHECK)


def _claim(database: Database, lane: Lane, free: int, batch_size: int) -> list[tuple[UUID, Sequence[ClaimedUnit]]]:
    """Batches for so many free messages, claimed and written down in one transaction."""
    reach("claim.asked", lane=lane, lease=START_WITHIN)
    with database.transaction() as connection:
        claimed = units.claim(connection, lane=lane, limit=rules.claim_size(lane, free, batch_size))
        batches = [(new_id(), part) for part in rules.cut(lane, claimed, free, batch_size)]
        if batches:
            ledger.open_batches(connection, lane=lane, sizes=[(batch_id, len(batch)) for batch_id, batch in batches])
    reach("claim.committed", lane=lane, units=claimed)
    return batches
