"""Processes that syncs move on: first syncs, resyncs, syncs that a person started, accounts to connect again.

No task runs them (`queue` is null). Each is about a calendar, a workspace or an account: of those that are open there
is one for each.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from db.repositories.processes import COLUMNS, ProcessRow
from db.rows import as_json

FLEET_QUERIES = ("ASTRAY", "UNASKED")

GRACE = timedelta(seconds=10)
"""For so long nobody but the run itself ends its process: it knows what came of it."""
AT_ONCE = 500

# One statement however many: it may wait for somebody who ends such a process at this moment, and must hold no
# wake-up of the mirror then.
OPEN = text(f"""
insert into process.processes as p
  (process_id, tenant_id, workspace_id, kind, subject_id, title, total_steps, started_by, deadline_at, state, attempt,
   step, step_started_at, started_at, heartbeat_at)
select o.process_id, :tenant, o.workspace_id, o.kind, o.subject_id, o.title, o.total_steps, o.started_by,
       now() + o.deadline * interval '1 second', o.state, (o.state = 'running')::int, o.step,
       case when o.step is not null then now() end, case when o.state = 'running' then now() end,
       case when o.state = 'running' then now() end
  from json_to_recordset(cast(:opened as json))
    as o(process_id uuid, workspace_id uuid, kind text, subject_id uuid, title text, total_steps integer,
         started_by text, deadline float8, state text, step text)
 order by o.subject_id
on conflict do nothing
returning {COLUMNS}
""")

LOCK_OPEN = text(f"""
select {COLUMNS}, clock_timestamp() as moment from process.processes p
 where p.tenant_id = :tenant and p.subject_id = any(cast(:subjects as uuid[])) and p.queue is null
   and p.state in ('pending', 'running', 'waiting', 'paused')
 order by p.process_id for no key update
""")

UNITS = text("""
select w.workspace_id, w.name from sync.workspaces w
 where w.tenant_id = :tenant and (cast(:workspace as uuid) is null or w.workspace_id = :workspace)
   and exists (select 1 from sync.calendars c
                where c.workspace_id = w.workspace_id and c.tenant_id = :tenant and c.state <> 'removed')
""")

NEW_CALENDARS = text("""
select c.calendar_id, c.workspace_id, coalesce(nullif(c.name, ''), c.provider_key) as name from sync.calendars c
 where c.tenant_id = :tenant and c.account_id = :account and c.state = 'new'
""")

ACCOUNT = text("""
select account_id, workspace_id, provider, identity, state from sync.accounts
 where tenant_id = :tenant and account_id = :account
""")

# What a crash, or a change by another hand, has left behind: what the process is to become.
ASTRAY = text("""
select p.tenant_id, p.process_id, v.verdict
  from process.processes p
  left join sync.calendars c on c.calendar_id = p.subject_id and c.tenant_id = p.tenant_id
  left join sync.accounts a on a.account_id = p.subject_id and a.tenant_id = p.tenant_id
  left join sync.units u on u.unit_id = p.workspace_id and u.tenant_id = p.tenant_id
 cross join lateral (
   select p.updated_at < now() - :grace as rested,
          p.state = 'running' and u.state is distinct from 'running' as deserted) r
 cross join lateral (
   select case p.kind
     when 'account.reconnect' then case
       when a.state = 'needs_reauth' then null when a.state = 'connected' then 'completed' else 'cancelled' end
     when 'sync.now' then case
       when r.rested and not exists (
         select 1 from sync.calendars k
           join sync.accounts b on b.account_id = k.account_id and b.tenant_id = k.tenant_id
          where k.workspace_id = p.workspace_id and k.tenant_id = p.tenant_id and k.state <> 'removed'
            and b.state = 'connected' and (k.last_attempt_at is null or k.last_attempt_at < p.created_at))
       then 'completed'
       when r.rested and r.deserted then 'pending' end
     else case
       when c.state is null or c.state = 'removed' then 'cancelled'
       when c.state = 'lost' then 'failed'
       when r.rested and c.state = 'synced' and c.state_since < now() - :grace then 'completed'
       when r.rested and r.deserted then 'pending' end
     end as verdict) v
 where p.queue is null and p.state in ('pending', 'running', 'waiting')
   and p.kind in ('account.reconnect', 'sync.now', 'calendar.first_sync', 'calendar.resync')
   and (cast(:tenant as uuid) is null or p.tenant_id = :tenant) and v.verdict is not null
 order by p.process_id limit :limit
""")

# Accounts that have lost their grant and ask nobody; one whose question somebody dismissed asks no more.
UNASKED = text("""
select a.tenant_id, a.account_id from sync.accounts a
 where a.state = 'needs_reauth' and not exists (
   select 1 from process.processes p
    where p.subject_id = a.account_id and p.tenant_id = a.tenant_id and p.kind = 'account.reconnect'
      and (p.state in ('pending', 'running', 'waiting', 'paused') or p.created_at >= a.state_since))
 limit :limit
""")


@dataclass(frozen=True, slots=True)
class Account:
    """An account as a process about it sees it."""

    account_id: UUID
    workspace_id: UUID
    provider: str
    identity: str
    state: str


def open_many(connection: Connection, *, tenant_id: UUID, opened: Iterable[Mapping[str, Any]]) -> list[ProcessRow]:
    """Open processes of a tenant; those that are new. Keys as in OPEN. Before anything that writes to the outbox."""
    rows = connection.execute(OPEN, {"tenant": tenant_id, "opened": as_json(opened)}).mappings()
    return [ProcessRow(**row) for row in rows]


def lock_open(
    connection: Connection, *, tenant_id: UUID, subjects: Collection[UUID]
) -> list[tuple[ProcessRow, datetime]]:
    """Hold the open processes about these until the transaction ends, each with the database's moment."""
    found = connection.execute(LOCK_OPEN, {"tenant": tenant_id, "subjects": list(subjects)}).mappings()
    rows = [dict(row) for row in found]
    return [(ProcessRow(**{k: v for k, v in row.items() if k != "moment"}), row["moment"]) for row in rows]


def units(connection: Connection, *, tenant_id: UUID, workspace_id: UUID | None) -> list[tuple[UUID, str]]:
    """(id, name) of the workspaces that have calendars."""
    rows = connection.execute(UNITS, {"tenant": tenant_id, "workspace": workspace_id})
    return [(row.workspace_id, row.name) for row in rows]


def new_calendars(connection: Connection, *, tenant_id: UUID, account_id: UUID) -> list[tuple[UUID, UUID, str]]:
    """(id, workspace, name) of an account's calendars that were never listed."""
    rows = connection.execute(NEW_CALENDARS, {"tenant": tenant_id, "account": account_id})
    return [(row.calendar_id, row.workspace_id, row.name) for row in rows]


def account(connection: Connection, *, tenant_id: UUID, account_id: UUID) -> Account | None:
    row = connection.execute(ACCOUNT, {"tenant": tenant_id, "account": account_id}).one_or_none()
    return None if row is None else Account(*row)


def astray(
    connection: Connection, *, tenant_id: UUID | None = None, grace: timedelta = GRACE
) -> list[tuple[UUID, UUID, str]]:
    """(tenant, process, its state to be) of what no longer fits what it is about; of all tenants without one."""
    rows = connection.execute(ASTRAY, {"tenant": tenant_id, "grace": grace, "limit": AT_ONCE})
    return [(row.tenant_id, row.process_id, row.verdict) for row in rows]


def unasked(connection: Connection) -> list[tuple[UUID, UUID]]:
    """(tenant, account) of what has to be connected again, and nobody is told."""
    return [(row.tenant_id, row.account_id) for row in connection.execute(UNASKED, {"limit": AT_ONCE})]
