"""The server's clock: real, shifted, or held still for deterministic tests."""

import time


class Clock:
    """Gives milliseconds since the epoch, and stamps that never repeat or go back."""

    def __init__(self) -> None:
        self._held_ms: int | None = None
        self._shift_ms = 0
        self._last_stamp = 0

    def now_ms(self) -> int:
        if self._held_ms is not None:
            return self._held_ms
        return time.time_ns() // 1_000_000 + self._shift_ms

    def hold(self, at_ms: int) -> None:
        self._held_ms = at_ms

    def release(self) -> None:
        self._held_ms = None

    def advance(self, by_ms: int) -> None:
        if self._held_ms is None:
            self._shift_ms += by_ms
        else:
            self._held_ms += by_ms

    def stamp(self) -> int:
        self._last_stamp = max(self._last_stamp + 1, self.now_ms())
        return self._last_stamp

    def stamps(self, count: int) -> range:
        """Reserves a run that ends about now: 100,000 seeded events must not reach 100 s into the future."""
        first = max(self._last_stamp + 1, self.now_ms() - count + 1)
        self._last_stamp = max(self._last_stamp, first + count - 1)
        return range(first, first + count)
