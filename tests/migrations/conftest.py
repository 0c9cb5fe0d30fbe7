"""Supabase databases that no server ever touched."""

from collections.abc import Iterator

import pytest

from sandbox import supabase_migrations
from sandbox.servers.postgres import Postgres
from tests.support.plain_supabase import PlainSupabase, hosted


@pytest.fixture
def bare(postgres: Postgres) -> Iterator[PlainSupabase]:
    """Without our migrations."""
    made = hosted(postgres)
    yield made
    postgres.drop_database(made.name)


@pytest.fixture(scope="module")
def migrated_once(postgres: Postgres) -> Iterator[PlainSupabase]:
    made = hosted(postgres)
    supabase_migrations.apply(made.url)
    yield made
    postgres.drop_database(made.name)


@pytest.fixture
def project(migrated_once: PlainSupabase) -> PlainSupabase:
    """With our migrations, and empty."""
    migrated_once.execute(
        "truncate public.calendar_accounts, public.calendars, public.calendar_events, public.tasks,"
        " public.processes, public.process_events, realtime.messages"
    )
    return migrated_once
