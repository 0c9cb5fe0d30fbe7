"""A Supabase database that no server ever touched: hosted roles and Realtime's table, then our migrations."""

import json
import uuid
from collections.abc import Mapping
from typing import Any

import psycopg2.extras

from sandbox.servers.node import PACKAGES
from sandbox.servers.postgres import Postgres

Row = dict[str, Any]

# What a project that was made before October 2026 grants on everything new in `public`.
OLD_DEFAULTS = """
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
"""


class PlainSupabase:
    def __init__(self, postgres: Postgres, name: str) -> None:
        self._postgres = postgres
        self.name = name
        self.url = postgres.url(name)

    def execute(self, statement: str) -> None:
        self._postgres.execute(self.name, statement)

    def rows(self, query: str, parameters: Any = None) -> list[Row]:
        """As the owner."""
        return self._ask(query, parameters, {})

    def ask(
        self, role: str, query: str, parameters: Any = None, *, claims: Mapping[str, Any] | None = None, topic: str = ""
    ) -> list[Row]:
        """As PostgREST and Realtime ask on behalf of somebody: in that role, with these claims."""
        given = json.dumps({"role": role, **(claims or {})})
        return self._ask(query, parameters, {"role": role, "request.jwt.claims": given, "realtime.topic": topic})

    def apply(self, target: str, rows: list[Row]) -> Row:
        """One call of the mirror."""
        query = "select public.mirror_apply(%s, %s::jsonb) as answer"
        (found,) = self.ask("service_role", query, (target, json.dumps(rows)))
        answer: Row = found["answer"]
        return answer

    def _ask(self, query: str, parameters: Any, settings: Mapping[str, str]) -> list[Row]:
        with (
            self._postgres.connect(self.name) as connection,
            connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor,
        ):
            for name, value in settings.items():
                cursor.execute("select set_config(%s, %s, false)", (name, value))
            cursor.execute(query, parameters)
            return [dict(row) for row in cursor.fetchall()] if cursor.description else []


def hosted(postgres: Postgres, *, defaults: str = "") -> PlainSupabase:
    """A hosted project's database as it is before our migrations."""
    name = f"plain_{uuid.uuid4().hex}"
    postgres.create_database(name)
    postgres.execute(name, (PACKAGES / "hosted.sql").read_text())
    postgres.execute(name, defaults or "select 1")
    return PlainSupabase(postgres, name)
