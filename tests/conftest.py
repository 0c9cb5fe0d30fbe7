"""Servers for the session, a database of its own for every test. Tests wait for conditions, never for time."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

from config.settings import Settings
from db import partitions, schema
from db.session import Database
from sandbox.google.control import GoogleControl
from sandbox.google.server import ThreadedServer
from sandbox.servers.postgres import Postgres
from sandbox.servers.radicale import Radicale
from tests.support.fleet import Fleet, make_settings

for _name in [name for name in os.environ if name.lower() in Settings.model_fields]:
    del os.environ[_name]  # what a developer has set must not decide whether a test passes

RAM = Path("/dev/shm")  # noqa: S108
ROOM = 8 * 2**30  # bytes
if "TMPDIR" not in os.environ and RAM.is_dir() and shutil.disk_usage(RAM).free > ROOM:
    # Two thousand databases are made and dropped: no disk is that patient.
    os.environ["TMPDIR"] = tempfile.tempdir = str(RAM)

TEMPLATE = "template_tenantsync"
_numbers = count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """An embedded Postgres with a migrated template database."""
    with Postgres() as server:
        server.create_database(TEMPLATE)
        url = server.url(TEMPLATE)
        schema.upgrade(url)
        database = Database(url, pool_size=1, name="template")
        with database.transaction() as connection:
            partitions.ensure_ahead(connection, now=datetime.now(UTC))
        database.close()
        yield server


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """A fresh database, migrated."""
    name = f"test_{next(_numbers)}"
    yield postgres.create_database(name, template=TEMPLATE)
    postgres.drop_database(name)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url, pool_size=6, name="tests")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def google_server() -> Iterator[ThreadedServer]:
    with ThreadedServer() as server:
        yield server


@pytest.fixture
def google(google_server: ThreadedServer) -> Iterator[GoogleControl]:
    """The Google stand-in, emptied."""
    with GoogleControl(google_server.base_url) as control:
        control.reset(seed=1)
        yield control


@pytest.fixture(scope="session")
def radicale() -> Iterator[Radicale]:
    """A real CalDAV server. Tests use users of their own."""
    with Radicale() as server:
        yield server


@pytest.fixture
def settings(database_url: str, google_server: ThreadedServer) -> Settings:
    return make_settings(
        database_url,
        google_api_endpoint=f"{google_server.base_url}/calendar/v3/",
        google_token_uri=f"{google_server.base_url}/token",
    )


@pytest.fixture
def make_fleet(database: Database, settings: Settings) -> Iterator[Callable[..., Fleet]]:
    """Makes fleets (workers) on the test's database; keyword arguments override settings."""
    made: list[Fleet] = []

    def make(*, worker: str = "worker-1", **overrides: object) -> Fleet:
        chosen = settings if not overrides else make_settings(**(_given(settings) | overrides))
        made.append(Fleet(database, chosen, worker=worker))
        return made[-1]

    yield make
    for fleet in made:
        fleet.close()


@pytest.fixture
def fleet(make_fleet: Callable[..., Fleet]) -> Fleet:
    return make_fleet()


def _given(settings: Settings) -> dict[str, object]:
    return {
        "database_url": settings.database_url,
        "google_api_endpoint": settings.google_api_endpoint,
        "google_token_uri": settings.google_token_uri,
    }
