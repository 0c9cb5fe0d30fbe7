"""`pytest_plugins = ["tests.support.tapped_fixtures"]`."""

from collections.abc import Callable, Iterator

import pytest

from config.settings import Settings
from db.session import Database
from sandbox.servers.postgres import Postgres
from tests.support.fleet import Fleet, make_settings
from tests.support.statements import StatementTap
from tests.support.tapped import LEASE, Tapped


@pytest.fixture
def end_session(postgres: Postgres) -> Callable[[int], None]:
    """Ends a session at the server, and waits until it is gone."""

    def terminate(backend: int) -> None:
        with postgres.connect() as connection, connection.cursor() as cursor:
            cursor.execute("select pg_terminate_backend(%s, 5000)", (backend,))

    return terminate


@pytest.fixture
def tapped(settings: Settings, end_session: Callable[[int], None]) -> Iterator[Callable[[], Tapped]]:
    """Makes workers on the test's database, each with connections of its own."""
    made: list[Tapped] = []
    slow_heart = make_settings(
        settings.database_url,
        google_api_endpoint=settings.google_api_endpoint,
        google_token_uri=settings.google_token_uri,
        sync_lease=LEASE,
    )

    def make() -> Tapped:
        tap = StatementTap(end_session)
        database = Database(settings.database_url, pool_size=5, name="tapped")
        tap.attach(database)
        made.append(Tapped(Fleet(database, slow_heart, worker=f"tapped-{len(made)}"), tap))
        return made[-1]

    yield make
    for worker in made:
        worker.fleet.close()
        worker.fleet.database.close()
