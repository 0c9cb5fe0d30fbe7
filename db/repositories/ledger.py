"""The ledger of tasks, and the workers it is shared out among."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from config.queues import Lane
from db.ids import new_id
from db.repositories.units import START_WITHIN
from db.rows import as_json

FLEET_QUERIES = (
    "CAPACITY",
    "OPEN_BATCHES",
    "CLOSE_BATCH",
    "SUPERSEDE",
    "HEARTBEAT",
    "FAREWELL",
)

WORKER_ALIVE = timedelta(seconds=5)
"""A worker not heard of for this long gets no more batches; it beats once a second."""

CAPACITY = text("""
select q.queue,
       coalesce((select sum(slots) from worker.workers
                  where q.queue = any(queues) and heartbeat_at > now() - :alive), 0) as slots,
       (select count(*) from worker.tasks
         where queue = q.queue and status in ('pending', 'processing') and kind = 'sync.batch'
           and lease_until > now()) as busy
  from unnest(cast(:queues as text[])) q(queue)
""")

OPEN_BATCHES = text("""
insert into worker.tasks (id, kind, queue, status, lease_until, result)
select b.id, 'sync.batch', :queue, 'pending', now() + :start_within, json_build_object('units', b.units)
  from json_to_recordset(cast(:batches as json)) as b(id uuid, units integer)
""")

CLOSE_BATCH = text("""
update worker.tasks set status = 'completed', completed_at = now(), updated_at = now(), lease_until = null,
       result = cast(:result as jsonb)
 where id = :id and status = 'processing'
""")

SUPERSEDE = text("""
update worker.tasks set status = 'superseded', completed_at = now(), updated_at = now()
 where id in (select id from worker.tasks
               where queue = :queue and status in ('pending', 'processing') and kind = 'sync.batch'
                 and lease_until < now() - interval '1 minute' for no key update skip locked)
""")

LOG_STEPS = text("""
insert into worker.execution_logs (id, task_id, tenant_id, step_name, execution_time, success, details)
select s.id, s.task_id, s.tenant_id, s.step_name, s.execution_time, s.success, s.details::jsonb
  from json_to_recordset(cast(:steps as json))
    as s(id uuid, task_id uuid, tenant_id uuid, step_name text, execution_time integer, success boolean, details json)
""")

HEARTBEAT = text("""
insert into worker.workers as w
    (worker_id, queues, slots, cpu_usage, memory_usage, active_tasks, clock_skew_ms)
values (:worker, cast(:queues as text[]), :slots, :cpu, :memory, :active,
        least(greatest(extract(epoch from clock_timestamp() - cast(:now as timestamptz)) * 1000, -2e9), 2e9)::int)
on conflict (worker_id) do update set
  queues = excluded.queues, slots = excluded.slots, cpu_usage = excluded.cpu_usage,
  memory_usage = excluded.memory_usage, active_tasks = excluded.active_tasks,
  clock_skew_ms = excluded.clock_skew_ms, heartbeat_at = now()
""")

FAREWELL = text("delete from worker.workers where worker_id = :worker")


@dataclass(frozen=True, slots=True)
class Capacity:
    """Room in a lane: batches that its live workers can hold, and batches they have."""

    slots: int
    busy: int


def capacity(connection: Connection, *, lanes: Sequence[Lane]) -> dict[Lane, Capacity]:
    """Room in each of the lanes."""
    queues = {lane.queue.value: lane for lane in lanes}
    rows = connection.execute(CAPACITY, {"queues": list(queues), "alive": WORKER_ALIVE})
    return {queues[row.queue]: Capacity(slots=int(row.slots), busy=int(row.busy)) for row in rows}


def open_batches(connection: Connection, *, lane: Lane, sizes: Iterable[tuple[UUID, int]]) -> None:
    """Write down batches that are about to be published, as pending until `START_WITHIN` has passed."""
    batches = as_json({"id": batch, "units": size} for batch, size in sizes)
    connection.execute(OPEN_BATCHES, {"queue": lane.queue.value, "batches": batches, "start_within": START_WITHIN})


def close_batch(connection: Connection, *, batch_id: UUID, result: Mapping[str, Any]) -> None:
    connection.execute(CLOSE_BATCH, {"id": batch_id, "result": orjson.dumps(result).decode()})


def supersede_stale(connection: Connection, *, lane: Lane) -> int:
    """Close the books on batches that never started or lost their worker; their units are due again anyway."""
    return connection.execute(SUPERSEDE, {"queue": lane.queue.value}).rowcount


def log_steps(connection: Connection, steps: Sequence[Mapping[str, Any]]) -> None:
    """Write steps of tasks with their milliseconds. Keys as in LOG_STEPS; ids are given here."""
    if steps:
        rows = as_json({"id": new_id(), **step} for step in steps)
        connection.execute(LOG_STEPS, {"steps": rows})


def heartbeat(connection: Connection, *, worker: str, queues: Sequence[str], reading: Mapping[str, Any]) -> None:
    """Say that a worker lives. `reading`: slots, cpu, memory, active and now, the worker's own clock."""
    connection.execute(HEARTBEAT, {"worker": worker, "queues": list(queues), **reading})


def farewell(connection: Connection, *, worker: str) -> None:
    """Take a worker off the list, so that nothing more is sent to it."""
    connection.execute(FAREWELL, {"worker": worker})
