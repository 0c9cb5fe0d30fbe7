"""`tenantsync task`"""

from typing import Annotated, Any
from uuid import UUID

import typer

from db.repositories import processes, work
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
    """List tasks that web apps asked for."""
    with answering(as_json=json), opened() as (_, database):
        with database.reading() as connection:
            chosen = None if tenant is None else the_tenant(connection, tenant)[0]
            rows = work.listed(connection, tenant_id=chosen, status=status, kind=kind, limit=limit)
        shown = [
            (one["supabase_task_id"], one["tenant"], one["kind"], one["status"], one["created_at"], one["error"])
            for one in rows
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
        found = work.find(connection, any_id=task)
        if found is None:
            raise Refusal(f"There is no task {task}. `tenantsync task list` shows those there are.")
        task_id, tenant_id = found
        (row,) = work.listed(connection, tenant_id=tenant_id, only=task_id, limit=1)
        process = processes.get(connection, tenant_id=tenant_id, process_id=task_id)
        steps = work.steps(connection, tenant_id=tenant_id, task_id=task_id, limit=STEPS)
    if process is not None:
        row |= {"state": process.state, "step": process.step, "percentage": process.percentage}
        row |= {"retries": process.retry_count, "result": process.result}
    return {"task": row, "steps": list(steps)}


@app.command()
def cancel(task: TaskId, json: JsonFlag = False) -> None:
    """Cancel a task: at once while nobody runs it, else at its next step."""
    from tenantsync.processes import service  # noqa: PLC0415 — takes longer to import than most commands

    with answering(as_json=json), opened() as (_, database):
        with database.transaction() as connection:
            found = work.find(connection, any_id=task)
            if found is None:
                raise Refusal(f"There is no task {task}. `tenantsync task list` shows those there are.")
            process = processes.get(connection, tenant_id=found[1], process_id=found[0])
            if process is None:
                raise Refusal(f"Task {task} was refused when it was taken in. There is nothing to cancel.")
            after = service.cancel(connection, tenant_id=found[1], process_id=found[0], by=actor())
        over = not after.open
        text = f"task {task} is cancelled" if over else f"task {task} ends at its next step"
        say({"task_id": found[0], "cancelled": over}, text, as_json=json)
