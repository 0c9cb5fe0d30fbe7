"""A Postgres of our own that restarts, has no connection left, and gives way to its standby while work goes on."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from config.queues import Lane
from config.settings import Settings
from db import partitions, schema
from db.ids import new_id
from db.session import Database, DatabaseUnreachable
from sandbox.google.control import GoogleControl
from sandbox.servers.postgres import Postgres
from tenantsync.audit import service as auditing
from tenantsync.calendars.runner import Runner
from tests.support.fleet import Fleet
from tests.support.logs import captured_logs
from tests.support.mirror import MirrorSide, assert_mirror_equals_postgres, open_again
from tests.support.outages import await_recovery, settle_crowd
from tests.support.standby import alone, follow, keep_in_step, promote
from tests.support.tcp_switch import TcpSwitch
from tests.support.waiting import wait_until

pytest_plugins = ["tests.support.supabase_fixtures"]

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

SETTINGS = {"max_connections": "30", "superuser_reserved_connections": "1", "autovacuum": "off"}
TENANTS = 8
TEMPLATE = "template"
_numbers = count(1)


@dataclass
class Cluster:
    """A Postgres at an address that can be moved to another one."""

    primary: Postgres
    switch: TcpSwitch

    def url(self, database: str) -> str:
        return self.primary.url(database).replace(self.primary.address, self.switch.address)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Postgres(settings=SETTINGS, name="primary") as primary, TcpSwitch(primary.port) as switch:
        url = primary.create_database(TEMPLATE)
        schema.upgrade(url)
        with closing(Database(url, pool_size=1, name="template")) as database, database.transaction() as connection:
            partitions.ensure_ahead(connection, now=datetime.now(UTC))
        made = Cluster(primary, switch)
        yield made
        made.primary.close()


@pytest.fixture
def database_url(cluster: Cluster) -> str:
    """Stands in for the usual one: a database of the cluster, by the address that moves."""
    name = f"test_{next(_numbers)}"
    cluster.primary.create_database(name, template=TEMPLATE)
    return cluster.url(name)


@pytest.fixture
def fleets(make_fleet: Callable[..., Fleet], settings: Settings) -> Iterator[tuple[Fleet, Fleet]]:
    """Two workers with pools of their own."""
    with closing(Database(settings.database_url, pool_size=6, name="second")) as second:
        other = Fleet(second, settings, worker="worker-2")
        yield make_fleet(), other
        other.close()


def under_load(fleets: tuple[Fleet, Fleet], fault: Callable[[], object]) -> None:
    """Let something happen while both fleets run what is due."""
    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(one.run) for one in fleets]
        wait_until(
            lambda: all(one.done() for one in running) or any(one.runner._active for one in fleets), about="a run"
        )
        fault()
        for one in running:
            with suppress(SQLAlchemyError):  # what was lost is due again when its lease ends
                one.result(60)


def test_a_server_that_crashed_and_came_back_under_load_cost_no_change(
    cluster: Cluster, fleets: tuple[Fleet, Fleet], google: GoogleControl
) -> None:
    emails = settle_crowd(fleets[0], google, TENANTS)

    def crash() -> None:
        cluster.primary.kill()
        cluster.primary.start()

    under_load(fleets, crash)

    await_recovery(*fleets, google=google, emails=emails)


def test_connections_that_others_took_are_waited_for_and_those_there_are_go_on(
    fleets: tuple[Fleet, Fleet], google: GoogleControl, settings: Settings
) -> None:
    emails = settle_crowd(fleets[0], google, TENANTS)
    batch = [(unit.unit_id, unit.fence) for unit in fleets[0].claim(Lane.SYNC)]
    with (
        closing(Database(settings.database_url, pool_size=4, name="late")) as database,
        captured_logs(settings) as log,
        ThreadPoolExecutor(1) as thread,
    ):
        late = Runner(settings, database, worker="late")
        with taken_by_others(settings.database_url):
            with pytest.raises(DatabaseUnreachable, match="too many clients"):
                database.wait_until_reachable(attempts=1)
            with fleets[0].database.statement() as connection:  # one that was there before
                connection.execute(text("select 1"))
            running = thread.submit(late.run_batch, new_id(), Lane.SYNC, batch)
            wait_until(lambda: "database_lost" in log.getvalue(), about="a refused connection")
        result = running.result(60)
        late.close(0.0)

    assert result["units"] == TENANTS
    await_recovery(*fleets, google=google, emails=emails)


@contextmanager
def taken_by_others(url: str) -> Iterator[None]:
    """Every connection that the server gives."""
    taken = []
    try:
        with suppress(psycopg2.OperationalError):
            while True:
                taken.append(psycopg2.connect(url))
        yield
    finally:
        for connection in taken:
            connection.close()


@pytest.fixture
def standby(cluster: Cluster, tmp_path: Path) -> Iterator[Postgres]:
    """In step with the primary. Afterwards there is the old primary again."""
    with follow(cluster.primary, tmp_path / "standby", SETTINGS) as server:
        keep_in_step(cluster.primary)
        yield server
    if not cluster.primary.alive:
        cluster.primary.start()
    alone(cluster.primary)
    cluster.switch.to(cluster.primary.port)


def test_after_a_failover_under_load_work_goes_on_at_the_new_primary_and_the_audit_finds_no_drift(
    cluster: Cluster,
    standby: Postgres,
    fleets: tuple[Fleet, Fleet],
    google: GoogleControl,
    mirror: MirrorSide,
) -> None:
    emails = settle_crowd(fleets[0], google, TENANTS)

    def fail_over() -> None:
        cluster.primary.kill()
        promote(standby)
        cluster.switch.to(standby.port)

    under_load(fleets, fail_over)
    await_recovery(*fleets, google=google, emails=emails)
    open_again(fleets[0].database)
    mirror.drain(fleets[1].database)

    report = auditing.audit(fleets[0].database, mirror.supabase, fleets[0].settings)
    assert (report.drift, len(report.having("proven"))) == (0, TENANTS)
    assert_mirror_equals_postgres(fleets[0].database, mirror)
