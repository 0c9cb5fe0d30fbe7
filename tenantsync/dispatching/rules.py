"""How much to claim for a lane and how to cut it into messages. Pure."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from config.queues import Lane
from db.repositories.ledger import Capacity

T = TypeVar("T")

DEPTH = {Lane.SYNC: 2, Lane.BULK: 1, Lane.QUARANTINE: 1, Lane.ISOLATED: 1}
"""Messages per slot: in the sync lane one runs while the next waits, so that a worker never idles for a round trip."""
SMALLEST = 25
"""Units; cutting a claim into smaller messages than this costs more than the second slot brings."""


def free_messages(lane: Lane, capacity: Capacity) -> int:
    """Messages that the lane's live workers can take now."""
    return max(0, capacity.slots * DEPTH[lane] - capacity.busy)


def claim_size(lane: Lane, free: int, batch_size: int) -> int:
    """Units to claim for that many free messages."""
    return free * (batch_size if lane == Lane.SYNC else 1)


def cut(lane: Lane, units: Sequence[T], free: int, batch_size: int) -> Iterator[Sequence[T]]:
    """Cut claimed units into messages: spread over the free slots in the sync lane, one by one elsewhere."""
    if lane != Lane.SYNC:
        size = 1
    else:
        even = -(-len(units) // max(1, free))
        size = min(batch_size, max(SMALLEST, even))
    for start in range(0, len(units), size):
        yield units[start : start + size]
