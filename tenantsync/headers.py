"""Headers that several protocols share."""

from datetime import UTC
from email.utils import parsedate_to_datetime
from math import isnan

from tenantsync import clock

RATE_PAUSE = 30.0  # seconds, when a rate limit comes without Retry-After; Google's windows are a minute
LONGEST_PAUSE = 6 * 3600.0  # seconds; a server may not silence an account for longer with one header


def retry_after(value: str | None) -> float | None:
    """Seconds to wait by a Retry-After header (RFC 9110 §10.2.3): delta-seconds or an HTTP date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value)
        except ValueError:
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        seconds = (when - clock.now()).total_seconds()
    if isnan(seconds):
        return None
    return min(max(seconds, 0.0), LONGEST_PAUSE)
