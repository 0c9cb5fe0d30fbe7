"""One origin with Realtime in front of the module's Supabase."""

from collections.abc import Iterator

import pytest

from sandbox.servers.lite import SupabaseLite
from sandbox.servers.realtime import SupabaseGateway

pytest_plugins = ["tests.support.supabase_fixtures"]


@pytest.fixture(scope="module")
def supabase_gateway(supabase_lite: SupabaseLite) -> Iterator[SupabaseGateway]:
    with SupabaseGateway(supabase_lite) as gateway:
        yield gateway
