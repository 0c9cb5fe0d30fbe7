"""Supabase's side of the mirror, for tests: what it holds, how it is drained to, whether it equals Postgres."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg2
import psycopg2.extras
from sqlalchemy import Connection, text

from db.ids import new_id
from db.repositories import tenants
from db.session import Database
from sandbox.servers.lite import SupabaseLite
from tenantsync.mirror import service
from tenantsync.mirror.service import Drained
from tenantsync.mirror.supabase import Supabase
from tests.support.fleet import TenantHandle
from tests.support.supabase_proxy import SupabaseProxy

Row = dict[str, Any]

TABLES = ("calendar_accounts", "calendars", "calendar_events", "tasks", "processes", "process_events")
TASK_COLUMNS = (
    "id", "tenant_id", "version", "status", "worker_id", "result", "error_message", "started_at",
    "completed_at",
)  # fmt: skip
"""What a task's row has from Postgres; the rest is what its web app asked for."""

# Not the product's queries: whole rows as JSON; the columns to compare are those that Supabase's table has.
POSTGRES = {
    "calendar_accounts": "select to_jsonb(a) || jsonb_build_object('id', a.account_id) from sync.accounts a",
    "calendars": "select to_jsonb(c) || jsonb_build_object('id', c.calendar_id) from sync.calendars c",
    "calendar_events": """
        select to_jsonb(e) || jsonb_build_object('id', e.event_id, 'workspace_id', c.workspace_id)
          from sync.events e join sync.calendars c using (calendar_id)
        union all
        select to_jsonb(t) || jsonb_build_object('id', t.event_id, 'workspace_id', c.workspace_id)
          from sync.tombstones t join sync.calendars c using (calendar_id)
    """,
    "tasks": """
        select to_jsonb(t) || jsonb_build_object('id', t.supabase_task_id, 'error_message', t.error_log,
                 'process_id', case when t.queue is not null then t.id end)
          from worker.tasks t where t.supabase_task_id is not null
    """,
    "processes": "select to_jsonb(p) || jsonb_build_object('id', p.process_id) from process.processes p",
    "process_events": """
        select to_jsonb(e) || jsonb_build_object('id', e.event_id, 'workspace_id', p.workspace_id,
                 'event_data', e.data, 'event_category', e.category, 'event_priority', e.priority,
                 'event_source', e.source)
          from process.events e join process.processes p using (process_id)
    """,
}


class MirrorSide:
    """A Supabase with our migrations, behind a proxy that can fail."""

    def __init__(self, lite: SupabaseLite, proxy: SupabaseProxy) -> None:
        self.lite = lite
        self.proxy = proxy
        self.supabase = Supabase(proxy.url, lite.secret_key)

    def close(self) -> None:
        self.supabase.close()

    def empty(self) -> None:
        self.execute(f"truncate {', '.join('public.' + table for table in TABLES)}, realtime.messages")

    def drain(self, database: Database, *, batch_size: int = 1000, budget: float = 20.0) -> Drained:
        return service.drain(database, self.supabase, batch_size=batch_size, budget=budget)

    def execute(self, statement: str, parameters: Any = None) -> None:
        with self.lite.postgres.connect(self.lite.database) as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters)

    def rows(self, query: str, parameters: Any = None) -> list[Row]:
        with (
            self.lite.postgres.connect(self.lite.database) as connection,
            connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor,
        ):
            cursor.execute(query, parameters)
            return [dict(row) for row in cursor.fetchall()]

    def table(self, name: str) -> dict[str, Row]:
        """All rows of a mirrored table as JSON, by id."""
        return {row["row"]["id"]: row["row"] for row in self.rows(f"select to_jsonb(t) as row from public.{name} t")}

    @contextmanager
    def unguarded(self) -> Iterator[Callable[..., None]]:
        """A way to change rows at Supabase that no trigger sees."""
        with self.lite.postgres.connect(self.lite.database) as connection, connection.cursor() as cursor:
            cursor.execute("set session_replication_role = replica")
            yield cursor.execute


def expected(database: Database, table: str, columns: Mapping[str, Any]) -> dict[str, Row]:
    """What Supabase should hold of a table, from Postgres' own rows."""
    with database.reading() as connection:
        found = connection.execute(text(POSTGRES[table])).scalars().all()
    return {row["id"]: {name: row.get(name) for name in columns} for row in found}


def assert_mirror_equals_postgres(database: Database, side: MirrorSide) -> None:
    """Every row, tombstones included, column by column."""
    columns = {table: {row["column_name"]: None for row in side.rows(COLUMNS, {"table": table})} for table in TABLES}
    columns["tasks"] = dict.fromkeys(TASK_COLUMNS)

    ours = {table: expected(database, table, columns[table]) for table in TABLES}
    theirs = {table: side.table(table) for table in TABLES}
    theirs["tasks"] = {
        task_id: {name: row[name] for name in TASK_COLUMNS}
        for task_id, row in theirs["tasks"].items()
        if row["version"]
    }

    assert theirs == ours


COLUMNS = "select column_name from information_schema.columns where table_schema = 'public' and table_name = %(table)s"


def open_again(database: Database) -> None:
    """Supabase's scope is open, and every tenant with rows to send has its turn: as after the pause."""
    with database.transaction() as connection:
        connection.execute(text("delete from sync.cooldowns where scope = 'provider' and scope_id = 'supabase'"))
        connection.execute(text("update mirror.turns set ready_at = now() where ready_at <> 'infinity'"))


def outbox(database: Database) -> dict[UUID, int]:
    """Row ids that wait for Supabase, with their versions."""
    with database.reading() as connection:
        return {
            row.row_id: row.version for row in connection.execute(text("select row_id, version from mirror.outbox"))
        }


def closed_for(database: Database) -> float:
    """Seconds until Supabase is asked again."""
    with database.reading() as connection:
        return float(connection.execute(CLOSED_FOR).scalar_one())


def change(calendar: UUID) -> Callable[[Connection], object]:
    """A change of a calendar's row, for a transaction."""
    return lambda connection: connection.execute(CHANGE, {"calendar": calendar})


def later(database: Database, time: timedelta) -> None:
    """What stands in the mirror's turns is as if so much time had passed."""
    with database.transaction() as connection:
        connection.execute(LATER, {"time": time})


CHANGE = text("update sync.calendars set name = name || 'x' where calendar_id = :calendar")
LATER = text("update mirror.turns set ready_at = ready_at - :time, lease_until = lease_until - :time")
CLOSED_FOR = text("""
select extract(epoch from until - now())::float8 from sync.cooldowns
 where scope = 'provider' and scope_id = 'supabase' and until > now()
""")


# Rows without a provider


def plant_tenant(database: Database, name: str) -> TenantHandle:
    with database.transaction() as connection:
        tenant_id = tenants.add_tenant(connection, name=name)
        return TenantHandle(tenant_id, tenants.add_workspace(connection, tenant_id=tenant_id, name="office"), name)


def plant_calendar(database: Database, tenant: TenantHandle) -> UUID:
    """An account with one calendar, straight into Postgres."""
    account, calendar = new_id(), new_id()
    with database.transaction() as connection:
        connection.execute(PLANT_ACCOUNT, {"account": account, **tenant_ids(tenant)})
        connection.execute(PLANT_CALENDAR, {"account": account, "calendar": calendar, **tenant_ids(tenant)})
    return calendar


def plant_events(database: Database, tenant: TenantHandle, calendar: UUID, number: int, *, title: str = "e") -> None:
    """Events as a merge leaves them: rows, outbox entries and the wake-up in one transaction."""
    with database.transaction() as connection:
        connection.execute(
            PLANT_EVENTS, {"calendar": calendar, "tenant": tenant.tenant_id, "number": number, "title": title}
        )
        connection.execute(WAKE, {"tenant": tenant.tenant_id})


def tenant_ids(tenant: TenantHandle) -> dict[str, UUID]:
    return {"tenant": tenant.tenant_id, "workspace": tenant.workspace_id}


PLANT_ACCOUNT = text("""
insert into sync.accounts (account_id, tenant_id, workspace_id, provider, identity)
values (:account, :tenant, :workspace, 'google', cast(:account as text))
""")
PLANT_CALENDAR = text("""
insert into sync.calendars (calendar_id, tenant_id, workspace_id, account_id, provider_key)
values (:calendar, :tenant, :workspace, :account, 'main')
""")
PLANT_EVENTS = text("""
with made as (
  insert into sync.events
    (event_id, tenant_id, calendar_id, provider_key, resource, status, title, all_day, raw, digest, version)
  select gen_random_uuid(), :tenant, :calendar, key, key, 'confirmed', :title, false, '{}', key,
         nextval('mirror.version')
    from (select gen_random_uuid()::text as key from generate_series(1, :number)) k
  returning event_id, version)
insert into mirror.outbox (tenant_id, entity, row_id, version)
select :tenant, 'events', event_id, version from made
""")
WAKE = text("update mirror.turns set ready_at = least(ready_at, now()) where tenant_id = :tenant")
