"""Lists of what a tenant has and of what was done for it, a page at a time, newest first.

Where a query is there twice, one of the two is an operator's, over all tenants.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from db.ids import first_id_at

FLEET_QUERIES = (
    "RUNS_ALL", "FIND_RUN", "PARKED_UNITS_ALL", "PARKED_ROWS_ALL", "AUDIT_ALL", "WAITING_TENANTS", "QUESTIONS_ALL",
    "UNIT_OF", "PROCESSES_ALL",
)  # fmt: skip

MOST_WORKSPACES = 200
MOST_ACCOUNTS = 500

UNITS = text("""
select u.unit_id, w.name as workspace, u.lane, u.state, u.worker_id, u.parked_reason, u.parked_at, u.provider,
       case when isfinite(u.next_due_at) then u.next_due_at end as next_due_at, u.lease_until,
       u.quiet_runs, u.changed_runs, u.failed_runs, u.slots_skipped, u.slots_superseded,
       (select count(*) from sync.calendars c
         where c.workspace_id = u.unit_id and c.tenant_id = :tenant and c.state <> 'removed') as calendars
  from sync.units u join sync.workspaces w on w.workspace_id = u.unit_id and w.tenant_id = u.tenant_id
 where u.tenant_id = :tenant and (cast(:after as text) is null or (w.name, u.unit_id) > (:after, cast(:id as uuid)))
   and (cast(:workspaces as uuid[]) is null or u.unit_id = any(cast(:workspaces as uuid[])))
 order by w.name, u.unit_id limit :n
""")
UNIT_OF = text("select tenant_id from sync.units where unit_id = :unit")

ACCOUNTS = text("""
select a.account_id, a.workspace_id, w.name as workspace, a.provider, a.identity, a.state, a.state_reason,
       a.state_since, a.created_at,
       (select count(*) from sync.calendars c
         where c.account_id = a.account_id and c.tenant_id = :tenant and c.state <> 'removed') as calendars,
       (select q.process_id from process.processes q
         where q.tenant_id = :tenant and q.subject_id = a.account_id and q.kind = 'account.reconnect'
           and q.state in ('pending', 'running', 'waiting', 'paused')) as process_id
  from sync.accounts a join sync.workspaces w on w.workspace_id = a.workspace_id and w.tenant_id = a.tenant_id
 where a.tenant_id = :tenant and a.state <> 'removed'
   and (cast(:before as uuid) is null or a.account_id < :before)
   and (cast(:workspaces as uuid[]) is null or a.workspace_id = any(cast(:workspaces as uuid[])))
 order by a.account_id desc limit :n
""")

CALENDARS = text("""
select c.calendar_id, c.workspace_id, w.name as workspace, c.account_id, a.provider, a.identity, c.name, c.time_zone,
       c.state, c.state_reason, a.state as account_state, c.failures, c.last_error, c.last_success_at,
       c.last_attempt_at, c.event_count, c.runs, c.api_calls, c.bytes_in, c.saved_calls,
       case when isfinite(c.next_due_at) then c.next_due_at end as next_due_at,
       extract(epoch from now() - coalesce(c.last_success_at, c.created_at))::float8 as age
  from sync.calendars c
  join sync.accounts a on a.account_id = c.account_id and a.tenant_id = c.tenant_id
  join sync.workspaces w on w.workspace_id = c.workspace_id and w.tenant_id = c.tenant_id
 where c.tenant_id = :tenant and c.state <> 'removed'
   and (cast(:before as uuid) is null or c.calendar_id < :before)
   and (cast(:workspaces as uuid[]) is null or c.workspace_id = any(cast(:workspaces as uuid[])))
 order by c.calendar_id desc limit :n
""")

# Until a moment back, so that a tenant without runs does not cost a walk through everybody's.
_RUNS = """
select k.id, k.tenant_id, t.name as tenant, k.subject_id as unit_id, w.name as workspace, k.kind, k.status, k.queue,
       k.worker_id, k.started_at, k.completed_at, k.result, k.error_log,
       extract(epoch from k.completed_at - k.started_at)::float8 as seconds
  from worker.tasks k
  left join sync.tenants t on t.tenant_id = k.tenant_id
  left join sync.workspaces w on w.workspace_id = k.subject_id and w.tenant_id = k.tenant_id
 where {tenant} and k.kind = 'sync.unit' and k.id >= cast(:since as uuid)
   and (cast(:before as uuid) is null or k.id < :before)
   and (not :failed or k.status = 'failed' or k.error_log is not null)
   and (cast(:workspaces as uuid[]) is null or k.subject_id = any(cast(:workspaces as uuid[])))
 order by k.id desc limit :n
"""
RUNS = text(_RUNS.format(tenant="k.tenant_id = :tenant"))
RUNS_ALL = text(_RUNS.format(tenant="k.tenant_id is not null"))

FIND_RUN = text("""
select k.id, k.tenant_id, t.name as tenant, k.subject_id as unit_id, w.name as workspace, k.kind, k.status, k.queue,
       k.worker_id, k.fence, k.attempts, k.created_at, k.started_at, k.completed_at, k.result, k.error_log,
       k.requested_by, k.payload, extract(epoch from k.completed_at - k.started_at)::float8 as seconds
  from worker.tasks k
  left join sync.tenants t on t.tenant_id = k.tenant_id
  left join sync.workspaces w on w.workspace_id = coalesce(k.subject_id, k.workspace_id) and w.tenant_id = k.tenant_id
 where k.id = :id
""")

STEPS = text("""
select step_name, execution_time, success, details, logged_at from worker.execution_logs
 where task_id = :task and id >= cast(:since as uuid) and (tenant_id = :tenant or tenant_id is null)
 order by id limit :n
""")

_PARKED_UNITS = """
select u.unit_id, u.tenant_id, t.name as tenant, w.name as workspace, u.parked_reason, u.parked_at, u.crashes,
       case when isfinite(u.next_due_at) then u.next_due_at end as tried_again_at
  from sync.units u
  join sync.tenants t on t.tenant_id = u.tenant_id
  join sync.workspaces w on w.workspace_id = u.unit_id and w.tenant_id = u.tenant_id
 where {tenant} and u.state = 'parked' and (cast(:before as uuid) is null or u.unit_id < :before)
 order by u.unit_id desc limit :n
"""
PARKED_UNITS = text(_PARKED_UNITS.format(tenant="u.tenant_id = :tenant"))
PARKED_UNITS_ALL = text(_PARKED_UNITS.format(tenant="true"))

_PARKED_ROWS = """
select p.tenant_id, t.name as tenant, p.entity, p.row_id, p.version, p.sqlstate, p.reason, p.parked_at
  from mirror.parked_rows p join sync.tenants t on t.tenant_id = p.tenant_id
 where {tenant} and (cast(:before as uuid) is null
                     or (p.row_id, p.entity) < (cast(:before as uuid), cast(:entity as text)))
 order by p.row_id desc, p.entity desc limit :n
"""
PARKED_ROWS = text(_PARKED_ROWS.format(tenant="p.tenant_id = :tenant"))
PARKED_ROWS_ALL = text(_PARKED_ROWS.format(tenant="true"))

_AUDIT = """
select l.id, l.tenant_id, t.name as tenant, l.actor, l.action, l.details, l.created_at,
       (select coalesce(nullif(p.name, ''), p.email) from identity.users p
         where l.actor = 'user:' || p.user_id::text) as who
  from worker.audit_logs l left join sync.tenants t on t.tenant_id = l.tenant_id
 where {tenant} and (cast(:before as uuid) is null or l.id < :before)
   and (cast(:action as text) is null or l.action like cast(:action as text) || '%')
 order by l.id desc limit :n
"""
AUDIT = text(_AUDIT.format(tenant="l.tenant_id = :tenant"))
AUDIT_ALL = text(_AUDIT.format(tenant="true"))

WAITING_TENANTS = text("""
select m.tenant_id, t.name as tenant, m.lease_until > now() as sending,
       (select count(*) from (select 1 from mirror.outbox o where o.tenant_id = m.tenant_id limit :most) c) as rows,
       (select extract(epoch from now() - min(o.queued_at))::float8 from mirror.outbox o
         where o.tenant_id = m.tenant_id) as oldest
  from (select * from mirror.turns where ready_at <= now() or lease_until > now() order by ready_at limit :n) m
  join sync.tenants t on t.tenant_id = m.tenant_id order by oldest desc nulls last
""")

_QUESTIONS = """
select q.question_id, q.process_id, q.tenant_id, t.name as tenant, q.prompt, q.input_type, q.asked_at, q.expires_at,
       p.title, p.kind
  from process.questions q
  join process.processes p on p.process_id = q.process_id
  join sync.tenants t on t.tenant_id = q.tenant_id
 where {tenant} and q.state = 'open'
   and (cast(:workspaces as uuid[]) is null or p.workspace_id = any(cast(:workspaces as uuid[])))
 order by q.question_id desc limit :n
"""
QUESTIONS = text(_QUESTIONS.format(tenant="q.tenant_id = :tenant"))
QUESTIONS_ALL = text(_QUESTIONS.format(tenant="true"))

# Without memo and result, which may be large.
_PROCESSES = """
select p.process_id, p.tenant_id, t.name as tenant, w.name as workspace, p.kind, p.title, p.state, p.step,
       p.percentage, p.completed_steps, p.total_steps, p.priority, p.tags, p.retry_count, p.queue, p.error,
       p.started_by, p.created_at, p.started_at, p.completed_at, p.updated_at, p.estimated_completion_at
  from process.processes p
  join sync.tenants t on t.tenant_id = p.tenant_id
  left join sync.workspaces w on w.workspace_id = p.workspace_id and w.tenant_id = p.tenant_id
 where {tenant} and (cast(:states as text[]) is null or p.state = any(cast(:states as text[])))
   and (cast(:kind as text) is null or p.kind = :kind) and (not :tasks or p.queue is not null)
   and (cast(:workspaces as uuid[]) is null or p.workspace_id = any(cast(:workspaces as uuid[])))
   and (cast(:before as uuid) is null or p.process_id < cast(:before as uuid))
 order by p.process_id desc limit :n
"""
PROCESSES = text(_PROCESSES.format(tenant="p.tenant_id = :tenant"))
PROCESSES_ALL = text(_PROCESSES.format(tenant="true"))

CHILDREN = text("""
select process_id, kind, title, state, percentage, created_at from process.processes
 where tenant_id = :tenant and parent_id = :process
   and (cast(:workspaces as uuid[]) is null or workspace_id = any(cast(:workspaces as uuid[])))
 order by process_id limit :n
""")

DELIVERED = text("""
select d.delivered_sequence, d.attempts, d.last_error, d.delivered_at
  from process.deliveries d join process.processes p on p.process_id = d.process_id
 where p.tenant_id = :tenant and d.process_id = :process
""")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a list goes on: from below this id, in this tenant (None: in all), in these workspaces (None: in all)."""

    tenant_id: UUID | None
    before: UUID | None = None
    workspaces: frozenset[UUID] | None = None

    def parameters(self, limit: int) -> dict[str, Any]:
        """What every list is given."""
        chosen = None if self.workspaces is None else [str(one) for one in self.workspaces]
        return {"tenant": self.tenant_id, "before": self.before, "workspaces": chosen, "n": limit}


Rows = list[dict[str, Any]]


def _rows(connection: Connection, query: TextClause, parameters: dict[str, Any]) -> Rows:
    return [dict(row) for row in connection.execute(query, parameters).mappings()]


def units(
    connection: Connection,
    *,
    tenant_id: UUID,
    after: tuple[str, UUID] | None = None,
    workspaces: frozenset[UUID] | None = None,
    limit: int,
) -> Rows:
    """A tenant's units by the names of their workspaces."""
    name, last = after or (None, None)
    parameters = Place(tenant_id, workspaces=workspaces).parameters(limit)
    return _rows(connection, UNITS, {**parameters, "after": name, "id": last})


def tenant_of_unit(connection: Connection, *, unit_id: UUID) -> UUID | None:
    """Whose unit this is."""
    found: UUID | None = connection.execute(UNIT_OF, {"unit": unit_id}).scalar()
    return found


def accounts(connection: Connection, place: Place, *, limit: int) -> Rows:
    """A tenant's accounts, with the process that asks for a reconnection, if one does."""
    return _rows(connection, ACCOUNTS, place.parameters(limit))


def calendars(connection: Connection, place: Place, *, limit: int) -> Rows:
    """A tenant's calendars."""
    return _rows(connection, CALENDARS, place.parameters(limit))


def runs(connection: Connection, place: Place, *, since: datetime, failed: bool = False, limit: int) -> Rows:
    """Runs that changed something or failed: quiet ones leave no row. Of those that failed alone, with `failed`."""
    query = RUNS_ALL if place.tenant_id is None else RUNS
    return _rows(connection, query, {**place.parameters(limit), "since": first_id_at(since), "failed": failed})


def run(connection: Connection, *, run_id: UUID) -> dict[str, Any] | None:
    """A row of the ledger, whosever it is; the caller looks whether it may be shown."""
    row = connection.execute(FIND_RUN, {"id": run_id}).mappings().one_or_none()
    return None if row is None else dict(row)


def steps(connection: Connection, *, task_id: UUID, tenant_id: UUID | None, since: datetime, limit: int = 500) -> Rows:
    """What was done for a task, step by step."""
    parameters = {"task": task_id, "tenant": tenant_id, "since": first_id_at(since), "n": limit}
    return _rows(connection, STEPS, parameters)


def parked_units(connection: Connection, place: Place, *, limit: int) -> Rows:
    """Units that killed their workers."""
    query = PARKED_UNITS_ALL if place.tenant_id is None else PARKED_UNITS
    return _rows(connection, query, place.parameters(limit))


def parked_rows(connection: Connection, place: Place, *, entity: str | None = None, limit: int) -> Rows:
    """Rows that Supabase refused."""
    query = PARKED_ROWS_ALL if place.tenant_id is None else PARKED_ROWS
    return _rows(connection, query, {**place.parameters(limit), "entity": entity})


def audit_logs(connection: Connection, place: Place, *, action: str | None = None, limit: int) -> Rows:
    """Who did what; `action` is how its name begins."""
    query = AUDIT_ALL if place.tenant_id is None else AUDIT
    return _rows(connection, query, {**place.parameters(limit), "action": action})


def waiting_tenants(connection: Connection, *, limit: int, most: int) -> Rows:
    """Tenants with rows for Supabase, the longest waiting first; their rows are counted up to `most`."""
    return _rows(connection, WAITING_TENANTS, {"n": limit, "most": most})


def open_questions(connection: Connection, place: Place, *, limit: int) -> Rows:
    """What people are asked."""
    query = QUESTIONS_ALL if place.tenant_id is None else QUESTIONS
    return _rows(connection, query, place.parameters(limit))


def processes(
    connection: Connection,
    place: Place,
    *,
    states: Sequence[str] | None = None,
    kind: str | None = None,
    tasks: bool = False,
    limit: int,
) -> Rows:
    """Processes, in some states, of a kind; with `tasks` those alone that Supabase asked for."""
    query = PROCESSES_ALL if place.tenant_id is None else PROCESSES
    given = {"states": None if states is None else list(states), "kind": kind, "tasks": tasks}
    return _rows(connection, query, {**place.parameters(limit), **given})


def children(connection: Connection, place: Place, *, process_id: UUID, limit: int) -> Rows:
    """Processes that were opened below one."""
    return _rows(connection, CHILDREN, {**place.parameters(limit), "process": process_id})


def delivered(connection: Connection, *, tenant_id: UUID, process_id: UUID) -> dict[str, Any] | None:
    """How far Supabase has a process' events; None before the first delivery."""
    row = connection.execute(DELIVERED, {"tenant": tenant_id, "process": process_id}).mappings().one_or_none()
    return None if row is None else dict(row)


ROW_ENTITIES = ("accounts", "calendars", "events", "tasks", "processes", "process_events")
"""What a refused row can be."""
