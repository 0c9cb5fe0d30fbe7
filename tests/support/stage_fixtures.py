"""`pytest_plugins = ["tests.support.stage_fixtures"]`."""

from collections.abc import Iterator
from itertools import count

import pytest

from db.session import Database
from tenantsync.processes.publishing import Publisher
from tests.support.mirror import plant_tenant
from tests.support.stage import Stage

_numbers = count(1)


@pytest.fixture
def stage(database: Database) -> Stage:
    """A tenant whose processes a test moves by hand."""
    return Stage(database, plant_tenant(database, f"acme {next(_numbers)}"))


@pytest.fixture
def publisher(database: Database) -> Iterator[Publisher]:
    """A publisher of this operating-system process."""
    made = Publisher(database)
    yield made
    made.close()
