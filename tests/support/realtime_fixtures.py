"""One origin with Realtime in front of the Supabase of all tests."""

from collections.abc import Iterator

import pytest

from sandbox.servers.lite import SupabaseLite
from sandbox.servers.realtime import SupabaseGateway

pytest_plugins = ["tests.support.supabase_fixtures"]


@pytest.fixture(scope="session")
def started_gateway(supabase_lite: SupabaseLite) -> Iterator[SupabaseGateway]:
    with SupabaseGateway(supabase_lite) as gateway:
        yield gateway


@pytest.fixture
def supabase_gateway(started_gateway: SupabaseGateway) -> SupabaseGateway:
    """The gateway, running: a test may have ended it."""
    if not started_gateway.alive:
        started_gateway.start()
    return started_gateway
