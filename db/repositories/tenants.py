"""Tenants and workspaces, by the hands of operators."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from config.queues import Lane
from db.ids import new_id

FLEET_QUERIES = ("FIND", "MOMENT")

INSERT_TENANT = text("insert into sync.tenants (tenant_id, name) values (:tenant, :name)")
INSERT_TURNS = text("""
insert into sync.turns (tenant_id, lane) select :tenant, unnest(cast(:lanes as text[]))
""")
INSERT_MIRROR_TURN = text("insert into mirror.turns (tenant_id) values (:tenant)")
INSERT_WORKSPACE = text("""
insert into sync.workspaces (workspace_id, tenant_id, name) values (:workspace, :tenant, :name)
""")
INSERT_UNIT = text("insert into sync.units (unit_id, tenant_id) values (:workspace, :tenant)")

FIND = text("""
select tenant_id, name from sync.tenants where name = :text or tenant_id::text = :text
""")

FIND_WORKSPACE = text("""
select workspace_id, name from sync.workspaces
 where tenant_id = :tenant and (name = :text or workspace_id::text = :text)
""")

PAUSE = text("""
with t as (
  update sync.tenants set paused = :paused, pause_reason = :reason
   where tenant_id = :tenant and paused <> :paused returning tenant_id)
update sync.turns u set paused = :paused, ready_at = case when :paused then u.ready_at else now() end
  from t where u.tenant_id = t.tenant_id
""")

# Units under a statement that ends or renews them just now are skipped; the caller asks again.
STOP_RUNS = text("""
with lk as materialized (
  select unit_id from sync.units
   where tenant_id = :tenant and state in ('dispatched', 'running') order by unit_id for no key update skip locked),
stopped as (
  update sync.units u
     set state = 'idle', fence = nextval('sync.fence'), lease_until = null, worker_id = null
    from lk where u.unit_id = lk.unit_id and u.tenant_id = :tenant returning 1)
select (select count(*) from stopped) as stopped,
       exists (select 1 from sync.units where tenant_id = :tenant and state in ('dispatched', 'running')
                  and unit_id not in (select unit_id from lk)) as left
""")

SHARE = text("""
with t as (
  update sync.tenants set weight = coalesce(:weight, weight) where tenant_id = :tenant returning tenant_id, weight)
update sync.turns u set weight = t.weight, cap = coalesce(:cap, u.cap)
  from t where u.tenant_id = t.tenant_id
returning u.weight, u.cap
""")

# Units are locked before their calendars, here as in every other statement that touches both.
WANT = text("""
with lk as materialized (
  select unit_id, lane from sync.units u
   where tenant_id = :tenant and state <> 'parked' and (cast(:workspace as uuid) is null or unit_id = :workspace)
     and exists (select 1 from sync.calendars k
                  where k.workspace_id = u.unit_id and k.tenant_id = :tenant and k.state <> 'removed')
   order by unit_id for no key update of u),
u as (
  update sync.units x set next_due_at = least(x.next_due_at, now()), wanted = true
    from lk where x.unit_id = lk.unit_id and x.tenant_id = :tenant returning 1),
c as (
  update sync.calendars c set next_due_at = now()
    from lk where c.workspace_id = lk.unit_id and c.tenant_id = :tenant and c.state <> 'removed' returning 1),
t as (
  update sync.turns set ready_at = least(ready_at, now())
   where tenant_id = :tenant and lane in (select lane from lk) returning 1)
select (select count(*) from c) as calendars, (select count(*) from u) as units
""")

UNSYNCED = text("""
select count(*) from sync.calendars c
  join sync.accounts a on a.account_id = c.account_id and a.tenant_id = c.tenant_id
 where c.tenant_id = :tenant and c.state <> 'removed' and a.state = 'connected'
   and (cast(:workspace as uuid) is null or c.workspace_id = :workspace)
   and (c.last_attempt_at is null or c.last_attempt_at < :since)
""")

MOMENT = text("select clock_timestamp()")

WRITE_AUDIT_LOG = text("""
insert into worker.audit_logs (id, tenant_id, actor, action, details)
values (:id, :tenant, :actor, :action, cast(:details as jsonb))
""")


class NameTaken(Exception):
    """A tenant, or a workspace of the tenant, already bears this name."""


def add_tenant(connection: Connection, *, name: str) -> UUID:
    """Add a tenant with its turns. Raises NameTaken."""
    tenant_id = new_id()
    try:
        with connection.begin_nested():
            connection.execute(INSERT_TENANT, {"tenant": tenant_id, "name": name})
    except IntegrityError:
        raise NameTaken(name) from None
    connection.execute(INSERT_TURNS, {"tenant": tenant_id, "lanes": [lane.value for lane in Lane]})
    connection.execute(INSERT_MIRROR_TURN, {"tenant": tenant_id})
    return tenant_id


def add_workspace(connection: Connection, *, tenant_id: UUID, name: str) -> UUID:
    """Add a workspace with its unit. Raises NameTaken."""
    workspace_id = new_id()
    about = {"workspace": workspace_id, "tenant": tenant_id}
    try:
        with connection.begin_nested():
            connection.execute(INSERT_WORKSPACE, {**about, "name": name})
    except IntegrityError:
        raise NameTaken(name) from None
    connection.execute(INSERT_UNIT, about)
    return workspace_id


def find_tenant(connection: Connection, name_or_id: str) -> tuple[UUID, str] | None:
    """(id, name) of a tenant by either."""
    row = connection.execute(FIND, {"text": name_or_id}).first()
    return None if row is None else (row.tenant_id, row.name)


def find_workspace(connection: Connection, *, tenant_id: UUID, name_or_id: str) -> tuple[UUID, str] | None:
    """(id, name) of a tenant's workspace by either."""
    row = connection.execute(FIND_WORKSPACE, {"tenant": tenant_id, "text": name_or_id}).first()
    return None if row is None else (row.workspace_id, row.name)


def set_paused(connection: Connection, *, tenant_id: UUID, paused: bool, reason: str | None) -> bool:
    """Take a tenant out of every ring, or put it back; False if it is so already."""
    return connection.execute(PAUSE, {"tenant": tenant_id, "paused": paused, "reason": reason}).rowcount > 0


def stop_runs(connection: Connection, *, tenant_id: UUID) -> tuple[int, bool]:
    """Take the units of a tenant from whoever runs them: (how many, whether some are left for another try).

    They get a new fence, so nothing of those runs is written any more; their workers notice at the next
    renewal of their leases, a third of a lease later, and stop.
    """
    row = connection.execute(STOP_RUNS, {"tenant": tenant_id}).one()
    return int(row.stopped), bool(row.left)


def set_share(
    connection: Connection, *, tenant_id: UUID, weight: float | None, concurrency: int | None
) -> tuple[float, int]:
    """Set a tenant's weight and how many of its units may run at once in a lane; None leaves one as it is.

    Returns both as they are now. The next claim goes by them.
    """
    row = connection.execute(SHARE, {"tenant": tenant_id, "weight": weight, "cap": concurrency}).first()
    if row is None:
        raise LookupError(tenant_id)
    return float(row.weight), int(row.cap)


def want_sync(connection: Connection, *, tenant_id: UUID, workspace_id: UUID | None) -> tuple[int, int]:
    """Make calendars due now, backoff or not; (calendars, units). What a provider closed stays closed."""
    row = connection.execute(WANT, {"tenant": tenant_id, "workspace": workspace_id}).one()
    return int(row.calendars), int(row.units)


def moment(connection: Connection) -> datetime:
    """The database's clock."""
    now: datetime = connection.execute(MOMENT).scalar_one()
    return now


def unsynced(connection: Connection, *, tenant_id: UUID, workspace_id: UUID | None, since: datetime) -> int:
    """Calendars of working accounts that have not been attempted since a moment of the database's clock."""
    parameters = {"tenant": tenant_id, "workspace": workspace_id, "since": since}
    return int(connection.execute(UNSYNCED, parameters).scalar_one())


def write_audit_log(
    connection: Connection, *, tenant_id: UUID | None, actor: str, action: str, details: Mapping[str, Any]
) -> None:
    """Remember who did what. Details hold no secrets."""
    connection.execute(
        WRITE_AUDIT_LOG,
        {
            "id": new_id(),
            "tenant": tenant_id,
            "actor": actor,
            "action": action,
            "details": orjson.dumps(details).decode(),
        },
    )
