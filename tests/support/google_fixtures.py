"""Fixtures around `Office`, asked for with `pytest_plugins = ["tests.support.google_fixtures"]`."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from sandbox.google.control import GoogleControl
from sandbox.google.server import ThreadedServer
from tests.support.fleet import Fleet
from tests.support.google_office import ANN, Office
from tests.support.wiretap import Wiretap


@pytest.fixture
def make_office(make_fleet: Callable[..., Fleet], google: GoogleControl) -> Callable[..., Office]:
    """An account, connected and never synced. Settings override; `calendar` makes another calendar to look at.

    Retries wait for minutes, so that what a test sees is one run however slow the machine is.
    """

    def make(email: str = ANN, *, calendar: Mapping[str, Any] | None = None, **overrides: object) -> Office:
        account, key = google.create_account(email), email
        if calendar is not None:
            google.create_calendar(email, **calendar)
            key = calendar["calendar"]
        fleet = make_fleet(**({"worker_retry_delay": "5m"} | overrides))
        tenant = fleet.tenant(email)
        fleet.google(tenant, google, account=account)
        return Office(fleet, google, tenant, account, key)

    return make


@pytest.fixture
def office(make_office: Callable[..., Office]) -> Office:
    return make_office()


@pytest.fixture
def tap(google_server: ThreadedServer) -> Iterator[Wiretap]:
    with Wiretap(google_server.base_url) as wiretap:
        yield wiretap


@pytest.fixture
def tapped_office(make_office: Callable[..., Office], tap: Wiretap) -> Office:
    """An office whose requests pass through `tap`."""
    return make_office(google_api_endpoint=f"{tap.url}/calendar/v3/")
