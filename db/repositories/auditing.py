"""What the audit reads: by other queries than the sync and the mirror use."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

FLEET_QUERIES = ("TENANTS",)

PAGE = 2000

TENANTS = text("select tenant_id, name from sync.tenants order by name")

CALENDARS = text("""
select c.tenant_id, c.calendar_id, c.workspace_id, c.name, c.provider_key, c.state, c.last_success_at, c.last_error,
       c.event_count, a.account_id, a.provider, a.identity, a.endpoint, a.state as account_state,
       a.state_since as account_state_since, a.credentials, a.access_token, a.access_expires_at
  from sync.calendars c
  join sync.accounts a on a.account_id = c.account_id and a.tenant_id = c.tenant_id
 where c.tenant_id = :tenant and c.state <> 'removed' order by c.calendar_id
""")

STORED = text("""
select provider_key, resource, digest, status <> 'cancelled' as visible, raw::text as raw
  from sync.events
 where tenant_id = :tenant and calendar_id = :calendar and provider_key > :after
 order by provider_key limit :n
""")

SET_ASIDE = text("""
select resource from sync.quarantined_items where tenant_id = :tenant and calendar_id = :calendar
""")

UNSENT = text("select count(*) from mirror.outbox where tenant_id = :tenant")

PARKED = text("select row_id from mirror.parked_rows where tenant_id = :tenant and entity = :entity")

EXPECTED = {
    "accounts": text("""
      select account_id as id, tenant_id, workspace_id, version, deleted_at, provider, identity, state, state_reason
        from sync.accounts where tenant_id = :tenant and account_id > :after order by account_id limit :n
    """),
    "calendars": text("""
      select calendar_id as id, tenant_id, workspace_id, version, deleted_at, account_id, provider_key, name,
             time_zone, access_role, state, state_reason
        from sync.calendars where tenant_id = :tenant and calendar_id > :after order by calendar_id limit :n
    """),
    "events": text("""
      with live as (
        select e.event_id, e.calendar_id, e.version, null::timestamptz as deleted_at, e.provider_key, e.uid,
               e.series_key, e.status, e.title, e.description, e.location, e.starts_at, e.ends_at, e.all_day,
               e.time_zone, e.recurrence, e.original_start, e.original_all_day, e.organizer, e.attendees, e.link,
               e.transparency, e.visibility, e.provider_updated_at
          from sync.events e where e.tenant_id = :tenant and e.event_id > :after order by e.event_id limit :n),
      dead as (
        select t.event_id, t.calendar_id, t.version, t.deleted_at, t.provider_key
          from sync.tombstones t where t.tenant_id = :tenant and t.event_id > :after order by t.event_id limit :n)
      select r.event_id as id, c.tenant_id, c.workspace_id, r.version, r.deleted_at, r.calendar_id, r.provider_key,
             r.uid, r.series_key, r.status, r.title, r.description, r.location, r.starts_at, r.ends_at, r.all_day,
             r.time_zone, r.recurrence, r.original_start, r.original_all_day, r.organizer, r.attendees, r.link,
             r.transparency, r.visibility, r.provider_updated_at
        from (select live.* from live
              union all
              select d.event_id, d.calendar_id, d.version, d.deleted_at, d.provider_key, null, null, null, null, null,
                     null, null, null, null, null, null, null, null, null, null, null, null, null, null
                from dead d) r
        join sync.calendars c on c.calendar_id = r.calendar_id and c.tenant_id = :tenant
       order by r.event_id limit :n
    """),
    # its web app may have deleted a task meanwhile, and then it is not brought back; for which workspace it asked is
    # its own to say, and may be none of the tenant's
    "tasks": text("""
      select supabase_task_id as id, tenant_id, version, status, worker_id, result,
             error_log as error_message, started_at, completed_at,
             case when queue is not null then id end as process_id, true as "_optional"
        from worker.tasks where tenant_id = :tenant and supabase_task_id > :after order by supabase_task_id limit :n
    """),
    "processes": text("""
      select process_id as id, tenant_id, workspace_id, version, kind, subject_id, parent_id, title, state, step,
             step_durations, completed_steps, total_steps, percentage, estimated_completion_at, priority, tags,
             retry_count, max_retries, pause_requested, result, error, started_by, created_at, started_at, completed_at
        from process.processes where tenant_id = :tenant and process_id > :after order by process_id limit :n
    """),
}

# What is archived here may have left Supabase already.
EXPECTED_PROCESS_EVENTS = text("""
select e.process_id, e.sequence, e.event_id as id, e.tenant_id, p.workspace_id, e.event_type, e.data as event_data,
       e.category as event_category, e.priority as event_priority, e.source as event_source, e.created_at,
       e.archived as "_optional"
  from process.processes p
  join process.events e on e.process_id = p.process_id and e.tenant_id = p.tenant_id
 where p.tenant_id = :tenant and p.process_id >= :after and (e.process_id, e.sequence) > (:after, :sequence)
 order by e.process_id, e.sequence limit :n
""")


@dataclass(frozen=True, slots=True)
class AuditedCalendar:
    """A calendar, and the account to ask about it."""

    tenant_id: UUID
    calendar_id: UUID
    workspace_id: UUID
    name: str
    provider_key: str
    state: str
    last_success_at: datetime | None
    last_error: str | None
    event_count: int
    account_id: UUID
    provider: str
    identity: str
    endpoint: str | None
    account_state: str
    account_state_since: datetime
    credentials: memoryview | None
    access_token: memoryview | None
    access_expires_at: datetime | None


class StoredEvent(NamedTuple):
    """A row that we hold: the digest that was written with it, and the raw data of which it should be the digest."""

    provider_key: str
    resource: str
    digest: str
    visible: bool
    raw: str


@dataclass(frozen=True, slots=True)
class StoredResource:
    """What we hold of a resource: the digests of its rows, and whether one of them is shown."""

    digests: frozenset[str]
    visible: bool


def all_tenants(connection: Connection) -> list[tuple[UUID, str]]:
    return [(row.tenant_id, row.name) for row in connection.execute(TENANTS)]


def calendars(connection: Connection, *, tenant_id: UUID) -> list[AuditedCalendar]:
    return [AuditedCalendar(*row) for row in connection.execute(CALENDARS, {"tenant": tenant_id})]


def stored(connection: Connection, *, tenant_id: UUID, calendar_id: UUID) -> Iterator[StoredEvent]:
    """What we hold of a calendar, by key."""
    after = ""
    while True:
        about = {"tenant": tenant_id, "calendar": calendar_id, "after": after, "n": PAGE}
        page = [StoredEvent(*row) for row in connection.execute(STORED, about)]
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].provider_key


def set_aside(connection: Connection, *, tenant_id: UUID, calendar_id: UUID) -> set[str]:
    """Resources that could not be events."""
    return set(connection.execute(SET_ASIDE, {"tenant": tenant_id, "calendar": calendar_id}).scalars())


def unsent(connection: Connection, *, tenant_id: UUID) -> int:
    return int(connection.execute(UNSENT, {"tenant": tenant_id}).scalar_one())


def parked(connection: Connection, *, tenant_id: UUID, entity: str) -> set[str]:
    """Ids of rows that Supabase refused."""
    return {str(row_id) for row_id in connection.execute(PARKED, {"tenant": tenant_id, "entity": entity}).scalars()}


def expected_rows(connection: Connection, *, tenant_id: UUID, entity: str) -> Iterator[dict[str, Any]]:
    """Every row that Supabase should have of a tenant, tombstones included, by key; `_optional` ones may be absent."""
    if entity == "process_events":
        yield from _expected_process_events(connection, tenant_id)
        return
    after = UUID(int=0)
    while True:
        page = connection.execute(EXPECTED[entity], {"tenant": tenant_id, "after": after, "n": PAGE}).mappings().all()
        for row in page:
            yield dict(row)
        if len(page) < PAGE:
            return
        after = page[-1]["id"]


def _expected_process_events(connection: Connection, tenant_id: UUID) -> Iterator[dict[str, Any]]:
    after, sequence = UUID(int=0), 0
    while True:
        about = {"tenant": tenant_id, "after": after, "sequence": sequence, "n": PAGE}
        page = connection.execute(EXPECTED_PROCESS_EVENTS, about).mappings().all()
        for row in page:
            yield dict(row)
        if len(page) < PAGE:
            return
        after, sequence = page[-1]["process_id"], page[-1]["sequence"]
