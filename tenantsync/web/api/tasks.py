"""`/api/v1/tasks`: asking for work, and what became of it."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ConfigDict, Field
from sqlalchemy import Connection

from db.ids import new_id
from db.repositories import processes, task_views, tenants, work
from db.repositories.task_views import StepLog, TaskRow
from db.states import TaskStatus
from tenantsync.processes import service
from tenantsync.web.conditional import TAGGED, Known, tagged
from tenantsync.web.fields import Body, Id, Line, Moment, Shown
from tenantsync.web.once import Onced, as_answer
from tenantsync.web.paging import USUAL, Cursor, Limit, Page, before_id, page_of
from tenantsync.web.problems import Problem, not_found, responses
from tenantsync.web.services import Parts
from tenantsync.web.viewers import SignedIn, Viewer
from tenantsync.work import opening, rules
from tenantsync.work.handlers import Handlers
from tenantsync.work.rules import Asked

router = APIRouter(prefix="/tasks", tags=["tasks"])

Kind = Annotated[Line, Query(max_length=100)]


class Task(Shown):
    """Work that somebody asked for. Its process has the same id."""

    task_id: UUID
    supabase_task_id: UUID | None = Field(description="Its id at Supabase, if it was asked for there")
    tenant_id: UUID
    workspace_id: UUID | None
    kind: str
    status: TaskStatus
    payload: Any
    result: Any
    error: str | None
    attempts: int
    requested_by: str | None
    created_at: Moment
    started_at: Moment | None
    completed_at: Moment | None

    @classmethod
    def of(cls, row: TaskRow) -> "Task":
        return cls.model_validate(row)


class NewTask(Body):
    """Work that is asked for. GET /api/v1/tasks/kinds says what there is."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"kind": "calendar.sync_now", "payload": {"wait": 10}, "priority": 5}]},
    )

    kind: str = Field(min_length=1, max_length=100)
    payload: dict[str, Any] = Field(default_factory=dict, description="What the kind's handler takes")
    workspace_id: Id | None = None
    priority: int = Field(5, ge=1, le=10, strict=True, description="1 is the most urgent")
    tenant_id: Id | None = Field(None, description="For operators; everybody else's is their own")


class Log(Shown):
    """A step of a task."""

    log_id: UUID
    step_name: str
    execution_time: int | None = Field(description="Milliseconds")
    success: bool | None
    details: Any
    logged_at: Moment

    @classmethod
    def of(cls, row: StepLog) -> "Log":
        return cls.model_validate(row)


class TaskKind(Shown):
    """A kind of work that there is a handler for."""

    kind: str
    title: str
    payload_schema: dict[str, Any]


class TaskKinds(Shown):
    """All of them."""

    items: list[TaskKind]
    next_cursor: None = None


def handlers_of(request: Request) -> Handlers:
    found: Handlers = request.app.state.handlers
    return found


TheHandlers = Annotated[Handlers, Depends(handlers_of)]


def this_task(task_id: Id, viewer: SignedIn, parts: Parts) -> TaskRow:
    """The task that a path names, if it is the viewer's to see."""
    with parts.database.statement() as connection:
        tenant_id = viewer.scope or task_views.tenant_of(connection, task_id=task_id)
        row = None if tenant_id is None else task_views.get(connection, tenant_id=tenant_id, task_id=task_id)
    if row is None or not viewer.sees(row.tenant_id, row.workspace_id):
        raise not_found("task")
    return row


ThisTask = Annotated[TaskRow, Depends(this_task)]


@router.get("", operation_id="listTasks", responses=responses(401, 404, 422, 503))
def list_tasks(
    viewer: SignedIn,
    parts: Parts,
    status: Annotated[list[TaskStatus] | None, Query(description="With one of these")] = None,
    kind: Annotated[list[Kind] | None, Query(description="Of one of these kinds", max_length=20)] = None,
    tenant_id: Annotated[Id | None, Query(description="Of this tenant; operators see everybody's without it")] = None,
    limit: Limit = USUAL,
    cursor: Cursor = None,
) -> Page[Task]:
    """Tasks that people or programs asked for, the newest first."""
    if tenant_id is not None:
        viewer.must_see(tenant_id)
    with parts.database.statement() as connection:
        rows = task_views.narrowed(
            connection,
            tenant_id=viewer.scope or tenant_id,
            workspace_ids=viewer.workspace_ids,
            statuses=status,
            kinds=kind,
            before=before_id(cursor),
            limit=limit + 1,
        )
    return page_of(rows, limit=limit, shown=Task.of, position=lambda row: row.task_id)


@router.get("/kinds", operation_id="listTaskKinds", responses=responses(401))
def list_kinds(viewer: SignedIn, handlers: TheHandlers) -> TaskKinds:  # noqa: ARG001 — for those who are signed in
    """What can be asked for, and with which payloads."""
    shown = [
        TaskKind(kind=one.kind, title=one.title, payload_schema=one.payload.model_json_schema())
        for one in sorted(handlers, key=lambda one: one.kind)
    ]
    return TaskKinds(items=shown)


@router.post(
    "",
    operation_id="createTask",
    status_code=201,
    response_model=Task,
    responses=responses(401, 403, 404, 409, 422, 503),
)
def create_task(new: NewTask, viewer: SignedIn, once: Onced, handlers: TheHandlers) -> Response:
    """Ask for work, as a web app does by inserting a row at Supabase."""
    tenant_id = viewer.scope or new.tenant_id
    if tenant_id is None:
        raise Problem(422, "Invalid request", "Operators say whose task it is: tenant_id.", kind="invalid")
    viewer.must_see(new.tenant_id or tenant_id)
    if new.workspace_id is None and not viewer.sees(tenant_id, None):
        raise Problem(422, "Invalid request", "Say for which of your workspaces: workspace_id.", kind="invalid")
    viewer.must_see(tenant_id, new.workspace_id, what="workspace")
    return once.answer(lambda connection: _created(connection, new, tenant_id, viewer, handlers))


def _created(connection: Connection, new: NewTask, tenant_id: UUID, viewer: Viewer, handlers: Handlers) -> Response:
    task_id = new_id()
    workspaces = {new.workspace_id} - {None}
    known = work.known(connection, tenants={tenant_id}, workspaces=[one for one in workspaces if one is not None])
    if tenant_id not in known:
        raise not_found("tenant")
    if new.workspace_id is not None and new.workspace_id not in known[tenant_id]:
        raise not_found("workspace")
    asked = Asked(
        id=task_id,
        tenant_id=tenant_id,
        workspace_id=new.workspace_id,
        kind=new.kind,
        payload=new.payload,
        priority=new.priority,
        created_by=viewer.actor,
        cancelled=False,
    )
    verdict = rules.judge(asked, handlers, known[tenant_id])
    if verdict.status != "pending":
        raise Problem(422, "Not a task that can be done", verdict.error, kind="unfit-task")
    task = opening.task_of(asked, verdict, task_id=task_id, supabase_task_id=None, workspaces=known[tenant_id])
    opening.open_task(connection, task, handlers, priority=new.priority)
    tenants.write_audit_log(
        connection,
        tenant_id=tenant_id,
        actor=viewer.actor,
        action="task.add",
        details={"task_id": str(task_id), "kind": new.kind},
    )
    row = task_views.get(connection, tenant_id=tenant_id, task_id=task_id)
    assert row is not None  # noqa: S101 — it was written a moment ago
    return as_answer(Task.of(row), status=201, headers={"Location": f"/api/v1/tasks/{task_id}"})


@router.get(
    "/{task_id}",
    operation_id="getTask",
    response_model=Task,
    responses={200: {"headers": TAGGED}, 304: {"description": "One has it already"}, **responses(401, 404, 422, 503)},
)
def get_task(row: ThisTask, known: Known) -> Response:
    """One task."""
    return tagged(Task.of(row), known)


@router.get("/{task_id}/logs", operation_id="listTaskLogs", responses=responses(401, 404, 422, 503))
def list_logs(row: ThisTask, parts: Parts, limit: Limit = USUAL, cursor: Cursor = None) -> Page[Log]:
    """What its runs did, step by step, the oldest first."""
    with parts.database.statement() as connection:
        rows = task_views.logs(
            connection, tenant_id=row.tenant_id, task_id=row.task_id, after=before_id(cursor), limit=limit + 1
        )
    return page_of(rows, limit=limit, shown=Log.of, position=lambda one: one.log_id)


@router.post(
    "/{task_id}/cancel",
    operation_id="cancelTask",
    response_model=Task,
    responses=responses(401, 403, 404, 409, 422, 503),
)
def cancel_task(row: ThisTask, viewer: SignedIn, once: Onced) -> Response:
    """End it: at once, or when its run hears of it."""

    def ended(connection: Connection) -> Response:
        if processes.get(connection, tenant_id=row.tenant_id, process_id=row.task_id) is None:
            raise Problem(409, detail=f"The task is {row.status} already.", kind="move-refused")
        try:
            service.cancel(connection, tenant_id=row.tenant_id, process_id=row.task_id, by=viewer.actor)
        except service.MoveRefused as error:
            raise Problem(409, detail=f"{str(error).capitalize()}.", kind="move-refused") from None
        after = task_views.get(connection, tenant_id=row.tenant_id, task_id=row.task_id)
        if after is None:
            raise not_found("task")
        return as_answer(Task.of(after))

    return once.answer(ended)
