"""Waiting for conditions, never for time."""

import time
from collections.abc import Callable

LONGEST = 15.0  # seconds; generous, because a condition that holds ends the wait at once
PAUSE = 0.005


class NeverHeld(AssertionError):
    """The condition did not come true in time."""


def wait_until(condition: Callable[[], object], *, about: str, longest: float = LONGEST) -> None:
    """Return as soon as the condition holds; raises NeverHeld with `about` otherwise."""
    ends = time.monotonic() + longest
    while not condition():
        if time.monotonic() > ends:
            raise NeverHeld(f"{about} did not happen within {longest} s")
        time.sleep(PAUSE)
