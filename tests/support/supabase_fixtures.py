"""One Supabase with our migrations for all tests of a process, behind a proxy; both emptied for every test.

A test that changes its tables or rules puts them back.
"""

import uuid
from collections.abc import Callable, Iterator

import httpx
import pytest

from sandbox import supabase_migrations
from sandbox.servers.lite import SupabaseLite
from sandbox.servers.node import PACKAGES
from sandbox.servers.postgres import Postgres
from tests.support.fleet import TenantHandle
from tests.support.mirror import MirrorSide
from tests.support.supabase_proxy import SupabaseProxy


@pytest.fixture(scope="session")
def supabase_lite(postgres: Postgres) -> Iterator[SupabaseLite]:
    name = f"supabase_{uuid.uuid4().hex}"
    url = postgres.create_database(name)
    postgres.execute(name, (PACKAGES / "hosted.sql").read_text())
    supabase_migrations.apply(url)
    with SupabaseLite(postgres, database=name) as server:
        yield server
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def supabase_behind_proxy(supabase_lite: SupabaseLite) -> Iterator[MirrorSide]:
    with SupabaseProxy(supabase_lite.url) as proxy:
        side = MirrorSide(supabase_lite, proxy)
        yield side
        side.close()


@pytest.fixture
def mirror(supabase_behind_proxy: MirrorSide) -> MirrorSide:
    """Supabase, empty, in good health."""
    if not supabase_behind_proxy.lite.alive:
        supabase_behind_proxy.lite.start()
    supabase_behind_proxy.proxy.reset()
    supabase_behind_proxy.empty()
    return supabase_behind_proxy


@pytest.fixture
def member(mirror: MirrorSide) -> Callable[[TenantHandle], list[str]]:
    """What a signed-in member of a tenant sees over REST: provider keys of events."""

    def look(tenant: TenantHandle) -> list[str]:
        token = mirror.lite.user_token(tenant.tenant_id)
        headers = {"apikey": mirror.lite.publishable_key, "Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=mirror.lite.url, headers=headers, trust_env=False) as client:
            answer = client.get("/rest/v1/calendar_events", params={"select": "provider_key"}).raise_for_status()
        return [row["provider_key"] for row in answer.json()]

    return look
