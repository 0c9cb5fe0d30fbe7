"""`calendar.sync_now`: sync a workspace out of turn, and tell what that changed."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from db.repositories import reports, tenants
from db.repositories.reports import CalendarReading
from tenantsync import clock
from tenantsync.work.handlers import handler
from tenantsync.work.run import Run

LONGEST_WAIT = 60.0  # seconds; a slot is not held for longer
LOOK = 0.5  # seconds


class SyncNow(BaseModel):
    """What may be asked: how long to wait for the outcome."""

    model_config = ConfigDict(extra="forbid")

    wait: float = Field(20.0, ge=0, le=LONGEST_WAIT, description="Seconds to wait for the outcome")


@handler("calendar.sync_now", timeout=LONGEST_WAIT + 30, title="Sync calendars now")
def sync_now(asked: SyncNow, run: Run) -> dict[str, Any]:
    """Make the calendars of a workspace (without one, of the tenant) due now, and wait a while for their runs."""
    begun = run.step("make due", lambda: _make_due(run))
    since = datetime.fromisoformat(begun["since"])
    waited = run.step("wait for the runs", lambda: _wait(run, since, asked.wait))
    with run.database.statement() as connection:
        events = reports.changes(
            connection,
            tenant_id=run.tenant_id,
            workspace_id=run.workspace_id,
            version=begun["version"],
            since=since,
        )
    return {"calendars": begun["calendars"], **waited, "events": events}


def _make_due(run: Run) -> dict[str, Any]:
    with run.database.transaction() as connection:
        version, since = reports.version(connection)
        calendars, _ = tenants.want_sync(connection, tenant_id=run.tenant_id, workspace_id=run.workspace_id)
    return {"calendars": calendars, "version": version, "since": since.isoformat()}


def _wait(run: Run, since: datetime, seconds: float) -> dict[str, Any]:
    ends = clock.monotonic() + seconds
    while True:
        readings = _readings(run)
        tried = [one for one in readings if one.last_attempt_at is not None and one.last_attempt_at >= since]
        expected = [one for one in readings if one.account_state == "connected"]
        run.progress(len(tried), max(1, len(expected)))
        waiting = {one.calendar_id for one in expected} - {one.calendar_id for one in tried}
        if not waiting or clock.monotonic() >= ends:
            return _told(readings, tried, waiting)
        run.wait(LOOK)


def _readings(run: Run) -> list[CalendarReading]:
    with run.database.statement() as connection:
        return reports.calendars(connection, tenant_id=run.tenant_id, workspace_id=run.workspace_id)


def _told(readings: Sequence[CalendarReading], tried: Sequence[CalendarReading], waiting: set[UUID]) -> dict[str, Any]:
    """What is told of the runs: a failed one keeps its reason, an account without a grant is named."""
    failed = [{"calendar": one.name, "reason": one.last_error} for one in tried if one.last_error]
    apart = sorted({one.account_state for one in readings if one.account_state != "connected"})
    return {
        "finished": not waiting,
        "synced": len(tried) - len(failed),
        "failed": failed,
        "not_tried": len(waiting),
        "accounts_apart": apart,
    }
