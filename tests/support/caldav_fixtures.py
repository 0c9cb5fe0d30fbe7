"""A calendar of its own for every test, and a proxy in front of its server."""

from collections.abc import Iterator
from itertools import count

import pytest

from sandbox.servers.radicale import Radicale
from tests.support.caldav import Shelf, numbered
from tests.support.caldav_proxy import CaldavProxy
from tests.support.fleet import Fleet, TenantHandle

_numbers = count(1)


@pytest.fixture
def shelf(radicale: Radicale) -> Shelf:
    """An empty calendar of a new user."""
    return Shelf(radicale, f"reader{next(_numbers)}").create()


@pytest.fixture
def proxy(radicale: Radicale) -> Iterator[CaldavProxy]:
    """Radicale, seen through a proxy that can be told to misbehave."""
    with CaldavProxy(radicale.url) as server:
        yield server


@pytest.fixture
def acme(fleet: Fleet, shelf: Shelf, proxy: CaldavProxy) -> TenantHandle:
    """A tenant who is connected through the proxy, in step with a calendar of ten events."""
    shelf.fill(numbered(10))
    tenant = fleet.tenant()
    fleet.caldav(tenant, shelf.server, shelf.user, url=proxy.url)
    fleet.run()
    proxy.behave()
    return tenant
