"""First on the path of processes whose clock is stepped.

libfaketime refuses `clock_nanosleep` until a moment of the monotonic clock (EINVAL) when it leaves that clock alone,
and Python sleeps by nothing else. Waiting for no file at all takes as long, and libfaketime lets it through.
"""

import select
import time


def _sleep(seconds: float, /) -> None:
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    select.select((), (), (), seconds)


time.sleep = _sleep  # type: ignore[assignment]
