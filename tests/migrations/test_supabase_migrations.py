"""Supabase's migrations: on a hosted project's database as on ours, by the official CLI as by our own hand."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from sandbox import supabase_migrations
from sandbox.servers.node import find_node, supabase_cli
from sandbox.servers.postgres import Postgres
from tests.support.plain_supabase import OLD_DEFAULTS, PlainSupabase, hosted

# A first run on a machine installs the CLI from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

TABLES = ("calendar_accounts", "calendar_events", "calendars", "process_events", "processes", "tasks")
APPLYING = (
    "mirror_apply", "mirror_apply_accounts", "mirror_apply_calendars", "mirror_apply_events", "mirror_apply_set",
    "mirror_apply_tasks", "mirror_apply_processes", "mirror_apply_process_events", "mirror_purge", "process_purge",
)  # fmt: skip
BELLS = {"mirror_announce", "process_events_announce", "tasks_ring_cancelled", "tasks_ring_inserted"}

TABLE_GRANTS = """
select grantee, table_name, privilege_type from information_schema.role_table_grants
 where table_schema = 'public' and grantee <> 'postgres'
"""
COLUMN_GRANTS = """
select grantee, table_name, column_name, privilege_type from information_schema.column_privileges
 where table_schema = 'public' and grantee not in ('postgres', 'service_role') and privilege_type <> 'SELECT'
"""
ROUTINE_GRANTS = """
select grantee, routine_name, privilege_type from information_schema.routine_privileges
 where routine_schema = 'public' and grantee <> 'postgres'
"""
VERSIONS = ["20261120090000", "20261120090100", "20261121190000"]


def triples(rows: list[dict[str, str]]) -> set[tuple[str, ...]]:
    return {tuple(row.values()) for row in rows}


def test_the_migrations_apply_to_a_database_that_has_only_what_hosted_has(bare: PlainSupabase) -> None:
    applied = supabase_migrations.apply(bare.url)

    assert applied == VERSIONS
    assert bare.apply("events", []) == {"received": 0, "applied": 0, "rejected": []}


def test_the_migrations_apply_once(bare: PlainSupabase) -> None:
    supabase_migrations.apply(bare.url)

    assert supabase_migrations.apply(bare.url) == []


def test_a_migration_that_fails_leaves_nothing_behind(bare: PlainSupabase) -> None:
    bare.execute("create function public.mirror_apply(text, jsonb) returns int language sql as 'select 1'")

    with pytest.raises(psycopg2.Error):
        supabase_migrations.apply(bare.url)

    assert bare.rows("select tablename from pg_tables where schemaname in ('public', 'supabase_migrations')") == []


def test_tables_are_granted_to_those_who_need_them_and_no_further(project: PlainSupabase) -> None:
    granted = triples(project.rows(TABLE_GRANTS))

    members = {("authenticated", table, "SELECT") for table in TABLES}
    service = {("service_role", table, does) for table in TABLES for does in ("SELECT", "INSERT", "UPDATE", "DELETE")}
    assert granted == members | service


ASKED = {("authenticated", "tasks", "cancel_requested_at", "UPDATE")} | {
    ("authenticated", "tasks", column, "INSERT")
    for column in ("id", "tenant_id", "workspace_id", "kind", "payload", "priority")
}


def test_members_write_the_columns_of_what_they_ask_and_no_others(project: PlainSupabase) -> None:
    assert triples(project.rows(COLUMN_GRANTS)) == ASKED


def test_functions_are_granted_to_those_who_need_them_and_no_further(project: PlainSupabase) -> None:
    granted = triples(project.rows(ROUTINE_GRANTS))

    service = {("service_role", name, "EXECUTE") for name in APPLYING}
    assert granted == service | {("authenticated", "mirror_may_read", "EXECUTE")}


@pytest.fixture(scope="module")
def older_project(postgres: Postgres) -> Iterator[PlainSupabase]:
    """A project from before October 2026, whose defaults grant everything to everybody."""
    made = hosted(postgres, defaults=OLD_DEFAULTS)
    supabase_migrations.apply(made.url)
    yield made
    postgres.drop_database(made.name)


def test_an_older_project_grants_its_members_no_more_on_tables(older_project: PlainSupabase) -> None:
    granted = triples(older_project.rows(TABLE_GRANTS))

    members = {grant for grant in granted if grant[0] != "service_role"}
    assert members == {("authenticated", table, "SELECT") for table in TABLES}


def test_an_older_project_grants_its_members_no_more_on_columns(older_project: PlainSupabase) -> None:
    assert triples(older_project.rows(COLUMN_GRANTS)) == ASKED


def test_an_older_project_grants_its_members_no_more_on_functions(older_project: PlainSupabase) -> None:
    granted = triples(older_project.rows(ROUTINE_GRANTS))

    members = {grant for grant in granted if grant[0] != "service_role"}
    assert members == {("authenticated", "mirror_may_read", "EXECUTE")}


def test_every_table_has_row_level_security(project: PlainSupabase) -> None:
    tables = project.rows("select tablename, rowsecurity from pg_tables where schemaname = 'public'")

    assert {row["tablename"]: row["rowsecurity"] for row in tables} == dict.fromkeys(TABLES, True)


def test_policies_only_ever_let_signed_in_members_read_and_ask_for_tasks(project: PlainSupabase) -> None:
    found = project.rows("select schemaname, tablename, cmd, roles::text, permissive from pg_policies")

    public = {("public", table, "SELECT", "{authenticated}", "PERMISSIVE") for table in TABLES}
    public |= {("public", "tasks", does, "{authenticated}", "PERMISSIVE") for does in ("INSERT", "UPDATE")}
    assert triples(found) == public | {("realtime", "messages", "SELECT", "{authenticated}", "PERMISSIVE")}


def test_every_function_fixes_its_search_path_and_only_doorbells_act_as_their_owner(project: PlainSupabase) -> None:
    functions = project.rows(
        "select proname, proconfig::text as settings, prosecdef"
        "  from pg_proc where pronamespace = 'public'::regnamespace"
    )

    assert {row["settings"] for row in functions} == {'{"search_path=\\"\\""}'}
    assert {row["proname"] for row in functions if row["prosecdef"]} == BELLS


# The official CLI


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The Supabase CLI on a copy of our folder: it writes into the one it works in."""
    binary = supabase_cli(find_node())
    shutil.copytree(supabase_migrations.FOLDER, tmp_path / "supabase" / "migrations")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "SUPABASE_TELEMETRY_DISABLED": "1",
        "DO_NOT_TRACK": "1",
    }

    def run(database: PlainSupabase, *arguments: str) -> subprocess.CompletedProcess[str]:
        where = [f"--remote={database.url}?sslmode=disable", "--workdir", str(tmp_path)]
        return subprocess.run(
            [binary, *arguments, *where],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )

    return run


def listed(done: subprocess.CompletedProcess[str]) -> list[tuple[str, str]]:
    """(local, remote) versions, as `migration list` prints them."""
    return re.findall(r"^\s*`?(\d*)`?\s*\|\s*`?(\d*)`?\s*\|\s*`?\d{4}-", done.stdout, re.MULTILINE)


def test_the_official_cli_applies_what_we_apply(
    bare: PlainSupabase, project: PlainSupabase, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    pushed = cli(bare, "db", "push", "--yes")

    assert pushed.returncode == 0, pushed.stderr
    assert supabase_migrations.apply(bare.url) == []
    assert triples(bare.rows(TABLE_GRANTS)) == triples(project.rows(TABLE_GRANTS))
    assert triples(bare.rows(ROUTINE_GRANTS)) == triples(project.rows(ROUTINE_GRANTS))
    assert bare.apply("events", []) == {"received": 0, "applied": 0, "rejected": []}


def test_the_official_cli_accepts_what_we_applied(
    project: PlainSupabase, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    pushed = cli(project, "db", "push", "--yes")
    agreed = cli(project, "migration", "list")

    assert (pushed.returncode, agreed.returncode) == (0, 0)
    assert "up to date" in pushed.stdout
    assert listed(agreed) == [(version, version) for version in VERSIONS]


def test_the_official_advisors_find_nothing_to_warn_of(
    project: PlainSupabase, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    advised = cli(project, "db", "advisors", "--type", "security", "--level", "info", "--fail-on", "info")

    assert advised.returncode == 0, advised.stdout
