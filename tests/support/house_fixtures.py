"""`pytest_plugins = ["tests.support.house_fixtures"]`."""

import pytest

from db.session import Database
from tests.support.house import House


@pytest.fixture
def house(database: Database) -> House:
    """An empty house of tenants whose units are only claimed."""
    return House(database)
