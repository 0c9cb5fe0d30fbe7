"""A small world of processes for the API's tests: one of each kind that a path can name."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection

from db.ids import new_id
from db.repositories import work
from db.repositories.work import NewTask
from db.session import Database
from tenantsync.processes import service
from tenantsync.processes.publishing import Publisher
from tenantsync.processes.values import Held, NewQuestion

LEASE = timedelta(minutes=5)
QUEUE = "tasks"


@dataclass(frozen=True)
class Asked:
    """A process that waits for an answer."""

    process_id: UUID
    question_id: UUID


def pending(connection: Connection, tenant_id: UUID, *, title: str = "a process", **options: object) -> UUID:
    """A process that waits for a worker."""
    values: dict[str, object] = {
        "workspace_id": None,
        "kind": "test.work",
        "started_by": "test",
        "queue": QUEUE,
        "title": title,
    }
    return service.create(connection, tenant_id=tenant_id, **(values | options))  # type: ignore[arg-type]


def task(connection: Connection, tenant_id: UUID, *, workspace_id: UUID | None = None) -> UUID:
    """A task that somebody asked for through the API, with its process."""
    task_id = new_id()
    asked = NewTask(
        task_id=task_id,
        supabase_task_id=None,
        tenant_id=tenant_id,
        workspace_id=workspace_id,
        kind="calendar.sync_now",
        queue=QUEUE,
        payload={},
        requested_by="test",
    )
    work.take(connection, asked)
    pending(connection, tenant_id, kind="calendar.sync_now", process_id=task_id, workspace_id=workspace_id)
    return task_id


def running(connection: Connection, tenant_id: UUID, **options: object) -> Held:
    """A process that a worker is at."""
    process_id = pending(connection, tenant_id, **options)  # type: ignore[arg-type]
    held = service.begin(connection, process_id=process_id, worker="tests", lease=LEASE)
    assert held is not None
    return held


def waiting(connection: Connection, tenant_id: UUID, **options: object) -> Asked:
    """A process that asks for one of two colours."""
    held = running(connection, tenant_id, **options)
    question = NewQuestion(
        name="colour",
        input_type="SELECT_COLOUR",
        prompt="Which colour?",
        options=[{"id": "red", "title": "red"}, {"id": "blue", "title": "blue"}],
        actions=["skip"],
    )
    row = service.ask(connection, held=held, question=question)
    return Asked(held.process_id, row.question_id)


def steps(database: Database, held: Held, count: int) -> None:
    """So many steps, each with its event."""
    for number in range(count):
        with database.transaction() as connection:
            service.start_step(connection, held=held, step=f"step {number}")


def bulky(database: Database, held: Held, count: int, size: int) -> None:
    """So many events, each of so many bytes."""
    publisher = Publisher(database)
    for number in range(count):
        publisher.publish(held, "section_completed", {"section_index": number, "content": "x" * size})
    publisher.close()
