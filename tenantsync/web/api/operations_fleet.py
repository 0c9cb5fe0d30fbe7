"""`/api/v1/overview`, `/worker-status`, `/schedules`, `/mirror`: how the installation stands."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field

from db.ids import first_id_at
from db.repositories import browsing, deliveries, overview, schedules
from tenantsync import clock
from tenantsync.web import fleet
from tenantsync.web.fields import Moment, Shown
from tenantsync.web.fleet import History, Overview, Span
from tenantsync.web.problems import responses
from tenantsync.web.services import Parts
from tenantsync.web.viewers import Operator, SignedIn, Viewer

router = APIRouter(tags=["operations"])
LAST_DAY = timedelta(hours=24)
DELIVERED_WITHIN = timedelta(hours=1)
MOST_TENANTS = 20
COUNTED_UP_TO = 1000


class WorkerStats(Shown):
    """Tasks by state."""

    pending: int = Field(description="Waiting for a worker, or for a person")
    processing: int
    completed: int
    failed: int


class WorkerStatus(Shown):
    """The tasks of the last 24 hours."""

    worker_stats: WorkerStats
    last_updated: Moment


class Schedule(Shown):
    """An entry of the timetable as it is followed."""

    entry: str
    kind: str
    every: float = Field(description="Seconds")
    policy: str
    last_tick: Moment
    done: int
    failed: int
    skipped: int
    superseded: int
    open: int = Field(description="Occurrences that wait or run")


class Schedules(Shown):
    """The timetable."""

    items: list[Schedule]
    next_cursor: None = None


class WaitingTenant(Shown):
    """A tenant with rows for Supabase."""

    tenant_id: UUID
    tenant: str
    sending: bool | None
    rows: int = Field(description=f"Counted up to {COUNTED_UP_TO}")
    oldest: float | None = Field(description="Seconds that the oldest of them has waited")


class Delivered(Shown):
    """How events of processes travelled to Supabase in the last hour."""

    calls: int
    events: int
    failed: int
    bytes: int
    success_rate: float | None
    median_ms: float | None
    p95_ms: float | None


class Mirror(Shown):
    """What is on its way to Supabase."""

    outbox: int | None = Field(description="Rows that wait, at the last reading")
    oldest_unsent: float | None = Field(description="Seconds that the oldest has waited, at the last reading")
    parked_rows: int | None
    waiting: list[WaitingTenant]
    delivered: Delivered


def worker_status_of(parts: Parts, viewer: Viewer) -> WorkerStatus:
    """Of the tasks that somebody sees."""
    now = clock.now()
    with parts.database.statement() as connection:
        found = overview.worker_status(
            connection, since=first_id_at(now - LAST_DAY), tenant_id=viewer.scope, workspaces=viewer.workspace_ids
        )
    return WorkerStatus(worker_stats=WorkerStats(**found), last_updated=now)


def schedules_of(parts: Parts) -> list[Schedule]:
    """Every entry that was ever followed."""
    with parts.database.statement() as connection:
        rows = schedules.standings(connection)
    return [
        Schedule(
            entry=one.entry,
            kind=one.kind,
            every=one.every.total_seconds(),
            policy=one.policy,
            last_tick=one.last_tick,
            done=one.done,
            failed=one.failed,
            skipped=one.skipped,
            superseded=one.superseded,
            open=one.open,
        )
        for one in rows
    ]


def mirror_of(parts: Parts) -> Mirror:
    """How the mirror stands."""
    now = clock.now()
    with parts.database.statement() as connection:
        latest = overview.latest(connection, since=first_id_at(now - LAST_DAY))
        waiting = browsing.waiting_tenants(connection, limit=MOST_TENANTS, most=COUNTED_UP_TO)
        measured = deliveries.measured(connection, now=now, within=DELIVERED_WITHIN)
    reading = {} if latest is None else latest.details
    return Mirror(
        outbox=reading.get("outbox"),
        oldest_unsent=reading.get("oldest_unsent"),
        parked_rows=reading.get("parked_rows"),
        waiting=[WaitingTenant.model_validate(one) for one in waiting],
        delivered=Delivered.model_validate(measured.as_dict()),
    )


@router.get("/worker-status", operation_id="getWorkerStatus", responses=responses(401, 422, 503))
def worker_status(viewer: SignedIn, parts: Parts) -> WorkerStatus:
    """How many tasks of the last 24 hours wait, run, are done and failed; one's own tenant's, or everybody's."""
    return worker_status_of(parts, viewer)


@router.get("/overview", operation_id="getOverview", responses=responses(401, 403, 422, 503))
def get_overview(_viewer: Operator, parts: Parts) -> Overview:
    """The fleet at a glance."""
    return fleet.read(parts.database, interval=parts.settings.sync_interval)


@router.get("/overview/history", operation_id="getHistory", responses=responses(401, 403, 422, 503))
def get_history(_viewer: Operator, parts: Parts, span: Annotated[Span, Query()] = "24h") -> History:
    """What the plots show."""
    return fleet.history(parts.database, span=span, interval=parts.settings.sync_interval)


@router.get("/schedules", operation_id="listSchedules", responses=responses(401, 403, 422, 503))
def list_schedules(_viewer: Operator, parts: Parts) -> Schedules:
    """The timetable, and what became of its occurrences."""
    return Schedules(items=schedules_of(parts))


@router.get("/mirror", operation_id="getMirror", responses=responses(401, 403, 422, 503))
def get_mirror(_viewer: Operator, parts: Parts) -> Mirror:
    """What is on its way to Supabase."""
    return mirror_of(parts)
