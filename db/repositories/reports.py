"""What handlers read of a tenant's calendars: a span of days, and what became of a sync that was asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

_CALENDARS = """
sync.calendars c
  join sync.accounts a on a.tenant_id = c.tenant_id and a.account_id = c.account_id and a.state <> 'removed'
"""
_CHOSEN = "c.tenant_id = :tenant and (cast(:workspace as uuid) is null or c.workspace_id = :workspace)"

# Single events that touch the span, every series that began before its end, and all exceptions of series: one may have
# been moved into the span or out of it.
SPAN = text(f"""
select e.provider_key, e.series_key, e.uid, e.calendar_id, c.name as calendar, c.time_zone as calendar_zone, e.status,
       e.title, e.location, e.starts_at, e.ends_at, e.all_day, e.time_zone, e.recurrence, e.original_start,
       e.original_all_day, e.transparency, case when e.recurrence is not null then e.raw ->> 'ics' end as ics
  from {_CALENDARS}
  join sync.events e on e.tenant_id = c.tenant_id and e.calendar_id = c.calendar_id
 where {_CHOSEN} and c.state <> 'removed' and e.tenant_id = :tenant
   and (e.series_key is not null
     or e.recurrence is not null and e.starts_at < :until
     or e.recurrence is null and e.starts_at < :until and e.ends_at >= :since)
 order by e.calendar_id, e.provider_key limit :n
""")

CALENDARS = text(f"""
select c.calendar_id, c.name, c.state, a.state as account_state, c.last_attempt_at, c.last_success_at, c.last_error
  from {_CALENDARS} where {_CHOSEN} and c.state <> 'removed' order by c.name, c.calendar_id
""")

CHANGES = text(f"""
with chosen as materialized (
  select c.calendar_id from sync.calendars c where {_CHOSEN} and c.state <> 'removed')
select count(*) filter (where e.created_at >= :since) as added,
       count(*) filter (where e.created_at < :since) as changed,
       (select count(*) from sync.tombstones t join chosen using (calendar_id)
         where t.tenant_id = :tenant and t.version > :version) as removed
  from sync.events e join chosen using (calendar_id)
 where e.tenant_id = :tenant and e.version > :version
""")

VERSION = text("select last_value, clock_timestamp() from mirror.version")


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as a report reads it. `ics` is the whole resource of a series that came by CalDAV."""

    provider_key: str
    series_key: str | None
    uid: str | None
    calendar_id: UUID
    calendar: str
    calendar_zone: str | None
    status: str
    title: str | None
    location: str | None
    starts_at: datetime | None
    ends_at: datetime | None
    all_day: bool
    time_zone: str | None
    recurrence: Sequence[str] | None
    original_start: datetime | None
    original_all_day: bool | None
    transparency: str | None
    ics: str | None


@dataclass(frozen=True, slots=True)
class CalendarReading:
    """How the last run of a calendar went."""

    calendar_id: UUID
    name: str
    state: str
    account_state: str
    last_attempt_at: datetime | None
    last_success_at: datetime | None
    last_error: str | None


def span(
    connection: Connection, *, tenant_id: UUID, workspace_id: UUID | None, since: datetime, until: datetime, limit: int
) -> list[StoredEvent]:
    """What may stand in a span of time, of a workspace or of the whole tenant."""
    about = {"tenant": tenant_id, "workspace": workspace_id, "since": since, "until": until, "n": limit}
    return [StoredEvent(**row) for row in connection.execute(SPAN, about).mappings()]


def calendars(connection: Connection, *, tenant_id: UUID, workspace_id: UUID | None) -> list[CalendarReading]:
    """The calendars of a workspace, or of the whole tenant."""
    rows = connection.execute(CALENDARS, {"tenant": tenant_id, "workspace": workspace_id})
    return [CalendarReading(**row) for row in rows.mappings()]


def version(connection: Connection) -> tuple[int, datetime]:
    """A version below those of all later changes, and the moment."""
    row: Any = connection.execute(VERSION).one()
    return int(row[0]), row[1]


def changes(
    connection: Connection, *, tenant_id: UUID, workspace_id: UUID | None, version: int, since: datetime
) -> dict[str, int]:
    """Events that were added, changed and removed after a version, which was read at a moment."""
    about = {"tenant": tenant_id, "workspace": workspace_id, "version": version, "since": since}
    row = connection.execute(CHANGES, about).mappings().one()
    return {name: int(number) for name, number in row.items()}
