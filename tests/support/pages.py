"""A tenant with one of everything, named by somebody hostile, for tests of pages."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text

from db.ids import new_id
from db.repositories import tenants
from db.session import Database
from tenantsync.processes import service
from tests.support import process_world
from tests.support.web import Web

HOSTILE = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>\"'{{7*7}}"


@dataclass(frozen=True)
class Furnished:
    """What there is to look at."""

    tenant_id: UUID
    workspace_id: UUID
    asking: UUID
    question: UUID
    running: UUID
    run_id: UUID
    parked_unit: UUID
    refused_row: UUID

    def own_pages(self) -> list[str]:
        """Pages of the tenant that everybody of it may see."""
        return [
            f"/tenants/{self.tenant_id}", f"/tenants/{self.tenant_id}/why", "/runs", "/runs?failed=1",
            f"/runs/{self.run_id}", "/processes", "/processes?state=waiting", f"/processes/{self.asking}",
            f"/processes/{self.running}", "/tasks",
        ]  # fmt: skip

    def manager_pages(self) -> list[str]:
        """Those for whoever answers for it, besides."""
        return ["/parked", "/people", "/audit", "/audit?action=tenant."]

    def operator_pages(self) -> list[str]:
        """Those of the whole fleet."""
        return [
            "/",
            "/?span=1h",
            "/?span=30d",
            "/tenants",
            "/tenants?sort=trouble&only=parked",
            "/mirror",
            "/schedules",
        ]


def furnish(web: Web, *, name: str = HOSTILE) -> Furnished:
    """A tenant whose every title is `name`."""
    tenant_id, workspace_id = web.tenant(name)
    with web.database.transaction() as connection:
        asked = process_world.waiting(connection, tenant_id, title=name)
        running = process_world.running(connection, tenant_id, title=name)
        service.start_step(connection, held=running, step=name[:200], message=name)
        parked = tenants.add_workspace(connection, tenant_id=tenant_id, name=name)
    run_id, row_id = new_id(), new_id()
    values = {"tenant": tenant_id, "unit": workspace_id, "parked": parked, "name": name, "run": run_id, "row": row_id}
    for statement in _ROWS.split(";\n"):
        _execute(web.database, statement, values | {"id": new_id()})
    return Furnished(
        tenant_id, workspace_id, asked.process_id, asked.question_id, running.process_id, run_id, parked, row_id
    )


def _execute(database: Database, statement: str, values: dict[str, object]) -> None:
    with database.transaction() as connection:
        connection.execute(text(statement), values)


_ROWS = """
update sync.units set state = 'dispatched' where unit_id = :parked;
update sync.units set state = 'running', worker_id = :name where unit_id = :parked;
update sync.units set state = 'parked', parked_reason = :name, parked_at = now(), next_due_at = now() + interval
'1 h' where unit_id = :parked;
insert into sync.accounts (account_id, tenant_id, workspace_id, provider, identity, state, state_reason) values
(:id, :tenant, :unit, 'google', :name, 'needs_reauth', :name);
insert into sync.calendars (calendar_id, tenant_id, workspace_id, account_id, provider_key, name, failures,
last_error) select :id, :tenant, :unit, account_id, 'key', :name, 3, :name from sync.accounts where tenant_id =
:tenant;
insert into worker.tasks (id, tenant_id, kind, subject_id, queue, worker_id, status, started_at, completed_at,
result, error_log) values (:run, :tenant, 'sync.unit', :unit, 'sync', :name, 'failed', now(), now(),
jsonb_build_object('inserted', 3, 'bytes', 10, 'void_cursors', json_build_array(cast(:name as text))), :name);
insert into worker.execution_logs (id, task_id, tenant_id, step_name, execution_time, success, details) values
(:id, :run, :tenant, left(:name, 200), 120, false, jsonb_build_object('about', cast(:name as text)));
insert into mirror.parked_rows (tenant_id, entity, row_id, version, sqlstate, reason) values (:tenant, 'events',
:row, 3, '23514', :name);
insert into mirror.outbox (tenant_id, entity, row_id, version) values (:tenant, 'events', :id, 3);
update mirror.turns set ready_at = now() where tenant_id = :tenant;
insert into worker.audit_logs (id, tenant_id, actor, action, details) values (:id, :tenant, :name, :name,
jsonb_build_object('reason', cast(:name as text)));
insert into sync.cooldowns (scope, scope_id, until, reason) values ('account', :name, now() + interval '1 h',
:name) on conflict do nothing;
insert into worker.workers (worker_id, queues, slots) values (:name, array['sync'], 2) on conflict do nothing;
insert into worker.schedules (entry, kind, every, policy) values (:name, :name, '1 min', 'skip') on conflict do
nothing
"""
