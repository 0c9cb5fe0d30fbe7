"""Processes: the rows that people watch, under lock while they change.

Locks are taken in one order everywhere, so that no two transactions wait for each other: the rows of processes first
(several of them by id, and only of one tenant), then their snapshots and questions, and last what the triggers touch:
the ledger, the outbox and the tenant's turn at the mirror. A transaction that has written to the outbox takes no
process any more.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from db.repositories.questions import listed as questions  # noqa: F401 — read together

FLEET_QUERIES = ("LISTED_ALL", "TENANT_OF", "STUCK", "UNASKED", "OVERDUE", "QUIET_RUNNERS")

OPEN = ("pending", "running", "waiting", "paused")
"""States that are not over."""
AT_ONCE = 500
"""Rows that one look of `tend` takes."""


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """A process as it stands."""

    process_id: UUID
    tenant_id: UUID
    workspace_id: UUID | None
    kind: str
    subject_id: UUID | None
    parent_id: UUID | None
    title: str
    state: str
    step: str | None
    step_started_at: datetime | None
    step_durations: Mapping[str, Any]
    completed_steps: int
    total_steps: int | None
    percentage: float | None
    estimated_completion_at: datetime | None
    priority: int
    tags: Sequence[str]
    attempt: int
    retry_count: int
    max_retries: int
    pause_requested: bool
    cancel_requested: bool
    queue: str | None
    deadline_at: datetime | None
    memo: Mapping[str, Any]
    result: Any
    error: str | None
    worker_id: str | None
    lease_until: datetime | None
    heartbeat_at: datetime | None
    last_sequence: int
    version: int
    started_by: str
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    updated_at: datetime

    @property
    def open(self) -> bool:
        """Whether anything can still become of it."""
        return self.state in OPEN


COLUMNS = ", ".join(f"p.{one.name}" for one in fields(ProcessRow))

INSERT = text(f"""
insert into process.processes as p
  (process_id, tenant_id, workspace_id, kind, subject_id, parent_id, title, priority, tags, total_steps, max_retries,
   queue, deadline_at, started_by)
values (:process, :tenant, :workspace, :kind, :subject, :parent, :title, :priority, cast(:tags as text[]), :total_steps,
        :max_retries, :queue, :deadline, :started_by)
on conflict do nothing
returning {COLUMNS}
""")

# The one that is there already: of the same id, or open for the same purpose.
FIND = text(f"""
select {COLUMNS} from process.processes p
 where p.tenant_id = :tenant
   and (p.process_id = :process
        or (p.kind = :kind and p.subject_id = :subject and p.state in ('pending', 'running', 'waiting', 'paused')))
""")

GET = text(f"select {COLUMNS} from process.processes p where p.tenant_id = :tenant and p.process_id = :process")

LOCK = text(f"""
select {COLUMNS}, clock_timestamp() as moment from process.processes p
 where p.tenant_id = :tenant and p.process_id = :process
   and (cast(:attempt as integer) is null or (p.attempt = :attempt and p.state = 'running'))
   for no key update
""")

# An open process with all that was opened below it, in the order in which everybody locks them.
LOCK_FAMILY = text(f"""
with recursive family as (
  select process_id from process.processes where tenant_id = :tenant and process_id = :process
  union
  select c.process_id from process.processes c join family f on c.parent_id = f.process_id where c.tenant_id = :tenant)
select {COLUMNS}, clock_timestamp() as moment from process.processes p
 where p.tenant_id = :tenant and p.process_id in (select process_id from family)
 order by p.process_id for no key update of p
""")

LOCK_RUNNING = text("""
select process_id from process.processes
 where tenant_id = :tenant and process_id = any(cast(:processes as uuid[])) and state = 'running'
 order by process_id for no key update
""")

SAVE = text("""
update process.processes
   set state = :state, step = :step, step_started_at = :step_started_at,
       step_durations = cast(:step_durations as jsonb), completed_steps = :completed_steps, total_steps = :total_steps,
       percentage = :percentage, estimated_completion_at = :estimated_completion_at, attempt = :attempt,
       retry_count = :retry_count, pause_requested = :pause_requested, cancel_requested = :cancel_requested,
       result = cast(:result as jsonb), error = :error, worker_id = :worker_id, lease_until = :lease_until,
       heartbeat_at = :heartbeat_at, started_at = :started_at, completed_at = :completed_at, updated_at = now()
 where tenant_id = :tenant and process_id = :process and state = :seen and attempt = :seen_attempt
""")

REMEMBER = text("""
update process.processes set memo = memo || jsonb_build_object(cast(:step as text), cast(:result as jsonb))
 where tenant_id = :tenant and process_id = :process
""")

REMEMBERED = text("""
select memo ? :step from process.processes
 where tenant_id = :tenant and process_id = :process and attempt = :attempt and state = 'running'
""")

RENEW = text("""
update process.processes set lease_until = now() + :lease, heartbeat_at = now()
 where tenant_id = :tenant and process_id = :process and attempt = :attempt and state = 'running'
returning pause_requested, cancel_requested
""")

# How long processes of a kind worked, waits for people left out: the mean of the last of them.
USUAL = text("""
select avg(worked) from (
  select (select sum(value::float8) from jsonb_each_text(r.step_durations)) as worked
    from (select kind, state, step_durations from process.processes
           where tenant_id = :tenant order by process_id desc limit 500) r
   where r.kind = :kind and r.state = 'completed' limit 20) w
""")

_LISTED = f"""
select {COLUMNS} from process.processes p
 where {{tenant}} and (cast(:states as text[]) is null or p.state = any(cast(:states as text[])))
   and (cast(:kinds as text[]) is null or p.kind = any(cast(:kinds as text[])))
   and (cast(:before as uuid) is null or p.process_id < :before)
 order by p.process_id desc limit :limit
"""
LISTED = text(_LISTED.format(tenant="p.tenant_id = :tenant"))
LISTED_ALL = text(_LISTED.format(tenant="true"))

TENANT_OF = text("select tenant_id from process.processes where process_id = :process")

# What `tend` looks for.

STUCK = text("""
select tenant_id, process_id from process.processes
 where state = 'running' and lease_until <= now() order by lease_until limit :limit
""")

UNASKED = text("""
select tenant_id, process_id from process.processes p
 where state = 'waiting' and not exists (
   select 1 from process.questions q where q.process_id = p.process_id and q.state = 'open')
 order by process_id limit :limit
""")

OVERDUE = text("""
select tenant_id, process_id from process.processes
 where state in ('pending', 'running', 'waiting', 'paused') and deadline_at <= now()
 order by deadline_at limit :limit
""")

QUIET_RUNNERS = text("""
select p.tenant_id, p.process_id from process.processes p
  left join process.snapshots s on s.process_id = p.process_id and s.event_type = 'heartbeat'
 where p.state = 'running' and coalesce(s.published_at, p.started_at) <= now() - :every
 order by p.tenant_id, p.process_id limit :limit
""")


def insert(
    connection: Connection,
    *,
    process_id: UUID,
    tenant_id: UUID,
    workspace_id: UUID | None,
    kind: str,
    title: str,
    started_by: str,
    subject_id: UUID | None,
    parent_id: UUID | None,
    priority: int,
    tags: Sequence[str],
    total_steps: int | None,
    max_retries: int,
    queue: str | None,
    deadline: datetime | None,
) -> ProcessRow | None:
    """Add a process; None when its id is there already, or an open one for the same purpose."""
    parameters = {
        "process": process_id,
        "tenant": tenant_id,
        "workspace": workspace_id,
        "kind": kind,
        "title": title,
        "started_by": started_by,
        "subject": subject_id,
        "parent": parent_id,
        "priority": priority,
        "tags": list(tags),
        "total_steps": total_steps,
        "max_retries": max_retries,
        "queue": queue,
        "deadline": deadline,
    }
    row = connection.execute(INSERT, parameters).mappings().one_or_none()
    return None if row is None else ProcessRow(**row)


def find(
    connection: Connection, *, tenant_id: UUID, process_id: UUID | None, kind: str, subject_id: UUID | None
) -> ProcessRow | None:
    """The process of this id, or the open one of this kind and subject."""
    parameters = {"tenant": tenant_id, "process": process_id, "kind": kind, "subject": subject_id}
    row = connection.execute(FIND, parameters).mappings().first()
    return None if row is None else ProcessRow(**row)


def get(connection: Connection, *, tenant_id: UUID, process_id: UUID) -> ProcessRow | None:
    row = connection.execute(GET, {"tenant": tenant_id, "process": process_id}).mappings().one_or_none()
    return None if row is None else ProcessRow(**row)


def tenant_of(connection: Connection, *, process_id: UUID) -> UUID | None:
    """Whose a process is, for those who may see every tenant's."""
    found: UUID | None = connection.execute(TENANT_OF, {"process": process_id}).scalar()
    return found


def listed(
    connection: Connection,
    *,
    tenant_id: UUID | None,
    states: Collection[str] | None = None,
    kinds: Collection[str] | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> list[ProcessRow]:
    """Processes of a tenant (of all without one), newest first, from below the id `before`."""
    parameters = {
        "tenant": tenant_id,
        "states": None if states is None else list(states),
        "kinds": None if kinds is None else list(kinds),
        "before": before,
        "limit": limit,
    }
    query = LISTED_ALL if tenant_id is None else LISTED
    return [ProcessRow(**row) for row in connection.execute(query, parameters).mappings()]


def lock(
    connection: Connection, *, tenant_id: UUID, process_id: UUID, attempt: int | None = None
) -> tuple[ProcessRow, datetime] | None:
    """Hold a process until the transaction ends: the row, and the database's moment.

    With an `attempt`: only while that attempt runs it.
    """
    parameters = {"tenant": tenant_id, "process": process_id, "attempt": attempt}
    row = connection.execute(LOCK, parameters).mappings().one_or_none()
    return None if row is None else _with_moment(row)


def lock_family(
    connection: Connection, *, tenant_id: UUID, process_id: UUID
) -> tuple[list[ProcessRow], datetime] | None:
    """Hold a process and everything below it; the process itself comes first."""
    found = connection.execute(LOCK_FAMILY, {"tenant": tenant_id, "process": process_id}).mappings().all()
    rows = [_with_moment(row) for row in found]
    if not any(row.process_id == process_id for row, _ in rows):
        return None
    return sorted((row for row, _ in rows), key=lambda row: row.process_id != process_id), rows[0][1]


def lock_running(connection: Connection, *, tenant_id: UUID, process_ids: Collection[UUID]) -> list[UUID]:
    """Hold those of the processes that run until the transaction ends."""
    return list(connection.execute(LOCK_RUNNING, {"tenant": tenant_id, "processes": list(process_ids)}).scalars())


def _with_moment(found: Mapping[Any, Any]) -> tuple[ProcessRow, datetime]:
    values = dict(found)
    moment: datetime = values.pop("moment")
    return ProcessRow(**values), moment


def save(connection: Connection, *, before: ProcessRow, after: ProcessRow) -> None:
    """Write a process that the transaction holds. What was remembered of its steps is left as it is.

    Raises LookupError when the row is not as it was seen, which the lock rules out.
    """
    parameters = {
        "tenant": before.tenant_id,
        "process": before.process_id,
        "seen": before.state,
        "seen_attempt": before.attempt,
        "step_durations": orjson.dumps(after.step_durations).decode(),
        "result": None if after.result is None else orjson.dumps(after.result).decode(),
    } | {
        name: getattr(after, name)
        for name in (
            "state", "step", "step_started_at", "completed_steps", "total_steps", "percentage",
            "estimated_completion_at", "attempt", "retry_count", "pause_requested", "cancel_requested", "error",
            "worker_id", "lease_until", "heartbeat_at", "started_at", "completed_at",
        )
    }  # fmt: skip
    if connection.execute(SAVE, parameters).rowcount != 1:
        raise LookupError(f"process {before.process_id} is not as it was seen")


def remember(connection: Connection, *, tenant_id: UUID, process_id: UUID, step: str, result: bytes) -> None:
    """Keep a step's result, JSON, for a run that comes later."""
    parameters = {"tenant": tenant_id, "process": process_id, "step": step, "result": result.decode()}
    connection.execute(REMEMBER, parameters)


def is_remembered(connection: Connection, *, tenant_id: UUID, process_id: UUID, attempt: int, step: str) -> bool:
    """Whether a step of this attempt, or of one before it, is done."""
    parameters = {"tenant": tenant_id, "process": process_id, "attempt": attempt, "step": step}
    return bool(connection.execute(REMEMBERED, parameters).scalar())


def renew(
    connection: Connection, *, tenant_id: UUID, process_id: UUID, attempt: int, lease: Any
) -> tuple[bool, bool] | None:
    """Renew a lease: (a pause is wanted, its end is wanted), or None once the process is no longer ours."""
    parameters = {"tenant": tenant_id, "process": process_id, "attempt": attempt, "lease": lease}
    row = connection.execute(RENEW, parameters).one_or_none()
    return None if row is None else (row.pause_requested, row.cancel_requested)


def usual_duration(connection: Connection, *, tenant_id: UUID, kind: str) -> float | None:
    """Milliseconds that a process of this kind usually works."""
    found = connection.execute(USUAL, {"tenant": tenant_id, "kind": kind}).scalar()
    return None if found is None else float(found)


def stuck(connection: Connection) -> list[tuple[UUID, UUID]]:
    """(tenant, process) of what runs under a lease that has ended."""
    return _pairs(connection, STUCK)


def unasked(connection: Connection) -> list[tuple[UUID, UUID]]:
    """(tenant, process) of what waits for a person whom nobody asks anything."""
    return _pairs(connection, UNASKED)


def overdue(connection: Connection) -> list[tuple[UUID, UUID]]:
    """(tenant, process) of what should be over by now."""
    return _pairs(connection, OVERDUE)


def quiet_runners(connection: Connection, *, every: Any) -> list[tuple[UUID, UUID]]:
    """(tenant, process) of what runs and has not shown a heartbeat for so long."""
    return _pairs(connection, QUIET_RUNNERS, every=every)


def _pairs(connection: Connection, query: Any, **parameters: Any) -> list[tuple[UUID, UUID]]:
    return [(row.tenant_id, row.process_id) for row in connection.execute(query, {"limit": AT_ONCE, **parameters})]
