"""`pytest_plugins = ["tests.support.crowd_fixtures"]`."""

import pytest

from sandbox.google.control import GoogleControl
from sandbox.google.specs import FleetSpec, SeedSpec
from tests.support.crowd import MANY, Crowd
from tests.support.fleet import Fleet


@pytest.fixture
def crowd(fleet: Fleet, google: GoogleControl) -> Crowd:
    """Many tenants with a small calendar each, synced, a change waiting at Google for every one of them."""
    accounts = google.seed_fleet(FleetSpec(accounts=MANY, seed=SeedSpec(events=6, series_every=0)))
    tenants = []
    for account in accounts:
        tenants.append((fleet.tenant(), account))
        fleet.google(tenants[-1][0], google, account=account)
    fleet.run()
    for account in accounts:
        google.churn(2, account=account.email)
    google.clear_requests()
    return tenants
