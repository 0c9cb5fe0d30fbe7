"""Tasks: taken in once each, handed out in turns, and what their runs need of the database beside their process.

Whether a task runs, waits or is over stands in its process; a trigger keeps `worker.tasks` in step with it. A pending
process that was sent to a worker, or is to be tried again later, has a lease until it may be sent.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from db.repositories.ledger import WORKER_ALIVE
from db.repositories.schedules import START_WITHIN

FLEET_QUERIES = ("KNOWN", "TAKEN", "ROOM", "SEND", "BEFORE")

BELL_PAUSE = timedelta(seconds=0.5)
"""Between two answers of a bell: a hundred rings in a moment are answered once, and once more."""

KNOWN = text("""
select t.tenant_id, w.workspace_id
  from sync.tenants t
  left join sync.workspaces w
    on w.tenant_id = t.tenant_id and w.workspace_id = any (cast(:workspaces as uuid[]))
 where t.tenant_id = any (cast(:tenants as uuid[]))
""")

TAKEN = text("select key, task_id from worker.task_keys where key = any (cast(:keys as text[]))")

TAKE = text("insert into worker.task_keys (key, task_id) values (:key, :task) on conflict (key) do nothing")

OPEN = text("""
insert into worker.tasks
    (id, supabase_task_id, tenant_id, workspace_id, kind, queue, status, payload, requested_by, completed_at, error_log)
values (:task, :supabase_task, :tenant, :workspace, :kind, :queue, :status, cast(:payload as jsonb), :requested_by,
        case when :status <> 'pending' then now() end, :error)
""")

PAYLOAD = text("select payload from worker.tasks where id = :task and tenant_id = :tenant")

# Slots of live workers, and what they have: what runs, and what was sent and may still begin.
ROOM = text("""
select coalesce((select sum(slots) from worker.workers
                  where cast(:queue as text) = any(queues) and heartbeat_at > now() - :alive), 0) as slots,
       (select count(*) from process.processes
         where queue = :queue and (state = 'running' and lease_until > now()
               or state = 'pending' and lease_until > now() and lease_until <= now() + :start_within)) as busy
""")

# Tenants with something to run are found one by one in the index, so that one with ten thousand tasks costs what one
# with ten does. Each gets a place in turn, reckoned from what it has already, and its weight is its share; within a
# tenant the most urgent goes first.
SEND = text("""
with recursive waiting as (
  (select tenant_id from process.processes where queue = :queue and state = 'pending' order by tenant_id limit 1)
  union all
  select (select p.tenant_id from process.processes p
           where p.queue = :queue and p.state = 'pending' and p.tenant_id > w.tenant_id
           order by p.tenant_id limit 1)
    from waiting w where w.tenant_id is not null),
busy as materialized (
  select tenant_id, count(*) as has from process.processes
   where queue = :queue and (state = 'running' and lease_until > now()
         or state = 'pending' and lease_until > now() and lease_until <= now() + :start_within) group by tenant_id),
places as (
  select p.process_id, p.priority, (p.place + coalesce(b.has, 0)) / t.weight as place
    from waiting w
    join sync.tenants t on t.tenant_id = w.tenant_id and not t.paused
    left join busy b on b.tenant_id = w.tenant_id
   cross join lateral (
     select q.process_id, q.priority, row_number() over (order by q.priority, q.process_id) as place
       from process.processes q
      where q.queue = :queue and q.state = 'pending' and q.tenant_id = w.tenant_id
        and (q.lease_until is null or q.lease_until <= now())
      order by q.priority, q.process_id limit :n) p),
lk as materialized (
  select p.process_id, c.place from process.processes p
    join (select * from places order by place, priority, process_id limit :n) c using (process_id)
   where p.state = 'pending' and (p.lease_until is null or p.lease_until <= now())
   for no key update of p skip locked),
sent as (
  update process.processes p set lease_until = now() + :start_within
    from lk where p.process_id = lk.process_id returning p.process_id, p.kind, lk.place)
select process_id, kind from sent order by place, process_id
""")

# Asked before a run begins: its tenant may have been paused since it was sent.
BEFORE = text("""
select p.kind, t.paused from process.processes p join sync.tenants t using (tenant_id) where p.process_id = :process
""")

# One that is to be tried again is not sent before.
PUT_OFF = text("""
update process.processes set lease_until = now() + :pause
 where process_id = :process and tenant_id = :tenant and state = 'pending'
""")

RING = text("""
insert into worker.bells (bell) values (:bell)
on conflict (bell) do update set rung_at = clock_timestamp() where worker.bells.rung_at <= worker.bells.answered_at
""")

RINGS = text("""
select 1 from worker.bells where bell = :bell and rung_at > answered_at and answered_at < clock_timestamp() - :pause
""")

ANSWER = text("""
update worker.bells set answered_at = clock_timestamp()
 where bell = :bell and rung_at > answered_at and answered_at < clock_timestamp() - :pause
""")


@dataclass(frozen=True, slots=True)
class Room:
    """Tasks that live workers can run at once, and tasks that they have."""

    slots: int
    busy: int


@dataclass(frozen=True, slots=True)
class Sendable:
    """A pending process that was marked as sent."""

    process_id: UUID
    kind: str


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task as it is asked for, at Supabase or here.

    A `status` other than pending ends it at once: it has no queue and no process.
    """

    task_id: UUID
    supabase_task_id: UUID | None
    tenant_id: UUID
    workspace_id: UUID | None
    kind: str
    queue: str | None
    payload: Any
    requested_by: str | None
    status: str = "pending"
    error: str | None = None


def known(connection: Connection, *, tenants: Iterable[UUID], workspaces: Iterable[UUID]) -> dict[UUID, set[UUID]]:
    """Those of the tenants that exist, with those of the workspaces that are theirs."""
    rows = connection.execute(KNOWN, {"tenants": _listed(tenants), "workspaces": _listed(workspaces)})
    found: dict[UUID, set[UUID]] = {}
    for row in rows:
        found.setdefault(row.tenant_id, set()).update({row.workspace_id} - {None})
    return found


def taken(connection: Connection, supabase_ids: Iterable[UUID]) -> dict[UUID, UUID]:
    """Our id of each of Supabase's tasks that was taken in already."""
    keys = {key(one): one for one in supabase_ids}
    return {keys[row.key]: row.task_id for row in connection.execute(TAKEN, {"keys": list(keys)})}


def key(supabase_id: UUID) -> str:
    """Under which one of Supabase's tasks may be taken in once."""
    return f"supabase:{supabase_id}"


def take(connection: Connection, task: NewTask) -> bool:
    """Write a task down; False, and nothing written, if somebody has done so already."""
    if task.supabase_task_id is not None:
        ours = {"key": key(task.supabase_task_id), "task": task.task_id}
        if not connection.execute(TAKE, ours).rowcount:
            return False
    about = {
        "task": task.task_id,
        "supabase_task": task.supabase_task_id,
        "tenant": task.tenant_id,
        "workspace": task.workspace_id,
        "kind": task.kind,
        "queue": task.queue,
        "status": task.status,
        "payload": None if task.payload is None else orjson.dumps(task.payload).decode(),
        "requested_by": task.requested_by,
        "error": task.error,
    }
    connection.execute(OPEN, about)
    return True


def payload(connection: Connection, *, tenant_id: UUID, task_id: UUID) -> Any:
    """What a task was asked to do; None where there is no such task."""
    return connection.execute(PAYLOAD, {"task": task_id, "tenant": tenant_id}).scalar()


def room(connection: Connection, *, queue: str) -> Room:
    """How much the workers of a queue can run, and have."""
    row = connection.execute(ROOM, {"queue": queue, "alive": WORKER_ALIVE, "start_within": START_WITHIN}).one()
    return Room(int(row.slots), int(row.busy))


def send(connection: Connection, *, queue: str, limit: int) -> list[Sendable]:
    """Mark up to `limit` pending processes as sent, in turns across tenants; they begin in time or are sent again."""
    rows = connection.execute(SEND, {"queue": queue, "n": limit, "start_within": START_WITHIN})
    return [Sendable(row.process_id, row.kind) for row in rows]


def before(connection: Connection, *, process_id: UUID) -> tuple[str, bool] | None:
    """(kind, whether its tenant is paused) of a process; None if there is none."""
    row = connection.execute(BEFORE, {"process": process_id}).one_or_none()
    return None if row is None else (row.kind, row.paused)


def put_off(connection: Connection, *, tenant_id: UUID, process_id: UUID, pause: timedelta) -> None:
    """Send a pending process no sooner than after a pause."""
    connection.execute(PUT_OFF, {"process": process_id, "tenant": tenant_id, "pause": pause})


def ring(connection: Connection, *, bell: str) -> None:
    """Ring a bell; one that rings already goes on ringing."""
    connection.execute(RING, {"bell": bell})


def rings(connection: Connection, *, bell: str) -> bool:
    """Whether a bell is to be answered now."""
    return connection.execute(RINGS, {"bell": bell, "pause": BELL_PAUSE}).scalar() is not None


def answer(connection: Connection, *, bell: str) -> bool:
    """Take it upon oneself to answer a bell; False if somebody has, or did a moment ago."""
    return connection.execute(ANSWER, {"bell": bell, "pause": BELL_PAUSE}).rowcount == 1


def _listed(ids: Iterable[UUID]) -> str:
    return "{" + ",".join(str(one) for one in ids) + "}"
