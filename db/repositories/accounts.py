"""Accounts and their calendars: connecting, disconnecting, and what runs find out about them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from db.ids import new_id
from db.rows import as_json
from db.session import violated

FLEET_QUERIES = ("SEALED",)

CHANGE_STATES = text("""
with x as materialized (
  select * from json_to_recordset(cast(:changes as json))
      as c(tenant_id uuid, account_id uuid, state text, reason text))
update sync.accounts a
   set state = x.state, state_reason = x.reason, state_since = now(), access_token = null, access_expires_at = null
  from x where a.account_id = x.account_id and a.tenant_id = x.tenant_id and a.state = 'connected'
""")

KEEP_TOKEN = text("""
with mine as (
  update sync.units set lease_until = now() + :lease
   where unit_id = :unit and tenant_id = :tenant and fence = :fence and state = 'running' returning unit_id)
update sync.accounts a set access_token = :token, access_expires_at = :expires
  from mine where a.account_id = :account and a.tenant_id = :tenant and a.workspace_id = mine.unit_id
   and a.state = 'connected'
""")

FIND = text("""
select account_id, state from sync.accounts
 where tenant_id = :tenant and workspace_id = :workspace and provider = :provider and identity = :identity
   and state <> 'removed'
   for update
""")

INSERT = text("""
insert into sync.accounts (account_id, tenant_id, workspace_id, provider, identity, endpoint, credentials)
values (:account, :tenant, :workspace, :provider, :identity, :endpoint, :credentials)
""")

RECONNECT = text("""
update sync.accounts
   set state = 'connected', state_reason = null, state_since = now(), credentials = :credentials,
       endpoint = :endpoint, access_token = null, access_expires_at = null
 where account_id = :account and tenant_id = :tenant
""")

ADD_CALENDARS = text("""
insert into sync.calendars as c
    (calendar_id, tenant_id, workspace_id, account_id, provider_key, name, time_zone, access_role)
select x.calendar_id, :tenant, :workspace, :account, x.provider_key, x.name, x.time_zone, x.access_role
  from json_to_recordset(cast(:calendars as json))
    as x(calendar_id uuid, provider_key text, name text, time_zone text, access_role text)
on conflict (account_id, provider_key) do update
  set name = excluded.name, time_zone = coalesce(excluded.time_zone, c.time_zone), access_role = excluded.access_role,
      next_due_at = now(), failures = 0
  where c.state <> 'removed'
returning calendar_id
""")

WAKE_UNIT = text("""
with u as (
  update sync.units
     set next_due_at = least(next_due_at, now()), wanted = true,
         lane = case when lane = 'sync' and :bulk then 'bulk' else lane end
   where unit_id = :workspace and tenant_id = :tenant and state <> 'parked'
  returning tenant_id, lane)
update sync.turns t set ready_at = least(t.ready_at, now())
  from u where t.tenant_id = u.tenant_id and t.lane = u.lane
""")

# Run once the unit's row is locked: of two that add accounts, the later one then sees both.
KEEP_PROVIDER = text("""
update sync.units u set provider = x.provider
  from (select case when min(a.provider) = max(a.provider) then min(a.provider) end as provider from sync.accounts a
         where a.workspace_id = :workspace and a.tenant_id = :tenant and a.state <> 'removed') x
 where u.unit_id = :workspace and u.tenant_id = :tenant and u.provider is distinct from x.provider
""")

REMOVE = text("""
with unit as materialized (  -- before the account and its calendars, as everywhere
  select u.unit_id, u.state from sync.units u
    join sync.accounts a on a.workspace_id = u.unit_id and a.tenant_id = u.tenant_id
   where a.account_id = :account and u.tenant_id = :tenant for no key update of u),
account as (
  update sync.accounts a
     set state = 'removed', state_reason = null, state_since = now(), deleted_at = now(),
         credentials = null, access_token = null, access_expires_at = null
    from unit where a.account_id = :account and a.tenant_id = :tenant and a.state <> 'removed'
  returning a.account_id, a.workspace_id),
fenced as (  -- a run under way can no longer commit
  update sync.units u
     set fence = nextval('sync.fence'), state = 'idle', lease_until = null, worker_id = null
    from account a where u.unit_id = a.workspace_id and u.tenant_id = :tenant and u.state in ('dispatched', 'running')
  returning 1),
calendars as (
  update sync.calendars c
     set state = 'removed', state_reason = null, state_since = now(), deleted_at = now(), cursor = null
    from account a where c.account_id = a.account_id and c.tenant_id = :tenant and c.state <> 'removed'
  returning c.calendar_id)
select (select count(*) from account) as accounts, (select workspace_id from account) as workspace_id,
       array(select calendar_id from calendars) as calendars
""")

BURY_EVENTS = text("""
with removed as (
  delete from sync.events e where e.calendar_id = :calendar and e.tenant_id = :tenant
  returning e.event_id, e.provider_key),
buried as (
  insert into sync.tombstones as t (event_id, tenant_id, calendar_id, provider_key, version)
  select event_id, :tenant, :calendar, provider_key, nextval('mirror.version') from removed
  returning t.event_id, t.version),
aside as (delete from sync.quarantined_items where calendar_id = :calendar and tenant_id = :tenant returning 1)
insert into mirror.outbox as o (tenant_id, entity, row_id, version)
select :tenant, 'events', event_id, version from buried order by event_id
on conflict (tenant_id, entity, row_id) do update set version = excluded.version
""")

LIST = text("""
select a.account_id, a.workspace_id, w.name as workspace, a.provider, a.identity, a.endpoint, a.state, a.state_reason,
       count(c.calendar_id) as calendars, coalesce(sum(c.event_count), 0)::bigint as events
  from sync.accounts a
  join sync.workspaces w on w.workspace_id = a.workspace_id and w.tenant_id = a.tenant_id
  left join sync.calendars c on c.account_id = a.account_id and c.tenant_id = a.tenant_id and c.state <> 'removed'
 where a.tenant_id = :tenant and a.state <> 'removed'
 group by a.account_id, w.name order by w.name, a.provider, a.identity
""")

SEALED = text("""
select account_id, tenant_id, credentials, access_token from sync.accounts
 where account_id > :after and (credentials is not null or access_token is not null)
 order by account_id limit :limit for update
""")

RESEAL = text("""
update sync.accounts set credentials = :credentials, access_token = :access_token
 where account_id = :account and tenant_id = :tenant
""")


class AccountExists(Exception):
    """The workspace already has this account, and it works."""


@dataclass(frozen=True, slots=True)
class AccountRow:
    account_id: UUID
    workspace_id: UUID
    workspace: str
    provider: str
    identity: str
    endpoint: str | None
    state: str
    state_reason: str | None
    calendars: int
    events: int


@dataclass(frozen=True, slots=True)
class SealedAccount:
    account_id: UUID
    tenant_id: UUID
    credentials: memoryview | None
    access_token: memoryview | None


def change_states(connection: Connection, changes: Iterable[Mapping[str, Any]]) -> None:
    """Move connected accounts to what a run found out. Keys: tenant_id, account_id, state, reason."""
    connection.execute(CHANGE_STATES, {"changes": as_json(changes)})


def keep_token(
    connection: Connection,
    *,
    tenant_id: UUID,
    unit_id: UUID,
    fence: int,
    lease: timedelta,
    account_id: UUID,
    token: bytes,
    expires_at: datetime,
) -> bool:
    """Store a fresh access token, sealed; False if the run has lost its unit meanwhile."""
    parameters = {
        "tenant": tenant_id,
        "unit": unit_id,
        "fence": fence,
        "lease": lease,
        "account": account_id,
        "token": token,
        "expires": expires_at,
    }
    return connection.execute(KEEP_TOKEN, parameters).rowcount == 1


def find(
    connection: Connection, *, tenant_id: UUID, workspace_id: UUID, provider: str, identity: str
) -> tuple[UUID, str] | None:
    """(id, state) of a workspace's account that is not removed."""
    row = connection.execute(
        FIND, {"tenant": tenant_id, "workspace": workspace_id, "provider": provider, "identity": identity}
    ).one_or_none()
    return None if row is None else (row.account_id, row.state)


def insert(
    connection: Connection,
    *,
    account_id: UUID,
    tenant_id: UUID,
    workspace_id: UUID,
    provider: str,
    identity: str,
    endpoint: str | None,
    credentials: bytes,
) -> None:
    """Add an account. Raises AccountExists when another request added it in the same moment."""
    try:
        with connection.begin_nested():
            connection.execute(
                INSERT,
                {
                    "account": account_id,
                    "tenant": tenant_id,
                    "workspace": workspace_id,
                    "provider": provider,
                    "identity": identity,
                    "endpoint": endpoint,
                    "credentials": credentials,
                },
            )
    except IntegrityError as error:
        if violated(error) == "accounts_identity":
            raise AccountExists(identity) from None
        raise


def reconnect(
    connection: Connection, *, account_id: UUID, tenant_id: UUID, endpoint: str | None, credentials: bytes
) -> None:
    """Give an account new credentials, and with them its life back."""
    connection.execute(
        RECONNECT,
        {"account": account_id, "tenant": tenant_id, "endpoint": endpoint, "credentials": credentials},
    )


def add_calendars(
    connection: Connection,
    *,
    tenant_id: UUID,
    workspace_id: UUID,
    account_id: UUID,
    calendars: Sequence[Mapping[str, Any]],
) -> int:
    """Add an account's calendars, due at once; those that are there already become due. Returns how many."""
    wake_unit(connection, tenant_id=tenant_id, workspace_id=workspace_id, bulk=True)
    keep_provider(connection, tenant_id=tenant_id, workspace_id=workspace_id)
    rows = as_json({"calendar_id": new_id(), **calendar} for calendar in calendars)
    parameters = {"tenant": tenant_id, "workspace": workspace_id, "account": account_id, "calendars": rows}
    return len(connection.execute(ADD_CALENDARS, parameters).all())


def wake_unit(connection: Connection, *, tenant_id: UUID, workspace_id: UUID, bulk: bool = False) -> None:
    """Make a unit due now, and give its tenant a turn. `bulk`: it has something to list in full."""
    connection.execute(WAKE_UNIT, {"tenant": tenant_id, "workspace": workspace_id, "bulk": bulk})


def keep_provider(connection: Connection, *, tenant_id: UUID, workspace_id: UUID) -> None:
    """Note the one provider of a unit's accounts, or that they have several: a claim passes over a closed one."""
    connection.execute(KEEP_PROVIDER, {"tenant": tenant_id, "workspace": workspace_id})


def remove(connection: Connection, *, tenant_id: UUID, account_id: UUID) -> bool:
    """Disconnect an account: destroy its credentials, fence off a run under way, bury its events."""
    row = connection.execute(REMOVE, {"tenant": tenant_id, "account": account_id}).one()
    if not row.accounts:
        return False
    for calendar_id in row.calendars:
        connection.execute(BURY_EVENTS, {"tenant": tenant_id, "calendar": calendar_id})
    wake_unit(connection, tenant_id=tenant_id, workspace_id=row.workspace_id)
    keep_provider(connection, tenant_id=tenant_id, workspace_id=row.workspace_id)
    return True


def list_accounts(connection: Connection, *, tenant_id: UUID) -> list[AccountRow]:
    return [AccountRow(*row) for row in connection.execute(LIST, {"tenant": tenant_id})]


def sealed(connection: Connection, *, after: UUID, limit: int) -> list[SealedAccount]:
    """Accounts that hold sealed values, by id, locked: for rotating keys through the whole fleet."""
    return [SealedAccount(*row) for row in connection.execute(SEALED, {"after": after, "limit": limit})]


def reseal(
    connection: Connection,
    *,
    tenant_id: UUID,
    account_id: UUID,
    credentials: bytes | None,
    access_token: bytes | None,
) -> None:
    connection.execute(
        RESEAL,
        {
            "tenant": tenant_id,
            "account": account_id,
            "credentials": credentials,
            "access_token": access_token,
        },
    )
