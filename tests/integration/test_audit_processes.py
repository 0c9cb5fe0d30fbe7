"""The judge looks at tasks, processes and their events as well."""

from uuid import UUID

import pytest
from sqlalchemy import text

from db.session import Database
from tenantsync.audit import service
from tenantsync.audit.rules import MirrorDifferences
from tenantsync.work import intake
from tenantsync.work.handlers import Handlers
from tenantsync.work.supabase_tasks import SupabaseTasks
from tests.support.fleet import TenantHandle
from tests.support.mirror import MirrorSide, plant_tenant
from tests.support.process_rows import plant_process, plant_process_events, plant_task
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures

pytest_plugins = ["tests.support.supabase_fixtures"]

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

ROWS = 2010  # more than two of Supabase's pages, and more than one of ours


@pytest.fixture
def acme(database: Database) -> TenantHandle:
    return plant_tenant(database, "acme")


@pytest.fixture
def process(database: Database, mirror: MirrorSide, acme: TenantHandle) -> UUID:
    """A process with many events, and a task, all at Supabase."""
    process_id = plant_process(database, acme)
    plant_process_events(database, process_id, ROWS)
    plant_process_events(database, plant_process(database, acme), 2)
    plant_task(database, mirror, acme)
    mirror.drain(database)
    return process_id


def differences(database: Database, mirror: MirrorSide, tenant: TenantHandle) -> MirrorDifferences:
    proof = service._compare_mirror(database, mirror.supabase, tenant.tenant_id, tenant.name)
    assert proof.failure is None
    return proof.differences


def test_all_of_it_is_compared_and_agrees(
    database: Database, mirror: MirrorSide, acme: TenantHandle, process: UUID
) -> None:
    found = differences(database, mirror, acme)

    assert not found
    assert found.rows == ROWS + 2 + 2 + 1


SURPLUS = """
insert into public.process_events
select process_id, sequence + 9000, id, tenant_id, workspace_id, event_type, event_data, event_category, event_priority,
       event_source, created_at
  from public.process_events where sequence = 3
"""


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("delete from public.process_events where sequence = 7", "missing"),
        ("update public.process_events set event_data = '{}' where sequence = 2005", "event_data"),
        ("update public.process_events set created_at = created_at + interval '1 s' where sequence = 1", "created_at"),
        (SURPLUS, "surplus"),
        ("update public.processes set title = 'forged'", "title"),
        ("delete from public.processes", "missing"),
        ("update public.tasks set status = 'failed'", "status"),
    ],
)
def test_what_was_changed_at_supabase_is_found(
    database: Database, mirror: MirrorSide, acme: TenantHandle, process: UUID, statement: str, named: str
) -> None:
    with mirror.unguarded() as execute:
        execute(statement)

    found = differences(database, mirror, acme)

    seen = {*found.differing.values(), *(["missing"] * bool(found.missing)), *(["surplus"] * bool(found.surplus))}
    assert seen == {named}


def test_what_its_web_app_deleted_or_only_asked_for_is_no_drift(
    database: Database, mirror: MirrorSide, acme: TenantHandle, process: UUID
) -> None:
    mirror.execute("delete from public.tasks")
    mirror.execute("insert into public.tasks (tenant_id, kind) values (%s, 'k')", (str(acme.tenant_id),))

    assert not differences(database, mirror, acme)


def test_what_is_archived_here_may_be_gone_there(
    database: Database, mirror: MirrorSide, acme: TenantHandle, process: UUID
) -> None:
    with database.transaction() as connection:
        connection.execute(text("update process.events set archived = true where sequence < 10"))
    mirror.execute("delete from public.process_events where sequence < 5")

    assert not differences(database, mirror, acme)


def test_a_task_that_was_refused_for_its_workspace_is_no_drift(
    database: Database, mirror: MirrorSide, acme: TenantHandle
) -> None:
    """Its row here names none, because the tenant has none of that id; the web app's row stays as it was asked for."""
    mirror.execute(
        "insert into public.tasks (tenant_id, workspace_id, kind) values (%s, gen_random_uuid(), 'k')",
        (str(acme.tenant_id),),
    )
    taken = intake.take_in(database, SupabaseTasks(mirror.supabase), Handlers())
    mirror.drain(database)

    assert taken["refused"] == 1
    assert [row["status"] for row in mirror.rows("select status from public.tasks")] == ["failed"]
    assert not differences(database, mirror, acme)
