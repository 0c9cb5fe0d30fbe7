"""Tasks as people ask for them and look through them: those that somebody asked for, here or at Supabase."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

FLEET_QUERIES = ("EVERYBODYS", "FIND", "TENANT_OF")

_TASKS = """select k.id as task_id, k.supabase_task_id, k.tenant_id, t.name as tenant, k.workspace_id, k.kind, k.status,
       k.payload, k.result, k.error_log as error, k.worker_id, k.attempts, k.requested_by, k.created_at, k.started_at,
       k.completed_at
  from worker.tasks k left join sync.tenants t on t.tenant_id = k.tenant_id"""
_ASKED_FOR = "(k.supabase_task_id is not null or k.requested_by is not null)"
_NARROWED = f"""
{_TASKS}
 where {{tenant}} and {_ASKED_FOR}
   and (cast(:statuses as text[]) is null or k.status = any(cast(:statuses as text[])))
   and (cast(:kinds as text[]) is null or k.kind = any(cast(:kinds as text[])))
   and (cast(:workspaces as uuid[]) is null or k.workspace_id = any(cast(:workspaces as uuid[])))
   and (cast(:before as uuid) is null or k.id < cast(:before as uuid))
 order by k.id desc limit :n
"""
TENANTS = text(_NARROWED.format(tenant="k.tenant_id = :tenant"))
EVERYBODYS = text(_NARROWED.format(tenant="true"))
GET = text(f"{_TASKS} where k.tenant_id = :tenant and k.id = :id and {_ASKED_FOR}")
FIND = text(f"""
select k.id as task_id, k.tenant_id from worker.tasks k
 where k.id = coalesce((select task_id from worker.task_keys where key = 'supabase:' || cast(:id as text)), :id)
   and {_ASKED_FOR}
""")
TENANT_OF = text("select tenant_id from worker.tasks where id = :id")
LOGS = text("""
select l.id as log_id, l.step_name, l.execution_time, l.success, l.details, l.logged_at from worker.execution_logs l
 where l.tenant_id = :tenant and l.task_id = :id and (cast(:after as uuid) is null or l.id > cast(:after as uuid))
 order by l.id limit :n
""")


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task that somebody asked for, as it stands."""

    task_id: UUID
    supabase_task_id: UUID | None
    tenant_id: UUID
    tenant: str | None
    workspace_id: UUID | None
    kind: str
    status: str
    payload: Mapping[str, Any] | None
    result: Any
    error: str | None
    worker_id: str
    attempts: int
    requested_by: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


@dataclass(frozen=True, slots=True)
class StepLog:
    """A step of a task, with its milliseconds."""

    log_id: UUID
    step_name: str
    execution_time: int | None
    success: bool | None
    details: Mapping[str, Any] | None
    logged_at: datetime


def narrowed(
    connection: Connection,
    *,
    tenant_id: UUID | None,
    workspace_ids: Collection[UUID] | None,
    statuses: Collection[str] | None,
    kinds: Collection[str] | None,
    before: UUID | None,
    limit: int,
) -> list[TaskRow]:
    """Tasks of a tenant (of everybody without one), the newest first. None: not narrowed by it."""
    parameters = {
        "tenant": tenant_id,
        "workspaces": None if workspace_ids is None else list(workspace_ids),
        "statuses": None if statuses is None else list(statuses),
        "kinds": None if kinds is None else list(kinds),
        "before": before,
        "n": limit,
    }
    query = EVERYBODYS if tenant_id is None else TENANTS
    return [TaskRow(**row) for row in connection.execute(query, parameters).mappings()]


def get(connection: Connection, *, tenant_id: UUID, task_id: UUID) -> TaskRow | None:
    row = connection.execute(GET, {"tenant": tenant_id, "id": task_id}).mappings().first()
    return None if row is None else TaskRow(**row)


def tenant_of(connection: Connection, *, task_id: UUID) -> UUID | None:
    """Whose a task is, for those who may see every tenant's."""
    found: UUID | None = connection.execute(TENANT_OF, {"id": task_id}).scalar()
    return found


def find(connection: Connection, *, any_id: UUID) -> tuple[UUID, UUID] | None:
    """(our id, tenant) of a task, by our id or by Supabase's."""
    row = connection.execute(FIND, {"id": any_id}).one_or_none()
    return None if row is None else (row.task_id, row.tenant_id)


def logs(connection: Connection, *, tenant_id: UUID, task_id: UUID, after: UUID | None, limit: int) -> list[StepLog]:
    """What a task's runs did, the oldest first."""
    parameters = {"tenant": tenant_id, "id": task_id, "after": after, "n": limit}
    return [StepLog(**row) for row in connection.execute(LOGS, parameters).mappings()]
