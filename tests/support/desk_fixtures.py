"""`pytest_plugins = ["tests.support.supabase_fixtures", "tests.support.desk_fixtures"]`."""

from collections.abc import Iterator

import pytest

from tests.support.desk import Desk
from tests.support.fleet import Fleet, TenantHandle
from tests.support.mirror import MirrorSide


@pytest.fixture
def desk(fleet: Fleet, mirror: MirrorSide) -> Iterator[Desk]:
    """A web app at Supabase and a worker that knows the letters' kinds."""
    made = Desk(fleet, mirror)
    yield made
    made.close()


@pytest.fixture
def asker(desk: Desk) -> TenantHandle:
    return desk.fleet.tenant("acme")
