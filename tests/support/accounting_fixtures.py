"""`pytest_plugins = ["tests.support.accounting_fixtures"]`."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.accounting import Ledger
from tests.support.fleet import Fleet


@pytest.fixture
def ledger(make_fleet: Callable[..., Fleet]) -> Ledger:
    """Units are expected to run about once a minute: so often that the middle of an interval is now."""
    now = datetime.now(UTC).timestamp()
    seconds = next(number for number in range(60, 600) if 0.1 < now % number / number < 0.4)
    every = timedelta(seconds=seconds)
    ledger = Ledger(make_fleet(sync_interval=every, worker_retry_delay="1h", sync_retry_ceiling="2h"), every)
    ledger.declare(every)
    ledger.fleet.execute("update sync.policies set since = since - interval '1 day'")
    return ledger
