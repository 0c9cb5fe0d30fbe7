"""A real web server on a free port over the test's database."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from db.session import Database
from sandbox.servers.ports import free_port
from sandbox.servers.postgres import Postgres
from tenantsync.web import serving
from tests.support.fleet import make_settings
from tests.support.waiting import wait_until
from tests.support.web import SECRET_KEY, Web

TEMPLATE = "template_tenantsync"
_numbers = count(1)


@contextmanager
def servers(database: Database, url: str) -> Iterator[Callable[..., Web]]:
    """Starts servers over a database; keyword arguments override settings."""
    running: list[tuple[Web, threading.Thread, Database]] = []

    def make(**overrides: object) -> Web:
        settings = make_settings(url, **({"secret_key": SECRET_KEY} | overrides))
        pool = serving.open_pool(settings)
        port = free_port()
        server = serving.server_for(settings, pool, host="127.0.0.1", port=port)
        thread = threading.Thread(target=server.run, name=f"web-{port}", daemon=True)
        thread.start()
        web = Web(f"http://127.0.0.1:{port}", database, settings, server)
        running.append((web, thread, pool))
        wait_until(lambda: server.started, about="the web server's start")
        return web

    yield make
    for web, thread, pool in running:
        web.close()
        web.server.should_exit = True
        thread.join(15)
        pool.close()


@pytest.fixture
def make_web(database: Database, database_url: str) -> Iterator[Callable[..., Web]]:
    """Starts servers over the test's database; keyword arguments override settings."""
    with servers(database, database_url) as make:
        yield make


@pytest.fixture
def web(make_web: Callable[..., Web]) -> Web:
    """A real web server over the test's database."""
    return make_web()


@pytest.fixture(scope="module")
def make_module_web(postgres: Postgres) -> Iterator[Callable[..., Web]]:
    """Starts servers over one database for a module: for tests that leave nothing behind which others would see."""
    name = f"web_{next(_numbers)}"
    url = postgres.create_database(name, template=TEMPLATE)
    database = Database(url, pool_size=6, name="tests")
    with servers(database, url) as make:
        yield make
    database.close()
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def module_web(make_module_web: Callable[..., Web]) -> Web:
    """A real web server for all tests of a module."""
    return make_module_web()
