"""One web server and its database for the tests of a module, and nothing emptied: for tests that look at their own
tenant alone. Starting a server for each costs half a second.

A module imports all three fixtures; they then stand in for those with a server and a database for every test.
"""

import pytest

from db.session import Database
from tests.support.web import Web


@pytest.fixture(scope="module")
def database(module_web: Web) -> Database:
    return module_web.database


@pytest.fixture
def database_url(module_web: Web) -> str:
    return module_web.settings.database_url


@pytest.fixture
def web(module_web: Web) -> Web:
    return module_web
