"""0003 on a database that is in use: up with rows from before, down with processes at every stage, and up again."""

import uuid
from collections.abc import Iterator

import pytest
from alembic import command
from sqlalchemy import text

from config.settings import Settings
from db import schema
from db.ids import new_id
from db.repositories import mirroring, retention, work
from db.repositories.work import NewTask
from db.session import Database, in_transaction
from sandbox.servers.postgres import Postgres
from tests.support.mirror import plant_calendar, plant_events, plant_tenant
from tests.support.stage import Stage

BEFORE = """
insert into worker.tasks (id, kind, queue, status, lease_until)
select gen_random_uuid(), 'sync.batch', 'sync', s, now() + interval '1 hour'
  from unnest(array['pending', 'processing', 'completed', 'failed', 'superseded', 'skipped']) as u(s)
"""
ROWS = "select kind, status, count(*) from worker.tasks where kind = 'sync.batch' group by 1, 2 order by 2"
ASKED = "select status from worker.tasks where kind = 'orders.export' order by status"


@pytest.fixture
def used(postgres: Postgres, settings: Settings) -> Iterator[tuple[str, Database]]:
    """A database of revision 0002 with a tenant, its events, and tasks in every state; its address and a pool."""
    name = f"used_{uuid.uuid4().hex}"
    url = postgres.create_database(name)
    command.upgrade(schema.alembic_config(url), "0002")
    database = Database(url, pool_size=3, name="tests")
    tenant = plant_tenant(database, "acme")
    plant_events(database, tenant, plant_calendar(database, tenant), 5)
    in_transaction(database, lambda c: c.execute(text(BEFORE)))
    yield url, database
    database.close()
    postgres.drop_database(name)


def found(database: Database, query: str) -> list[tuple[object, ...]]:
    with database.reading() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def at_every_stage(database: Database) -> None:
    """A task that was asked for in each state, one of them parked on its way to Supabase."""
    stage = Stage(database, plant_tenant(database, f"asker {new_id()}"))
    for state in ("pending", "running", "waiting", "paused", "cancelled"):
        task = NewTask(new_id(), new_id(), stage.tenant.tenant_id, None, "orders.export", "tasks", {}, "ann")
        with database.transaction() as connection:
            work.take(connection, task)
        stage.create(process_id=task.task_id)
        if state in ("running", "waiting", "paused"):
            held = stage.begin(task.task_id)
        if state in ("waiting", "paused"):
            stage.ask(held)
        if state in ("paused", "cancelled"):
            stage.wish("pause" if state == "paused" else "cancel", task.task_id)
    stage.execute(
        "insert into mirror.parked_rows (tenant_id, entity, row_id, version, reason)"
        " select tenant_id, entity, row_id, version, 'test' from mirror.outbox"
    )


def test_up_with_rows_down_with_processes_and_up_again_leaves_what_was_there_and_nothing_open(
    used: tuple[str, Database],
) -> None:
    url, database = used
    before = found(database, ROWS), found(database, "select entity, count(*) from mirror.outbox group by 1 order by 1")

    schema.upgrade(url)
    at_every_stage(database)
    database.close()
    command.downgrade(schema.alembic_config(url), "0002")

    asked = found(database, ASKED)
    retried = in_transaction(database, mirroring.retry_parked)
    queued = found(database, "select distinct entity from mirror.outbox order by 1")
    database.close()
    schema.upgrade(url)
    schema.check_models(url)

    assert found(database, ROWS) == before[0]
    assert asked == [("failed",)] * 5
    assert queued == [("accounts",), ("calendars",), ("events",)]
    assert retried >= 5
    assert in_transaction(database, retention.supersede_orphans) == 0
    at_every_stage(database)
