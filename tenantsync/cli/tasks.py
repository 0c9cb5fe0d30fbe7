"""`tenantsync task`"""

from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

import typer
from sqlalchemy import Connection

from db.repositories import processes, task_views
from db.repositories.task_views import TaskRow
from db.session import Database
from tenantsync.cli.common import JsonFlag, Refusal, actor, answering, opened, say, table, the_tenant

app = typer.Typer(no_args_is_help=True)

STEPS = 500
TaskId = Annotated[UUID, typer.Argument(help="Id of the task: Supabase's or ours.")]


@app.command("list")
def list_tasks(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant, by name or id.")] = None,
    status: Annotated[str | None, typer.Option(help="Only these: pending, processing, waiting, failed, …")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many at most, the newest first.")] = 50,
    json: JsonFlag = False,
) -> None:
    """List tasks that somebody asked for, at Supabase or here."""
    with answering(as_json=json), opened() as (_, database):
        with database.reading() as connection:
            chosen = None if tenant is None else the_tenant(connection, tenant)[0]
            found = task_views.narrowed(
                connection,
                tenant_id=chosen,
                workspace_ids=None,
                statuses=None if status is None else [status],
                kinds=None if kind is None else [kind],
                before=None,
                limit=limit,
            )
        rows = [_without_content(one) for one in found]
        shown = [
            (one.supabase_task_id or one.task_id, one.tenant, one.kind, one.status, one.created_at, one.error)
            for one in found
        ]
        text = table(("task", "tenant", "kind", "status", "since", "error"), shown)
        say({"tasks": rows}, text if rows else "nobody asked for anything", as_json=json)


@app.command()
def show(task: TaskId, json: JsonFlag = False) -> None:
    """Show a task: how far it is, what it logged, what came of it."""
    with answering(as_json=json), opened() as (_, database):
        found = _find(database, task)
        text = "\n".join(f"{name:12} {value}" for name, value in found["task"].items() if value is not None)
        logged = [(one["step_name"], one["execution_time"], one["success"]) for one in found["steps"]]
        if logged:
            text += "\n\n" + table(("step", "ms", "done"), logged)
        say(found, text, as_json=json)


def _find(database: Database, task: UUID) -> dict[str, Any]:
    with database.reading() as connection:
        task_id, tenant_id = _known(connection, task)
        found = task_views.get(connection, tenant_id=tenant_id, task_id=task_id)
        process = processes.get(connection, tenant_id=tenant_id, process_id=task_id)
        steps = task_views.logs(connection, tenant_id=tenant_id, task_id=task_id, after=None, limit=STEPS)
    if found is None:
        raise _no_such(task)
    row = _without_content(found)
    if process is not None:
        row |= {"state": process.state, "step": process.step, "percentage": process.percentage}
        row |= {"retries": process.retry_count, "result": process.result}
    return {"task": row, "steps": [asdict(one) for one in steps]}


def _known(connection: Connection, task: UUID) -> tuple[UUID, UUID]:
    """(our id, tenant) of a task."""
    found = task_views.find(connection, any_id=task)
    if found is None:
        raise _no_such(task)
    return found


def _no_such(task: UUID) -> Refusal:
    return Refusal(f"There is no task {task}. `tenantsync task list` shows those there are.")


def _without_content(row: TaskRow) -> dict[str, Any]:
    """Without what was asked, which is the tenant's, and without the result, which is told where one is shown."""
    return {name: value for name, value in asdict(row).items() if name not in ("payload", "result")}


@app.command()
def cancel(task: TaskId, json: JsonFlag = False) -> None:
    """Cancel a task: at once while nobody runs it, else at its next step."""
    from tenantsync.processes import service  # noqa: PLC0415 — takes longer to import than most commands

    with answering(as_json=json), opened() as (_, database):
        with database.transaction() as connection:
            task_id, tenant_id = _known(connection, task)
            process = processes.get(connection, tenant_id=tenant_id, process_id=task_id)
            if process is None:
                raise Refusal(f"Task {task} was refused when it was taken in. There is nothing to cancel.")
            after = service.cancel(connection, tenant_id=tenant_id, process_id=task_id, by=actor())
        over = not after.open
        text = f"task {task} is cancelled" if over else f"task {task} ends at its next step"
        say({"task_id": task_id, "cancelled": over}, text, as_json=json)
