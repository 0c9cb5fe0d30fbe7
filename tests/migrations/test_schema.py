"""Our own schema: up, down and up again, one migration at a time, and never waiting for ever."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg2
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy.exc import OperationalError

from db import schema
from db.session import Database
from sandbox.servers.postgres import Postgres
from sandbox.servers.process import wait_until
from tests.support.fleet import KEY

LOCK_KEY = 7_246_001  # what every upgrade holds while it works
LOCK_TIMEOUT = 5.0  # seconds that a migration waits for a table

CATALOGUE = """
select 'column', table_schema, table_name, column_name, concat_ws(' ', data_type, is_nullable, column_default)
  from information_schema.columns where table_schema in ('sync', 'worker', 'mirror')
union all
select 'constraint', connamespace::regnamespace::text, conrelid::regclass::text, conname, pg_get_constraintdef(oid)
  from pg_constraint where connamespace in (select oid from pg_namespace where nspname in ('sync', 'worker', 'mirror'))
union all
select 'index', schemaname, tablename, indexname, indexdef from pg_indexes
 where schemaname in ('sync', 'worker', 'mirror')
union all
select 'trigger', '', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) from pg_trigger where not tgisinternal
union all
select 'function', pronamespace::regnamespace::text, '', proname, prosrc from pg_proc
 where pronamespace in (select oid from pg_namespace where nspname in ('sync', 'worker', 'mirror'))
union all
select 'sequence', schemaname, '', sequencename, cache_size::text from pg_sequences
order by 1, 2, 3, 4, 5
"""


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[str]:
    """The address of a database with nothing in it."""
    name = f"empty_{uuid.uuid4().hex}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


def ask(url: str, statement: str) -> list[tuple[object, ...]]:
    """Rows of a statement at an address."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def test_an_empty_database_becomes_what_the_models_say(empty: str) -> None:
    schema.upgrade(empty)

    schema.check_models(empty)


def test_a_table_that_differs_from_its_model_is_found(empty: str) -> None:
    schema.upgrade(empty)
    ask(empty, "alter table sync.units add column surprise integer")

    with pytest.raises(schema.ModelsDiffer, match="surprise"):
        schema.check_models(empty)


def test_an_upgrade_of_what_is_up_to_date_changes_nothing(empty: str) -> None:
    schema.upgrade(empty)
    before = ask(empty, CATALOGUE)

    schema.upgrade(empty)

    assert ask(empty, CATALOGUE) == before


def test_down_and_up_again_leads_to_the_same_schema(empty: str) -> None:
    schema.upgrade(empty)
    first = ask(empty, CATALOGUE)

    command.downgrade(schema.alembic_config(empty), "base")
    between = ask(empty, CATALOGUE)
    schema.upgrade(empty)

    assert between == []
    assert ask(empty, CATALOGUE) == first


def test_a_database_without_our_schema_is_named_outdated_and_what_to_do_is_said(empty: str) -> None:
    database = Database(empty, pool_size=1, name="tests")

    with pytest.raises(schema.SchemaOutdated, match="tenantsync db upgrade"):
        schema.require_current(database)

    database.close()


def test_the_newest_revision_is_found_without_alembic() -> None:
    assert schema.head() == ScriptDirectory.from_config(schema.alembic_config("")).get_current_head()


def test_a_migrated_database_is_current(database: Database) -> None:
    schema.require_current(database)


# Several at once


@pytest.fixture
def upgrading(empty: str) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    """Starts `tenantsync db upgrade` in a process of its own."""
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": empty,
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "SUPABASE_URL": "http://127.0.0.1:1",
        "SUPABASE_SECRET_KEY": "sb_secret_test",
        "ENCRYPTION_KEYS": f"1:{KEY}",
    }
    started: list[subprocess.Popen[str]] = []

    def start() -> "subprocess.Popen[str]":
        command_line = [sys.executable, "-m", "tenantsync", "db", "upgrade", "--json"]
        started.append(
            subprocess.Popen(
                command_line,
                cwd=schema.CHECKOUT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def outcome(process: "subprocess.Popen[str]") -> tuple[int, str]:
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


def test_upgrades_that_start_together_all_succeed(empty: str, upgrading: Callable[[], "subprocess.Popen[str]"]) -> None:
    processes = [upgrading() for _ in range(3)]

    outcomes = [outcome(process) for process in processes]

    assert [code for code, _ in outcomes] == [0, 0, 0], outcomes
    schema.check_models(empty)


WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'advisory'"


def test_an_upgrade_waits_for_another_however_long_that_takes(
    empty: str, upgrading: Callable[[], "subprocess.Popen[str]"]
) -> None:
    other = psycopg2.connect(empty)
    other.cursor().execute("select pg_advisory_lock(%s)", (LOCK_KEY,))
    second = upgrading()
    wait_until(lambda: ask(empty, WAITING) == [(1,)], timeout=30, what="the second upgrade waiting")

    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(LOCK_TIMEOUT + 1)  # longer than it would wait for a table
    other.close()

    assert outcome(second)[0] == 0


def test_a_migration_that_cannot_have_its_table_gives_up_and_changes_nothing(empty: str) -> None:
    schema.upgrade(empty)
    command.downgrade(schema.alembic_config(empty), "0001")  # each migration is a transaction of its own
    before = ask(empty, CATALOGUE)
    reader = psycopg2.connect(empty)
    reader.cursor().execute("select * from sync.events")  # and does not commit

    with pytest.raises(OperationalError, match="lock timeout"):
        command.downgrade(schema.alembic_config(empty), "base")

    reader.close()
    assert ask(empty, CATALOGUE) == before


def test_after_a_migration_gave_up_the_next_one_succeeds(empty: str) -> None:
    reader = psycopg2.connect(empty)
    reader.cursor().execute("create table public.schema_versions (version_num varchar(32))")  # uncommitted
    with pytest.raises(OperationalError, match="lock timeout"):
        schema.upgrade(empty)
    reader.close()

    schema.upgrade(empty)

    schema.check_models(empty)
