"""The two handlers that ship: a sync out of turn, and a week's report, on calendars that were really synced."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.google.control import GoogleControl
from sandbox.servers.radicale import Radicale
from tenantsync.work.handlers import load
from tests.support.caldav import Shelf, calendar, vevent
from tests.support.desk import Desk
from tests.support.fleet import TenantHandle
from tests.support.shared_database import database_url, shared_database

pytest_plugins = ["tests.support.supabase_fixtures", "tests.support.desk_fixtures"]
__all__ = ["database_url", "shared_database"]

pytestmark = pytest.mark.timeout(300)

ANN = "ann@example.test"


@pytest.fixture
def calendars(desk: Desk, asker: TenantHandle, google: GoogleControl) -> TenantHandle:
    """A tenant whose Google calendar is synced; the handlers are those that ship."""
    for one in load():
        desk.handlers._by_kind[one.kind] = one
    desk.fleet.google(asker, google)
    google.insert(ANN, ANN, meeting("Old", "2026-10-20T09:00:00"))
    desk.fleet.run()
    return asker


def meeting(title: str, start: str, **more: Any) -> dict[str, Any]:
    end = start[:11] + f"{int(start[11:13]) + 1:02}" + start[13:]
    zone = {"timeZone": "Europe/Berlin"}
    return {"summary": title, "start": {"dateTime": start} | zone, "end": {"dateTime": end} | zone, **more}


@pytest.fixture
def workers(desk: Desk) -> Iterator[None]:
    """Sync workers, at work in the background."""
    stop = threading.Event()

    def sync() -> None:
        while not stop.wait(0.05):
            desk.fleet.run()

    thread = threading.Thread(target=sync, name="fleet")
    thread.start()
    yield
    stop.set()
    thread.join()


def test_a_sync_out_of_turn_tells_what_it_changed(
    desk: Desk, calendars: TenantHandle, google: GoogleControl, workers: None
) -> None:
    gone = google.insert(ANN, ANN, meeting("Gone", "2026-10-21T09:00:00"))["id"]
    desk.fleet.due(calendars)
    first = desk.done(desk.ask(calendars, "calendar.sync_now"))
    google.insert(ANN, ANN, meeting("New", "2026-10-22T09:00:00"))
    google.delete(ANN, ANN, gone)

    seen = desk.done(desk.ask(calendars, "calendar.sync_now"))

    assert first["status"] == seen["status"] == "completed"
    assert seen["result"] == {
        "calendars": 1,
        "finished": True,
        "synced": 1,
        "failed": [],
        "not_tried": 0,
        "accounts_apart": [],
        "events": {"added": 1, "changed": 0, "removed": 1},
    }


def test_a_sync_that_takes_long_is_not_waited_for(desk: Desk, calendars: TenantHandle) -> None:
    seen = desk.done(desk.ask(calendars, "calendar.sync_now", {"wait": 0.2}))

    assert (seen["status"], seen["result"]["finished"], seen["result"]["not_tried"]) == ("completed", False, 1)


def test_a_failed_sync_is_told_with_its_reason(
    desk: Desk, calendars: TenantHandle, google: GoogleControl, workers: None
) -> None:
    google.revoke_grant(ANN)
    google.expire_access_tokens(ANN)

    seen = desk.done(desk.ask(calendars, "calendar.sync_now"))

    assert seen["result"]["accounts_apart"] == ["needs_reauth"]
    assert seen["result"]["finished"] is True


def test_a_week_holds_what_google_and_caldav_have(
    desk: Desk, calendars: TenantHandle, google: GoogleControl, radicale: Radicale
) -> None:
    weekly = meeting("Planning", "2026-10-05T10:00:00", recurrence=["RRULE:FREQ=WEEKLY"])
    google.insert(ANN, ANN, weekly)
    google.insert(ANN, ANN, {"summary": "Fair", "start": {"date": "2026-10-21"}, "end": {"date": "2026-10-23"}})
    google.insert(ANN, ANN, meeting("Elsewhere", "2026-11-20T10:00:00"))
    shelf = Shelf(radicale, "weekreport").create()
    shelf.put(
        "u", calendar(vevent("u", "朝会", "DTSTART:20261001T080000Z", "DTEND:20261001T083000Z", "RRULE:FREQ=DAILY"))
    )
    desk.fleet.caldav(calendars, radicale, "weekreport")
    desk.fleet.sync()
    asked = {"week_start": "2026-10-19", "time_zone": "Europe/Berlin", "language": "ja"}

    seen = desk.done(desk.ask(calendars, "calendar.report", asked))

    days = {day["date"]: [one["title"] for one in day["events"]] for day in seen["result"]["days"]}
    assert days["2026-10-19"] == ["Planning", "朝会"]
    assert days["2026-10-20"] == ["Old", "朝会"]
    assert days["2026-10-21"] == ["Fair", "朝会"]
    assert days["2026-10-25"] == ["朝会"]
    assert seen["result"]["totals"]["events"] == 10
    assert "10:00–10:30  朝会" in seen["result"]["text"]


def test_a_report_knows_its_own_workspace_alone(desk: Desk, calendars: TenantHandle) -> None:
    stranger = desk.fleet.tenant("stranger")
    asked = {"week_start": "2026-10-19", "time_zone": "Europe/Berlin"}

    theirs = desk.done(desk.ask(stranger, "calendar.report", asked))
    ours = desk.done(desk.ask(calendars, "calendar.report", asked))

    assert (theirs["result"]["totals"]["events"], ours["result"]["totals"]["events"]) == (0, 1)
    assert set(desk.steps(desk_task(desk, calendars))) >= {"read the calendars", "write it", "events read"}


def desk_task(desk: Desk, tenant: TenantHandle) -> Any:
    return desk.fleet.one(
        "select supabase_task_id from worker.tasks where tenant_id = :tenant and supabase_task_id is not null",
        tenant=tenant.tenant_id,
    )["supabase_task_id"]
