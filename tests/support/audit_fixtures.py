"""A tenant in step, and a judge that audits while the fleet is at work."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox.google.control import GoogleControl
from sandbox.google.specs import AccountInfo, SeedSpec
from tenantsync.audit import service
from tenantsync.audit.service import Report
from tests.support.fleet import Fleet, TenantHandle
from tests.support.mirror import MirrorSide

ANN = "ann@example.test"
MEETING = {
    "summary": "Review",
    "start": {"dateTime": "2026-03-02T10:00:00Z"},
    "end": {"dateTime": "2026-03-02T11:00:00Z"},
}


@pytest.fixture
def ann(google: GoogleControl) -> AccountInfo:
    account = google.create_account(ANN)
    google.seed(ANN, ANN, SeedSpec(events=10, series_every=0))
    return account


@pytest.fixture
def audited(fleet: Fleet, google: GoogleControl, ann: AccountInfo, mirror: MirrorSide) -> TenantHandle:
    """A tenant that is synced and mirrored, one deletion included."""
    tenant = fleet.tenant("acme")
    gone = google.insert(ANN, ANN, MEETING)["id"]
    fleet.google(tenant, google, account=ann)
    fleet.run()
    google.delete(ANN, ANN, gone)
    fleet.sync()
    mirror.drain(fleet.database)
    return tenant


@pytest.fixture
def after_run() -> list[Callable[[], object]]:
    """What a test wants done whenever the fleet has run something."""
    return []


@pytest.fixture
def judge(fleet: Fleet, mirror: MirrorSide, after_run: list[Callable[[], object]]) -> Iterator[Callable[..., Report]]:
    """Audits, while the fleet is at work in the background as it is in life."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.02):
            if fleet.run():
                for act in after_run:
                    act()
            mirror.drain(fleet.database)

    def audit(**options: Any) -> Report:
        thread = threading.Thread(target=work, name="fleet")
        thread.start()
        try:
            return service.audit(fleet.database, mirror.supabase, fleet.settings, **options)
        finally:
            stop.set()
            thread.join()

    yield audit
