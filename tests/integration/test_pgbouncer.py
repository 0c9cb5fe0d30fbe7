"""The product behind PgBouncer in transaction mode: two fleets over two connections, and what only DIRECT_URL can do.

PgBouncer is the system's or Debian's package, fetched once into the checkout's cache; where neither is to be
had these tests are skipped, and say why. The strict configuration is in sandbox/servers/pgbouncer.py.
"""

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import psycopg2
import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from config.settings import Settings
from db import schema
from db.repositories import ledger, mirroring
from db.session import Database, PoolerInBetween
from sandbox.google.control import GoogleControl
from sandbox.google.specs import SeedSpec
from sandbox.servers.pgbouncer import NoPgBouncer, PgBouncer, find_pgbouncer
from sandbox.servers.postgres import Postgres
from tenantsync import doctor
from tenantsync.audit import service as auditing
from tenantsync.cli import app
from tenantsync.mirror.holding import LEASE
from tests.support.fleet import Fleet, make_settings
from tests.support.mirror import MirrorSide, assert_mirror_equals_postgres, open_again, plant_calendar, plant_tenant
from tests.support.outages import await_recovery, in_step, run_together, settle_crowd
from tests.support.waiting import wait_until

pytest_plugins = ["tests.support.supabase_fixtures"]

# A first run on a machine fetches packages, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

CONNECTIONS = 2
TENANTS = 8
TEMPLATE = "template_tenantsync"
MANY = 2600  # events: a listing of several pages, which is staged and merged
LIMITS = text("select current_setting('statement_timeout'), current_setting('lock_timeout')")
OUTSIDE = text("select current_setting('mirror.woken', true), current_setting('transaction_read_only')")
_numbers = count(1)

MakeFleet = Callable[..., Fleet]


@pytest.fixture(scope="module")
def pgbouncer(postgres: Postgres) -> Iterator[PgBouncer]:
    try:
        sys.stdout.write(f"PgBouncer {find_pgbouncer().version}\n")
    except NoPgBouncer as error:
        pytest.skip(str(error))
    with PgBouncer(postgres, pool_size=CONNECTIONS) as server:
        yield server


@pytest.fixture
def database_name(postgres: Postgres) -> Iterator[str]:
    name = f"pooled_{next(_numbers)}"
    postgres.create_database(name, template=TEMPLATE)
    yield name
    postgres.drop_database(name)


@pytest.fixture
def database_url(pgbouncer: PgBouncer, database_name: str) -> str:
    """Stands in for the usual one: everything that these tests run goes through PgBouncer."""
    return pgbouncer.url(database_name)


@pytest.fixture
def direct(postgres: Postgres, database_name: str) -> Iterator[Database]:
    opened = Database(postgres.url(database_name), pool_size=1, name="direct")
    yield opened
    opened.close()


@pytest.fixture
def fleets(make_fleet: MakeFleet, settings: Settings) -> Iterator[tuple[Fleet, Fleet]]:
    """Two workers with pools of their own, six connections each on their side of PgBouncer."""
    second = Database(settings.database_url, pool_size=6, name="second")
    other = Fleet(second, settings, worker="worker-2")
    yield make_fleet(), other
    other.close()
    second.close()


@pytest.fixture
def crowd(fleets: tuple[Fleet, Fleet], google: GoogleControl) -> list[str]:
    """E-mail addresses of tenants, synced and due; changes wait at Google."""
    return settle_crowd(fleets[0], google, TENANTS)


def test_two_fleets_share_two_connections_and_everything_arrives_and_is_proven(
    fleets: tuple[Fleet, Fleet],
    google: GoogleControl,
    crowd: list[str],
    mirror: MirrorSide,
    direct: Database,
    pgbouncer: PgBouncer,
) -> None:
    ran = run_together(*fleets)
    drained = mirror.drain(fleets[1].database)

    assert ran == TENANTS
    assert in_step(fleets[0], google, crowd)
    assert drained.failure is None
    assert_mirror_equals_postgres(direct, mirror)
    report = auditing.audit(fleets[0].database, mirror.supabase, fleets[0].settings)
    assert (report.drift, len(report.having("proven"))) == (0, TENANTS)
    with direct.reading() as connection:
        backends = text(
            "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        )
        assert 1 <= connection.execute(backends).scalar_one() <= CONNECTIONS


def test_a_long_listing_is_staged_and_merged(fleets: tuple[Fleet, Fleet], google: GoogleControl) -> None:
    fleet, email = fleets[0], "ann@example.test"
    account = google.create_account(email)
    google.seed(email, email, SeedSpec(events=MANY, series_every=0))
    fleet.google(fleet.tenant(), google, account=account)

    fleet.run()

    assert in_step(fleet, google, [email])
    assert fleet.rows("select 1 from sync.staged_events") == []


def test_heartbeats_and_farewells_of_workers_are_heard_also_when_their_clock_is_years_off(
    fleets: tuple[Fleet, Fleet],
) -> None:
    reading = {"slots": 1, "cpu": 1.0, "memory": 1.0, "active": 0, "now": "1970-01-01T00:00:00Z"}
    with fleets[0].database.statement() as connection:
        ledger.heartbeat(connection, worker="w", queues=["sync"], reading=reading)
    heard = fleets[1].rows("select worker_id from worker.workers")
    with fleets[1].database.statement() as connection:
        ledger.farewell(connection, worker="w")

    assert heard == [{"worker_id": "w"}]
    assert fleets[0].rows("select worker_id from worker.workers") == []


def test_limits_hold_inside_a_transaction_and_end_with_it(database: Database) -> None:
    for _ in range(2 * CONNECTIONS):  # each of the connections behind PgBouncer, more than once
        with database.transaction() as connection:
            assert connection.execute(LIMITS).one() == ("1min", "10s")
        with database.statement() as connection:
            assert connection.execute(LIMITS).one() == ("0", "0")


def test_nothing_of_a_transaction_is_left_for_the_next(database: Database) -> None:
    tenant = plant_tenant(database, "acme")
    for _ in range(2 * CONNECTIONS):
        plant_calendar(database, tenant)  # says `mirror.woken`, for its transaction alone
        with database.reading() as connection:
            connection.execute(text("select 1"))
        with database.statement() as connection:
            assert connection.execute(OUTSIDE).one() in [(None, "off"), ("", "off")]


def test_every_transaction_rings_for_itself(database: Database) -> None:
    tenant = plant_tenant(database, "acme")
    for _ in range(2 * CONNECTIONS):
        plant_calendar(database, tenant)
        with database.statement() as connection:
            held = mirroring.lease_tenants(connection, limit=10, lease=LEASE)
            connection.execute(text("delete from mirror.outbox"))
            mirroring.release(connection, held)
        assert len(held) == 1


def test_start_up_options_would_not_get_through(pgbouncer: PgBouncer, database_url: str) -> None:
    """So that the other tests show that there are none."""
    with pytest.raises(psycopg2.OperationalError, match="unsupported startup parameter"):
        psycopg2.connect(database_url, options="-c statement_timeout=1000")


FAULTS: dict[str, tuple[Callable[[PgBouncer], object], Callable[[PgBouncer], object]]] = {
    "restarted": (PgBouncer.restart, lambda _: None),
    "killed": (PgBouncer.kill, PgBouncer.start),
    "paused": (lambda server: server.command("PAUSE"), lambda server: server.command("RESUME")),
    "frozen": (PgBouncer.freeze, PgBouncer.thaw),
}


@pytest.mark.parametrize(("breaks", "mends"), FAULTS.values(), ids=FAULTS)
def test_work_resumes_by_itself_after_pgbouncer_was(
    fleets: tuple[Fleet, Fleet],
    google: GoogleControl,
    crowd: list[str],
    mirror: MirrorSide,
    direct: Database,
    pgbouncer: PgBouncer,
    breaks: Callable[[PgBouncer], object],
    mends: Callable[[PgBouncer], object],
) -> None:
    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(one.run) for one in fleets]
        wait_until(lambda: running_units(direct) or all(one.done() for one in running), about="the first run")
        breaks(pgbouncer)
        mends(pgbouncer)
        for one in running:
            one.exception(60)  # a claim or a start may be lost: its units are due again

    await_recovery(*fleets, google=google, emails=crowd)
    open_again(direct)
    mirror.drain(fleets[0].database)
    assert_mirror_equals_postgres(direct, mirror)


def running_units(direct: Database) -> int:
    with direct.reading() as connection:
        return int(connection.execute(text("select count(*) from sync.units where state <> 'idle'")).scalar_one())


@pytest.fixture
def empty_name(postgres: Postgres) -> Iterator[str]:
    """A database without our schema."""
    name = f"empty_{next(_numbers)}"
    postgres.create_database(name)
    yield name
    postgres.drop_database(name)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Runs a command with --json under this environment; answers exit code and the JSON object."""
    secret = {
        "REDIS_URL": settings.redis_url,
        "SUPABASE_URL": settings.supabase_url,
        "SUPABASE_SECRET_KEY": settings.supabase_secret_key.get_secret_value(),
        "ENCRYPTION_KEYS": "1:a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=",
    }

    def run(*words: str, **environment: str) -> tuple[int, dict[str, Any]]:
        for name, value in (secret | environment).items():
            monkeypatch.setenv(name, value)
        result = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
        return result.exit_code, json.loads(result.stdout.splitlines()[-1])

    return run


def test_migrations_go_over_the_direct_address_and_everything_else_through_the_pooler(
    postgres: Postgres, pgbouncer: PgBouncer, empty_name: str, cli: Callable[..., tuple[int, dict[str, Any]]]
) -> None:
    addresses = {"DATABASE_URL": pgbouncer.url(empty_name), "DIRECT_URL": postgres.url(empty_name)}

    upgraded = cli("db", "upgrade", **addresses)
    checked = cli("db", "check", **addresses)
    added = cli("tenant", "add", "acme", **addresses)

    assert [upgraded[0], checked[0], added[0]] == [0, 0, 0]
    assert upgraded[1]["after"] == checked[1]["revision"]


def test_migrations_through_the_pooler_alone_are_refused_with_what_to_do(
    postgres: Postgres, pgbouncer: PgBouncer, empty_name: str, cli: Callable[..., tuple[int, dict[str, Any]]]
) -> None:
    code, answer = cli("db", "upgrade", DATABASE_URL=pgbouncer.url(empty_name))

    assert code == 1
    assert "set DIRECT_URL" in answer["error"]
    with postgres.connect(empty_name) as connection, connection.cursor() as cursor:
        cursor.execute("select count(*) from pg_locks where locktype = 'advisory'")
        assert cursor.fetchone() == (0,)
        cursor.execute("select to_regclass('public.schema_versions')")
        assert cursor.fetchone() == (None,)


def test_a_direct_address_that_leads_to_the_pooler_is_found_out(pgbouncer: PgBouncer, empty_name: str) -> None:
    with pytest.raises(PoolerInBetween):
        schema.upgrade(pgbouncer.url(empty_name))


@pytest.mark.parametrize("direct_url", [None, "pooled"])
def test_doctor_says_when_migrations_have_no_way_to_postgres(
    pgbouncer: PgBouncer, database_url: str, direct_url: str | None
) -> None:
    given = database_url if direct_url == "pooled" else None

    findings = doctor.examine(make_settings(database_url, direct_url=given))

    (found,) = [one for one in findings if one.about == "direct"]
    assert found.level == "fail"
    assert "DIRECT_URL" in found.text


def test_a_straight_connection_is_not_taken_for_a_pooled_one(
    direct: Database, database: Database, postgres: Postgres
) -> None:
    assert (direct.is_pooled(), database.is_pooled()) == (False, True)
