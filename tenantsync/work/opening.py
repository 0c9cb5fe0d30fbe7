"""How a task begins: what was asked, written down, and the process that does it, both or neither."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import Connection

from config.queues import Queue
from db.repositories import work
from db.repositories.work import NewTask
from tenantsync.processes import service
from tenantsync.work.handlers import Handlers
from tenantsync.work.rules import Asked, Verdict

LOST_WORKERS = 3
"""How often a task is tried again whose worker was lost, where its handler allows no more."""
BY = "supabase"
"""Who asked, where the row does not say; and who cancels: Supabase does not tell which of the tenant's members did."""


def task_of(
    asked: Asked, verdict: Verdict, *, task_id: UUID, supabase_task_id: UUID | None, workspaces: Collection[UUID]
) -> NewTask:
    """The row of a task that was judged; `workspaces` are its tenant's."""
    return NewTask(
        task_id=task_id,
        supabase_task_id=supabase_task_id,
        tenant_id=asked.tenant_id,
        workspace_id=asked.workspace_id if asked.workspace_id in workspaces else None,
        kind=asked.kind,
        queue=Queue.TASKS.value if verdict.status == "pending" else None,
        payload=verdict.payload,
        requested_by=asked.created_by,
        status=verdict.status,
        error=verdict.error,
    )


def open_task(connection: Connection, task: NewTask, handlers: Handlers, *, priority: int) -> bool:
    """The task and, unless it is over already, the process of the same id; False if somebody was faster."""
    if not work.take(connection, task):
        return False
    handler = handlers.get(task.kind)
    if task.status == "pending" and handler is not None:
        service.create(
            connection,
            tenant_id=task.tenant_id,
            workspace_id=task.workspace_id,
            kind=task.kind,
            title=handler.title,
            started_by=task.requested_by or BY,
            process_id=task.task_id,
            priority=priority,
            queue=task.queue,
            max_retries=max(LOST_WORKERS, handler.retries),
            initial_request=task.payload,
        )
    return True
