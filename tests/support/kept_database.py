"""One database for the tests of a module, and nothing of it emptied: for tests that look at their own tenant alone.

A module imports all three fixtures; they then stand in for those with a database for every test.
"""

from collections.abc import Iterator
from itertools import count

import pytest

from db.session import Database
from sandbox.servers.postgres import Postgres

TEMPLATE = "template_tenantsync"
_numbers = count(1)


@pytest.fixture(scope="module")
def kept_database(postgres: Postgres) -> Iterator[str]:
    """The address of the module's database."""
    name = f"kept_{next(_numbers)}"
    yield postgres.create_database(name, template=TEMPLATE)
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def database(kept_database: str) -> Iterator[Database]:
    opened = Database(kept_database, pool_size=6, name="tests")
    yield opened
    opened.close()


@pytest.fixture
def database_url(kept_database: str) -> str:
    return kept_database
