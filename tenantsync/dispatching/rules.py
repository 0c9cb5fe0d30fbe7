"""How much to claim for a lane and how to cut it into messages. Pure."""

from collections.abc import Iterator, Sequence

from config.queues import Lane
from db.repositories.ledger import Capacity
from db.repositories.units import ClaimedUnit

DEPTH = {Lane.SYNC: 2, Lane.BULK: 1, Lane.QUARANTINE: 1, Lane.ISOLATED: 1}
"""Messages per slot: in the sync lane one runs while the next waits, so that a worker never idles for a round trip."""
COMPANY = 15
"""Units of a batch whose worker died that are tried again together. All 400 that two dead children held then run
within a second or two, where one by one they took half a minute; those of a process that dies again are tried alone."""
SMALLEST = 25
"""Units; cutting a claim into smaller messages than this costs more than the second slot brings."""


def free_messages(lane: Lane, capacity: Capacity) -> int:
    """Messages that the lane's live workers can take now."""
    return max(0, capacity.slots * DEPTH[lane] - capacity.busy)


def claim_size(lane: Lane, free: int, batch_size: int) -> int:
    """Units to claim for that many free messages."""
    return free * {Lane.SYNC: batch_size, Lane.QUARANTINE: min(batch_size, COMPANY)}.get(lane, 1)


def cut(lane: Lane, units: Sequence[ClaimedUnit], free: int, batch_size: int) -> Iterator[Sequence[ClaimedUnit]]:
    """Cut claimed units into messages: spread over the free slots in the sync lane, in small company in quarantine,
    and one by one where a unit has to be alone."""
    together = [unit for unit in units if not unit.alone]
    yield from ([unit] for unit in units if unit.alone)
    even = -(-len(together) // max(1, free))
    size = min(batch_size, max(SMALLEST, even) if lane == Lane.SYNC else COMPANY)
    for start in range(0, len(together), size):
        yield together[start : start + size]
