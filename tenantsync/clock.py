"""The only reader of this machine's clock. Leases never use it: they live on the database's."""

import time
from datetime import UTC, datetime


def now() -> datetime:
    """The present moment, with its zone."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds that never run backwards, for measuring how long something took."""
    return time.monotonic()
