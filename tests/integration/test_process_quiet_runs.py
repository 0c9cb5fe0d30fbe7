"""The fast path: runs that nobody watches send no statement about processes."""

from collections.abc import Callable

import pytest

from config.queues import Lane
from sandbox.google.control import GoogleControl
from tests.support.fleet import Fleet, TenantHandle
from tests.support.tapped import Tapped

pytest_plugins = ["tests.support.tapped_fixtures"]

ANN = "ann@example.test"


@pytest.fixture
def synced(fleet: Fleet, google: GoogleControl) -> TenantHandle:
    """A tenant whose first sync is over, and whose next run nobody asked for."""
    tenant = fleet.tenant()
    fleet.google(tenant, google, ANN)
    fleet.run()
    fleet.execute("update sync.calendars set next_due_at = now()")
    fleet.execute("update sync.units set next_due_at = now(), wanted = false")
    fleet.execute("update sync.turns set ready_at = now()")
    return tenant


@pytest.mark.parametrize(("changes", "usual"), [(0, 7), (5, 20)])
def test_a_run_that_nobody_watches_sends_no_statement_about_processes(
    fleet: Fleet, google: GoogleControl, synced: TenantHandle, tapped: Callable[[], Tapped], changes: int, usual: int
) -> None:
    """`usual` is what such a run cost before there were processes."""
    google.churn(changes, account=ANN)
    (unit,) = fleet.claim(Lane.SYNC)

    statements = tapped().run(unit)

    assert any("copy sync.staged_events" in one for one in statements) == bool(changes)
    assert len(statements) == usual
    assert [one for one in statements if "process." in one] == []
