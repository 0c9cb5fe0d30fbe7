"""CalDAV against a real server: what is there is in Postgres, and stays so."""

import random
from collections.abc import Callable

import pytest

from sandbox.servers.radicale import Radicale
from tests.support.caldav import (
    END,
    STAMP,
    START,
    Shelf,
    calendar,
    component,
    meeting,
    numbered,
    stored,
    titles,
    versions,
    vevent,
    without,
)
from tests.support.fleet import Fleet, TenantHandle

pytest_plugins = ["tests.support.caldav_fixtures"]

WEEKLY = vevent("weekly", "Weekly", START, END, "RRULE:FREQ=WEEKLY;COUNT=10")


def override(day: str, title: str) -> str:
    return vevent(
        "weekly",
        title,
        f"RECURRENCE-ID:202612{day}T090000Z",
        f"DTSTART:202612{day}T130000Z",
        f"DTEND:202612{day}T140000Z",
    )


@pytest.fixture
def acme(fleet: Fleet, shelf: Shelf) -> TenantHandle:
    """A tenant whose calendar holds ten events and is in step."""
    shelf.fill(numbered(10))
    tenant = fleet.tenant()
    fleet.caldav(tenant, shelf.server, shelf.user)
    fleet.run()
    return tenant


# In step


def test_the_first_sync_stores_everything_that_the_calendar_has(fleet: Fleet, shelf: Shelf) -> None:
    shelf.fill(numbered(120))
    acme = fleet.tenant()
    fleet.caldav(acme, shelf.server, shelf.user)

    fleet.run()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert fleet.calendar(acme)["state"] == "synced"
    assert len(fleet.outbox(acme)) == 120


def test_a_delta_brings_insertions_changes_and_deletions(fleet: Fleet, shelf: Shelf, acme: TenantHandle) -> None:
    shelf.put("new", title="New")
    shelf.put("event-001", title="Changed")
    shelf.delete("event-002", "event-003")

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert set(fleet.tombstones(acme)) == {"event-002", "event-003"}


def test_only_what_changed_gets_a_new_version_and_is_sent_on(fleet: Fleet, shelf: Shelf, acme: TenantHandle) -> None:
    fleet.clear_outbox()
    before = versions(fleet, acme)
    changed = fleet.events(acme)["event-001"]["event_id"]
    shelf.put("event-001", title="Changed")

    fleet.sync()

    assert without(versions(fleet, acme), ["event-001"]) == without(before, ["event-001"])
    assert list(fleet.outbox(acme)) == [changed]


def test_a_quiet_sync_changes_no_version_and_sends_nothing(fleet: Fleet, shelf: Shelf, acme: TenantHandle) -> None:
    fleet.clear_outbox()
    before = versions(fleet, acme)

    fleet.sync()

    assert versions(fleet, acme) == before
    assert fleet.outbox(acme) == {}
    assert fleet.unit(acme)["quiet_runs"] == 1


def test_writing_a_resource_anew_as_it_was_changes_no_version(fleet: Fleet, shelf: Shelf, acme: TenantHandle) -> None:
    shelf.put("again", title="As it was")
    fleet.sync()
    before = versions(fleet, acme)
    shelf.put("again", title="Changed")
    shelf.put("again", title="As it was")

    fleet.sync()

    assert versions(fleet, acme) == before


@pytest.mark.parametrize("seed", range(4))
def test_any_history_of_edits_ends_at_what_the_server_has(
    fleet: Fleet, shelf: Shelf, acme: TenantHandle, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 — to be repeated, not to be secret

    for edits in (1, 6, 12):
        shelf.churn(chance, edits)
        fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()


def test_each_of_two_calendars_has_rows_and_a_cursor_of_its_own(fleet: Fleet, shelf: Shelf, radicale: Radicale) -> None:
    home = Shelf(radicale, shelf.user, "home").create().fill(numbered(3, title="At home"))
    shelf.fill(numbered(5))
    acme = fleet.tenant()
    fleet.caldav(acme, radicale, shelf.user)
    fleet.run()
    home.put("event-000", title="Changed at home")
    before = versions(fleet, acme)

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert stored(fleet, acme, home) == home.truth()
    assert fleet.calendar(acme, shelf.path)["cursor"] != fleet.calendar(acme, home.path)["cursor"]
    assert set(versions(fleet, acme)) == set(before)


def test_the_same_calendar_in_two_tenants_is_two_sets_of_rows(fleet: Fleet, shelf: Shelf, acme: TenantHandle) -> None:
    other = fleet.tenant()
    password = shelf.server._users[shelf.user]
    fleet.caldav(other, shelf.server, shelf.user)
    shelf.server.add_user(shelf.user, password)
    fleet.run()

    assert {row["event_id"] for row in fleet.events(acme).values()}.isdisjoint(
        row["event_id"] for row in fleet.events(other).values()
    )


# The server's own events


def test_c91_a_calendar_deleted_and_made_anew_at_its_path_is_listed_and_swept(
    fleet: Fleet, shelf: Shelf, acme: TenantHandle
) -> None:
    shelf.remove()
    shelf.create()
    shelf.put("event-001", title="Stand-up 1")
    shelf.put("new", title="New")

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert len(fleet.tombstones(acme)) == 9
    assert fleet.calendar(acme)["state"] == "synced"


def test_c91_a_calendar_made_anew_without_events_is_emptied_once_a_second_listing_agrees(
    make_fleet: Callable[..., Fleet], shelf: Shelf
) -> None:
    fleet = make_fleet(sync_confirm_empty_after="1ms")
    shelf.fill(numbered(10))
    acme = fleet.tenant()
    fleet.caldav(acme, shelf.server, shelf.user)
    fleet.run()
    shelf.remove()
    shelf.create()

    fleet.due()
    fleet.run(rounds=1)
    after_one = len(fleet.events(acme))
    fleet.sync()

    assert after_one == 10
    assert fleet.events(acme) == {}


def test_c91_a_calendar_that_is_gone_keeps_its_rows(fleet: Fleet, shelf: Shelf, acme: TenantHandle) -> None:
    shelf.remove()

    fleet.sync()

    assert len(fleet.events(acme)) == 10
    assert fleet.calendar(acme)["last_error"]


def test_c91_a_calendar_that_comes_back_after_it_was_lost_is_in_step_again(
    fleet: Fleet, shelf: Shelf, acme: TenantHandle
) -> None:
    shelf.remove()
    for _ in range(3):
        fleet.sync()
    state = fleet.calendar(acme)["state"]
    shelf.create()
    shelf.put("new", title="New")

    fleet.sync()

    assert state == "lost"
    assert stored(fleet, acme, shelf) == shelf.truth()


def test_c85_when_all_tokens_are_void_unchanged_rows_keep_their_versions(
    fleet: Fleet, shelf: Shelf, acme: TenantHandle
) -> None:
    shelf.put("event-001", title="Changed")
    shelf.delete("event-002")
    shelf.forget_tokens()
    before = versions(fleet, acme)
    fleet.clear_outbox()

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert without(versions(fleet, acme), ["event-001"]) == without(before, ["event-001", "event-002"])
    assert len(fleet.outbox(acme)) == 2


def test_a_server_that_is_down_costs_nothing_but_time(fleet: Fleet) -> None:
    acme = fleet.tenant()
    with Radicale() as server:
        shelf = Shelf(server, "ann").create().fill(numbered(5))
        fleet.caldav(acme, server, "ann")
        fleet.run()
        shelf.delete("event-001")
        server.stop()
        fleet.sync()
        while_down = fleet.calendar(acme)
        server.start()

        fleet.sync()

        assert while_down["last_error"]
        assert while_down["state"] == "synced"
        assert stored(fleet, acme, shelf) == shelf.truth()


def test_c92_a_resource_that_moved_to_another_href_is_the_same_event(
    fleet: Fleet, shelf: Shelf, acme: TenantHandle
) -> None:
    before = fleet.events(acme)["event-001"]["event_id"]
    shelf.move("event-001", "elsewhere")

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert fleet.events(acme)["event-001"]["event_id"] == before
    assert len(fleet.events(acme)) == 10


def test_c92_a_uid_deleted_and_put_again_at_another_href_is_one_event(
    fleet: Fleet, shelf: Shelf, acme: TenantHandle
) -> None:
    shelf.delete("event-001")
    shelf.put("elsewhere", meeting("event-001", "Put again"))

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert titles(fleet, acme)["event-001"] == "Put again"


def test_c92_two_resources_that_exchange_their_uids_are_two_events(
    fleet: Fleet, shelf: Shelf, acme: TenantHandle
) -> None:
    shelf.delete("event-001", "event-002")
    shelf.put("event-001", meeting("event-002", "Two"))
    shelf.put("event-002", meeting("event-001", "One"))

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert {titles(fleet, acme)[uid] for uid in ("event-001", "event-002")} == {"One", "Two"}


def test_a_calendar_is_listed_anew_once_a_week(fleet: Fleet, shelf: Shelf, acme: TenantHandle) -> None:
    fleet.execute("update sync.calendars set listed_at = now() - interval '8 days'")
    before = fleet.calendar(acme)["listed_at"]
    unchanged = versions(fleet, acme)

    fleet.sync()

    assert (fleet.calendar(acme)["listed_at"] - before).days == 8
    assert versions(fleet, acme) == unchanged


def test_a_calendar_listed_lately_is_asked_for_changes_alone(fleet: Fleet, shelf: Shelf, acme: TenantHandle) -> None:
    fleet.execute("update sync.calendars set listed_at = now() - interval '5 days'")
    before = fleet.calendar(acme)["listed_at"]

    fleet.sync()

    assert fleet.calendar(acme)["listed_at"] == before


# A resource with several components


def test_c95_a_series_with_three_overrides_is_four_events(fleet: Fleet, shelf: Shelf, acme: TenantHandle) -> None:
    shelf.put("weekly", calendar(WEEKLY, *(override(day, f"Moved {day}") for day in ("08", "15", "22"))))

    fleet.sync()

    of_series = [row for row in fleet.events(acme).values() if row["uid"] == "weekly"]
    assert sorted(row["title"] for row in of_series) == ["Moved 08", "Moved 15", "Moved 22", "Weekly"]
    assert sorted(str(row["series_key"]) for row in of_series) == ["None", "weekly", "weekly", "weekly"]
    assert [f"{row['original_start']:%d %H}" for row in of_series if row["title"] == "Moved 15"] == ["15 09"]
    assert [f"{row['starts_at']:%d %H}" for row in of_series if row["title"] == "Moved 15"] == ["15 13"]


def test_c95_an_override_that_leaves_its_resource_is_gone(fleet: Fleet, shelf: Shelf, acme: TenantHandle) -> None:
    shelf.put("weekly", calendar(WEEKLY, override("08", "Moved 08"), override("15", "Moved 15")))
    fleet.sync()
    shelf.put("weekly", calendar(WEEKLY, override("15", "Moved 15")))

    fleet.sync()

    assert sorted(row["title"] for row in fleet.events(acme).values() if row["uid"] == "weekly") == [
        "Moved 15",
        "Weekly",
    ]


def test_c95_a_change_to_one_override_changes_no_other_events_version(
    fleet: Fleet, shelf: Shelf, acme: TenantHandle
) -> None:
    shelf.put("weekly", calendar(WEEKLY, override("08", "Moved 08"), override("15", "Moved 15")))
    fleet.sync()
    before = {row["title"]: row["version"] for row in fleet.events(acme).values()}
    shelf.put("weekly", calendar(WEEKLY, override("08", "Moved 08"), override("15", "Moved again")))

    fleet.sync()

    after = {row["title"]: row["version"] for row in fleet.events(acme).values()}
    assert after["Moved 08"] == before["Moved 08"]
    assert after["Moved again"] > before["Moved 15"]


def test_c95_deleting_the_resource_deletes_the_whole_series(fleet: Fleet, shelf: Shelf, acme: TenantHandle) -> None:
    shelf.put("weekly", calendar(WEEKLY, override("08", "Moved 08")))
    fleet.sync()
    shelf.delete("weekly")

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert [row for row in fleet.events(acme).values() if row["uid"] == "weekly"] == []


def test_c95_an_override_without_its_series_stands_alone(fleet: Fleet, shelf: Shelf, acme: TenantHandle) -> None:
    shelf.put("weekly", calendar(override("08", "Invited to one")))

    fleet.sync()

    assert [row["title"] for row in fleet.events(acme).values() if row["uid"] == "weekly"] == ["Invited to one"]
    assert fleet.set_aside(acme) == {}


@pytest.mark.parametrize("kind", ["VTODO", "VJOURNAL"])
def test_c95_what_is_no_event_is_skipped(fleet: Fleet, shelf: Shelf, acme: TenantHandle, kind: str) -> None:
    shelf.put("other", calendar(component(kind, "UID:other", STAMP, "SUMMARY:Not an event")))
    shelf.put("new", title="New")

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert fleet.set_aside(acme) == {}
    assert fleet.calendar(acme)["last_error"] is None


def test_c95_an_event_that_becomes_a_task_is_gone(fleet: Fleet, shelf: Shelf, acme: TenantHandle) -> None:
    shelf.delete("event-001")
    shelf.put("event-001", calendar(component("VTODO", "UID:event-001", STAMP, "SUMMARY:To do")))

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert len(fleet.events(acme)) == 9
