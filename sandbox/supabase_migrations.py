"""Applies supabase/migrations as the official CLI would: in order, once each, remembered in its table."""

from pathlib import Path

import psycopg2

FOLDER = Path(__file__).resolve().parent.parent / "supabase" / "migrations"

_BOOKS = """
create schema if not exists supabase_migrations;
create table if not exists supabase_migrations.schema_migrations (
  version text primary key, statements text[], name text);
"""


def apply(url: str) -> list[str]:
    """Bring a Supabase database up to date; returns the versions applied. A file that fails changes nothing."""
    applied = []
    connection = psycopg2.connect(url)
    try:
        for path in sorted(FOLDER.glob("*.sql")):
            version, _, name = path.stem.partition("_")
            with connection, connection.cursor() as cursor:
                cursor.execute(_BOOKS)
                cursor.execute(
                    "insert into supabase_migrations.schema_migrations (version, name) values (%s, %s) "
                    "on conflict do nothing",
                    (version, name),
                )
                if cursor.rowcount:
                    cursor.execute(path.read_text())
                    applied.append(version)
    finally:
        connection.close()
    return applied
