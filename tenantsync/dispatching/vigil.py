"""When a worker that receives nothing has to be replaced. Pure."""

from dataclasses import dataclass, field

PATIENCE = 15.0  # seconds


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look at the worker and its queues shows."""

    waiting: int | None
    """Messages in the queues that the worker was started for; None when the broker does not say."""
    free: int
    """Slots that run nothing."""
    received: int
    """Messages ever received."""


@dataclass(slots=True)
class Vigil:
    """Decides when a worker has stopped consuming: everything has spoken against it for `PATIENCE` seconds."""

    since: float | None = field(default=None, init=False)
    """The look at which it began to look so."""
    _received: int = field(default=-1, init=False)

    def is_over(self, sight: Sight, now: float) -> bool:
        """Whether the worker has to be replaced. `now`: seconds of a clock that never runs backwards."""
        idles_beside_work = bool(sight.waiting) and sight.free > 0 and sight.received == self._received
        self._received = sight.received
        if not idles_beside_work:
            self.since = None
            return False
        if self.since is None:
            self.since = now
        return now - self.since >= PATIENCE
