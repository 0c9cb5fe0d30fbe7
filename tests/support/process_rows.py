"""Tasks, processes and their events, straight into Postgres, as their writers leave them."""

from typing import Any
from uuid import UUID

from sqlalchemy import text

from db.ids import new_id
from db.session import Database
from tests.support.fleet import TenantHandle
from tests.support.mirror import MirrorSide


def plant_process(database: Database, tenant: TenantHandle, *, queue: str | None = None, **columns: Any) -> UUID:
    process_id: UUID = columns.pop("process_id", None) or new_id()
    about = {"process": process_id, "tenant": tenant.tenant_id, "queue": queue, "title": columns.pop("title", "t")}
    with database.transaction() as connection:
        connection.execute(PLANT_PROCESS, about)
    return process_id


def plant_process_events(
    database: Database, process_id: UUID, number: int = 1, *, source: str = "worker", data: str = '{"step": "a"}'
) -> None:
    """The next events of a process: numbers and rows in one transaction."""
    about = {"process": process_id, "number": number, "source": source, "data": data}
    ids = [new_id() for _ in range(number)]
    with database.transaction() as connection:
        connection.execute(PLANT_EVENTS, {**about, "ids": "{" + ",".join(map(str, ids)) + "}"})


def plant_task(database: Database, mirror: MirrorSide, tenant: TenantHandle) -> tuple[UUID, UUID]:
    """A task that Supabase's web app asked for and a worker has taken in: (Supabase's id, ours)."""
    asked, ours = new_id(), new_id()
    mirror.execute(ASK, {"id": str(asked), "tenant": str(tenant.tenant_id)})
    with database.transaction() as connection:
        connection.execute(TAKE_IN, {"id": ours, "asked": asked, "tenant": tenant.tenant_id})
    return asked, ours


def move_process(database: Database, process_id: UUID, state: str, **columns: Any) -> None:
    with database.transaction() as connection:
        connection.execute(MOVE, {"process": process_id, "state": state, "result": columns.get("result")})


ASK = "insert into public.tasks (id, tenant_id, kind) values (%(id)s, %(tenant)s, 'calendar.report')"
TAKE_IN = text("""
insert into worker.tasks (id, supabase_task_id, tenant_id, kind, payload)
values (:id, :asked, :tenant, 'calendar.report', '{}')
""")
PLANT_PROCESS = text("""
insert into process.processes (process_id, tenant_id, kind, title, queue)
values (:process, :tenant, 'k', :title, :queue)
""")
PLANT_EVENTS = text("""
with numbered as (
  update process.processes set last_sequence = last_sequence + :number where process_id = :process
  returning process_id, tenant_id, last_sequence)
insert into process.events (process_id, sequence, event_id, tenant_id, event_type, data, category, priority, source)
select n.process_id, n.last_sequence - :number + i.place, i.id, n.tenant_id, 'step_update', cast(:data as jsonb),
       'process', 3, :source
  from numbered n, unnest(cast(:ids as uuid[])) with ordinality as i(id, place)
""")
MOVE = text("""
update process.processes set state = :state, result = cast(:result as jsonb), worker_id = 'w'
 where process_id = :process
""")
