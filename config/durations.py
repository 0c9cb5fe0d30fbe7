"""Durations as people write them in an environment variable."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SHAPE = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")


def parse_duration(value: object) -> object:
    """Turn `30000`, `30s`, `5m`, `1.5h` or `7d` into a timedelta.

    A number without a unit counts milliseconds, because that is what the environment names of the
    seed documents (`SYNC_INTERVAL=30000`, `WORKER_RETRY_DELAY=1000`) have always meant.
    Raises ValueError with the accepted forms; a timedelta passes through untouched.
    """
    if isinstance(value, timedelta):
        return value
    match = _SHAPE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError("should be a duration like 30s, 5m, 2h, 7d, or a number of milliseconds like 30000")
    number, unit = match.groups()
    try:
        return timedelta(seconds=float(number) * _UNITS[unit or "ms"])
    except OverflowError:
        raise ValueError("is longer than any calendar") from None


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
