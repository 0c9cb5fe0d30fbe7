"""Connections are cut, lead to a server that refuses to write, or are not to be had: work resumes by itself."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from config.queues import Lane
from config.settings import Settings
from db.session import Database, PoolExhausted, driver_cursor, is_connection_loss
from sandbox.google.control import GoogleControl
from sandbox.google.specs import Fault
from sandbox.servers.postgres import Postgres
from tests.support.fleet import Fleet, make_settings
from tests.support.logs import captured_logs
from tests.support.outages import await_recovery, run_together, settle_crowd
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.waiting import wait_until

TENANTS = 8
WRITE = text("update sync.tenants set name = name")
ENDED = "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"


@pytest.fixture
def database_name(database_url: str) -> str:  # noqa: F811
    return database_url.rpartition("/")[2]


@pytest.fixture
def end_sessions(postgres: Postgres, database_name: str) -> Callable[[], None]:
    """Ends every session on the test's database, as a failover does."""
    return lambda: postgres.execute("postgres", ENDED.format(name=database_name))


@pytest.fixture
def succeed(postgres: Postgres, database_name: str) -> Iterator[Callable[[], None]]:
    """New sessions can write, as those do that find a new primary. The old ones stay as they are."""

    def reset() -> None:
        postgres.execute("postgres", f'alter database "{database_name}" reset default_transaction_read_only')

    yield reset
    reset()


@pytest.fixture
def demote(
    postgres: Postgres, database_name: str, end_sessions: Callable[[], None], succeed: Callable[[], None]
) -> Callable[[], None]:
    """The server ends all sessions and comes back as one that refuses to write."""

    def act() -> None:
        postgres.execute("postgres", f'alter database "{database_name}" set default_transaction_read_only = on')
        end_sessions()

    return act


def test_sessions_ended_again_and_again_cost_no_change(
    fleet: Fleet, google: GoogleControl, end_sessions: Callable[[], None]
) -> None:
    emails = settle_crowd(fleet, google, TENANTS)

    with ThreadPoolExecutor(1) as thread:
        for _ in range(5):
            running = thread.submit(run_together, fleet)
            while not running.done():
                end_sessions()
            with suppress(SQLAlchemyError):
                running.result()

    await_recovery(fleet, google=google, emails=emails)


def test_a_write_to_a_primary_that_was_demoted_counts_as_a_lost_connection_and_the_next_finds_the_new_one(
    database: Database, demote: Callable[[], None], succeed: Callable[[], None]
) -> None:
    demote()
    with pytest.raises(DBAPIError) as refused, database.statement() as connection:
        connection.execute(WRITE)
    succeed()
    with database.statement() as connection:
        connection.execute(WRITE)

    assert is_connection_loss(refused.value)
    assert "25006" in str(refused.value)


def test_also_in_a_transaction_and_in_a_copy(
    database: Database, demote: Callable[[], None], succeed: Callable[[], None]
) -> None:
    demote()
    with pytest.raises(DBAPIError) as refused, database.transaction() as connection:
        connection.execute(WRITE)
    demote()
    with (
        pytest.raises(DBAPIError) as copying,
        database.transaction() as connection,
        driver_cursor(connection) as cursor,
    ):
        cursor.execute("copy sync.tenants from stdin")
    succeed()
    with database.transaction() as connection:
        connection.execute(WRITE)

    assert is_connection_loss(refused.value)
    assert is_connection_loss(copying.value)


def test_a_reader_that_writes_is_our_bug_and_costs_no_connection(database: Database) -> None:
    with database.reading() as connection:
        before = connection.execute(text("select pg_backend_pid()")).scalar_one()
    with pytest.raises(DBAPIError) as refused, database.reading() as connection:
        connection.execute(WRITE)
    with database.reading() as connection:
        after = connection.execute(text("select pg_backend_pid()")).scalar_one()

    assert not refused.value.connection_invalidated
    assert after == before


def test_a_batch_that_meets_a_demoted_primary_is_written_once_there_is_a_new_one(
    fleet: Fleet,
    google: GoogleControl,
    demote: Callable[[], None],
    succeed: Callable[[], None],
    settings: Settings,
) -> None:
    emails = settle_crowd(fleet, google, TENANTS)
    batch = fleet.claim(Lane.SYNC)

    with captured_logs(settings) as log, ThreadPoolExecutor(1) as thread:
        google.add_fault(Fault(kind="slow", seconds=0.5, times=None))
        running = thread.submit(fleet.run_batch, Lane.SYNC, batch)
        wait_until(lambda: fleet.rows("select 1 from sync.units where state = 'running'"), about="the start")
        demote()
        wait_until(lambda: "database_lost" in log.getvalue(), about="a refused write")
        succeed()
        running.result(60)
    google.clear_faults()

    await_recovery(fleet, google=google, emails=emails)


def test_a_statement_that_takes_too_long_is_ended_and_not_tried_again(database: Database) -> None:
    with pytest.raises(DBAPIError) as ended, database.transaction() as connection:
        connection.execute(text("set local statement_timeout = '50ms'"))
        connection.execute(text("select pg_sleep(10)"))

    assert "57014" in str(ended.value)
    assert not is_connection_loss(ended.value)


def test_a_pool_whose_connections_are_all_busy_says_so_in_time_and_recovers(database_url: str) -> None:  # noqa: F811
    narrow = Database(database_url, pool_size=1, name="narrow", pool_timeout=0.2)
    with narrow.statement(), pytest.raises(PoolExhausted, match="WORKER_DB_POOL_SIZE") as busy, narrow.statement():
        pass
    with narrow.statement() as connection:
        answer = connection.execute(text("select 1")).scalar_one()
    narrow.close()

    assert is_connection_loss(busy.value)
    assert answer == 1


def test_leases_are_renewed_again_after_the_pool_was_exhausted(
    database_url: str,  # noqa: F811
    settings: Settings,
    google: GoogleControl,
) -> None:
    narrow = Database(database_url, pool_size=2, name="narrow", pool_timeout=0.1)
    quick = make_settings(**given(settings), sync_lease="1s")
    fleet = Fleet(narrow, quick, worker="narrow")
    settle_crowd(fleet, google, 1)
    google.add_fault(Fault(kind="hang", times=None))
    batch = fleet.claim(Lane.SYNC)
    with captured_logs(settings) as log, ThreadPoolExecutor(1) as thread, ExitStack() as taken:
        running = thread.submit(fleet.run_batch, Lane.SYNC, batch)
        running.result(30)  # the unit hangs and leaves its batch
        for _ in range(2):
            taken.enter_context(narrow.statement())
        wait_until(lambda: "heartbeat_failed" in log.getvalue(), about="a heartbeat without a connection")
        taken.close()

        lease = "select lease_until from sync.units where state = 'running'"
        before = fleet.one(lease)
        wait_until(lambda: fleet.one(lease) != before, about="the next heartbeat")
    google.clear_faults()
    fleet.close()
    narrow.close()


def given(settings: Settings) -> dict[str, Any]:
    return {
        "database_url": settings.database_url,
        "google_api_endpoint": settings.google_api_endpoint,
        "google_token_uri": settings.google_token_uri,
    }
