"""Servers that keep RFC 6578 in their own way, or not quite: the end is the same (C85 to C90)."""

import pytest

from tests.support import caldav_quirks as quirks
from tests.support.caldav import (
    END,
    START,
    Shelf,
    calendar,
    numbered,
    relist,
    stored,
    titles,
    versions,
    vevent,
    without,
)
from tests.support.caldav_proxy import Asked, CaldavProxy, Told
from tests.support.fleet import Fleet, TenantHandle

pytest_plugins = ["tests.support.caldav_fixtures"]

REFUSALS = (403, 409, 412, 500)


def series(uid: str, *, overrides: int) -> str:
    days = [f"202612{day:02}T090000Z" for day in range(2, 2 + overrides)]
    moved = [vevent(uid, "Moved", f"RECURRENCE-ID:{day}", f"DTSTART:{day}", "DURATION:PT30M") for day in days]
    return calendar(vevent(uid, "Daily", START, END, "RRULE:FREQ=DAILY;COUNT=9"), *moved)


# Void tokens


@pytest.mark.parametrize("status", REFUSALS)
def test_c85_a_refusal_that_names_the_token_leads_to_one_full_listing(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle, status: int
) -> None:
    shelf.put("event-001", title="Changed")
    shelf.delete("event-002")
    before = versions(fleet, acme)
    proxy.behave(quirks.refusing_token(status, names_it=True))

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert without(versions(fleet, acme), ["event-001"]) == without(before, ["event-001", "event-002"])
    assert fleet.calendar(acme)["state"] == "synced"
    assert [bool(token) for token in proxy.tokens] == [True, False]


@pytest.mark.parametrize("status", REFUSALS)
def test_c85_a_refusal_that_does_not_name_the_token_is_no_reason_to_list_anew(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle, status: int
) -> None:
    before = fleet.calendar(acme)["cursor"]
    shelf.delete("event-002")
    proxy.behave(quirks.refusing_token(status, names_it=False))

    fleet.sync()

    after = fleet.calendar(acme)
    assert (after["cursor"], after["state"]) == (before, "synced")
    assert after["last_error"]
    assert "" not in proxy.tokens
    assert len(fleet.events(acme)) == 10


def test_c85_a_listing_that_fails_after_a_void_token_is_made_up_for_later(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle
) -> None:
    shelf.delete("event-002")
    proxy.behave(quirks.refusing_token(403, names_it=True), quirks.answering(quirks.listing, Told(503)))
    fleet.sync()
    failed = fleet.calendar(acme)
    proxy.behave()

    fleet.sync()

    assert failed["state"] == "resync"
    assert failed["last_error"]
    assert proxy.tokens[:1] == [""]
    assert stored(fleet, acme, shelf) == shelf.truth()


@pytest.mark.parametrize("deleted", [1, 5, 9])
def test_c86_deletions_are_found_where_a_token_is_answered_with_everything(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle, deleted: int
) -> None:
    shelf.delete(*(f"event-{n:03}" for n in range(deleted)))
    before = versions(fleet, acme)
    proxy.behave(quirks.answering_tokens_with_everything)

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert versions(fleet, acme).items() <= before.items()


@pytest.mark.parametrize(("changed", "added"), [(9, 0), (9, 1), (8, 12), (5, 5)])
def test_c86_a_delta_of_nearly_everything_deletes_nothing(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle, changed: int, added: int
) -> None:
    for n in range(changed):
        shelf.put(f"event-{n:03}", title=f"Changed {n}")
    for n in range(added):
        shelf.put(f"new-{n}", title=f"New {n}")

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert len(fleet.events(acme)) == 10 + added
    assert fleet.tombstones(acme) == {}


def test_c86_deletions_are_found_where_resources_hold_several_events(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle
) -> None:
    for n in range(10):
        shelf.put(f"event-{n:03}", series(f"event-{n:03}", overrides=4))
    fleet.sync()
    shelf.delete("event-003")
    proxy.behave(quirks.answering_tokens_with_everything)

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert len(fleet.events(acme)) == 45


def test_c87_a_token_that_a_library_made_up_is_never_sent(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle
) -> None:
    fleet.execute("update sync.calendars set cursor = 'fake-0123456789abcdef'")
    shelf.delete("event-002")

    fleet.sync()

    assert proxy.tokens == [""]
    assert stored(fleet, acme, shelf) == shelf.truth()


# Tombstones and texts that are missing


def test_c88_a_deletion_may_be_reported_twice_or_of_what_was_never_seen(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle
) -> None:
    shelf.delete("event-001")
    gone = shelf.resource("event-001")
    proxy.behave(quirks.reporting_gone(gone, shelf.resource("never-seen"), gone))

    fleet.sync()

    assert fleet.calendar(acme)["last_error"] is None
    assert set(fleet.tombstones(acme)) == {"event-001"}
    assert stored(fleet, acme, shelf) == shelf.truth()


def test_c88_a_deletion_reported_again_later_changes_nothing(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle
) -> None:
    shelf.delete("event-001")
    fleet.sync()
    before = fleet.tombstones(acme)
    fleet.clear_outbox()
    proxy.behave(quirks.reporting_gone(shelf.resource("event-001")))

    fleet.sync()

    assert fleet.tombstones(acme) == before
    assert fleet.outbox(acme) == {}


def test_c88_a_resource_reported_deleted_and_then_found_is_there(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle
) -> None:
    shelf.delete("event-001")
    fleet.sync()
    shelf.put("event-001", title="Back again")

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert fleet.tombstones(acme) == {}


def test_c89_a_resource_deleted_between_listing_and_reading_harms_no_other(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy
) -> None:
    shelf.fill(numbered(50))
    acme = fleet.tenant()
    fleet.caldav(acme, shelf.server, shelf.user, url=proxy.url)
    proxy.behave(quirks.first_doing(quirks.fetching, lambda: shelf.delete("event-007")))

    fleet.run()
    after_one = set(fleet.events(acme))
    fleet.sync()

    assert after_one >= set(numbered(50)) - {"event-007"}
    assert stored(fleet, acme, shelf) == shelf.truth()
    assert fleet.calendar(acme)["last_error"] is None


def test_c89_a_text_that_is_not_found_counts_as_deleted(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle
) -> None:
    for n in range(4):
        shelf.put(f"event-{n:03}", title=f"Changed {n}")
    proxy.behave(quirks.not_finding([shelf.resource("event-001")]))

    fleet.sync()

    found = titles(fleet, acme)
    assert [found[f"event-{n:03}"] for n in (0, 2, 3)] == ["Changed 0", "Changed 2", "Changed 3"]
    assert fleet.calendar(acme)["last_error"] is None


@pytest.mark.parametrize("status", [None, "500 Internal Server Error", "403 Forbidden", "503 Service Unavailable"])
def test_c89_a_text_that_is_held_back_is_not_lost_and_not_taken_for_deleted(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle, status: str | None
) -> None:
    for n in range(4):
        shelf.put(f"event-{n:03}", title=f"Changed {n}")
    proxy.behave(quirks.not_finding([shelf.resource("event-001")], status))
    fleet.sync()
    meanwhile = set(fleet.events(acme))
    proxy.behave()

    fleet.sync()

    assert "event-001" in meanwhile
    assert stored(fleet, acme, shelf) == shelf.truth()


@pytest.mark.parametrize("status", [None, "500 Internal Server Error", "403 Forbidden"])
def test_c89_a_text_that_is_never_given_does_not_stop_the_others(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle, status: str | None
) -> None:
    for n in range(4):
        shelf.put(f"event-{n:03}", title=f"Changed {n}")
    proxy.behave(quirks.not_finding([shelf.resource("event-001")], status))

    for _ in range(3):
        fleet.sync()

    found = titles(fleet, acme)
    assert [found[f"event-{n:03}"] for n in (0, 2, 3)] == ["Changed 0", "Changed 2", "Changed 3"]


# Answers in portions


def test_c90_a_listing_in_portions_is_followed_to_its_end(fleet: Fleet, shelf: Shelf, proxy: CaldavProxy) -> None:
    shelf.fill(numbered(23))
    acme = fleet.tenant()
    fleet.caldav(acme, shelf.server, shelf.user, url=proxy.url)
    proxy.behave(quirks.in_portions(5))

    fleet.run()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert proxy.tokens == ["", "portion:0", "portion:1", "portion:2", "portion:3"]
    assert "portion" not in fleet.calendar(acme)["cursor"]


def test_c90_a_delta_in_portions_is_followed_to_its_end(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle
) -> None:
    for n in range(7):
        shelf.put(f"event-{n:03}", title=f"Changed {n}")
    shelf.delete("event-007", "event-008")
    before = versions(fleet, acme)
    proxy.behave(quirks.in_portions(2))

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert versions(fleet, acme)["event-009"] == before["event-009"]


def test_c90_a_void_token_amid_the_portions_leads_to_a_full_listing(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle
) -> None:
    shelf.delete("event-001", "event-002", "event-003")
    refused = Told(403, b'<error xmlns="DAV:"><valid-sync-token/></error>')
    proxy.behave(quirks.answering(portion, refused, times=1), quirks.in_portions(2))

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()


def test_c90_portions_that_stop_coming_leave_everything_as_it_was(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle
) -> None:
    shelf.put("event-001", title="Changed")
    shelf.delete("event-002", "event-003")
    before, cursor = stored(fleet, acme, shelf), fleet.calendar(acme)["cursor"]
    relist(fleet)
    proxy.behave(quirks.answering(portion, Told(503)), quirks.in_portions(3))

    fleet.sync()

    assert stored(fleet, acme, shelf) == before
    assert fleet.calendar(acme)["cursor"] == cursor
    assert fleet.calendar(acme)["last_error"]


def test_c90_portions_without_end_are_a_failure(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle
) -> None:
    endless = (
        f'<multistatus xmlns="DAV:"><response><href>{shelf.path}</href>'
        "<status>HTTP/1.1 507 Insufficient Storage</status></response><sync-token>the-same</sync-token></multistatus>"
    )
    cursor = fleet.calendar(acme)["cursor"]
    proxy.behave(quirks.answering(quirks.syncing, Told(207, endless.encode())))

    fleet.sync()

    assert fleet.calendar(acme)["cursor"] == cursor
    assert fleet.calendar(acme)["last_error"]
    assert len(fleet.events(acme)) == 10
    assert len(proxy.asked) < 50


def test_c90_no_request_ever_limits_its_answer(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle
) -> None:
    shelf.put("event-001", title="Changed")
    relist(fleet)

    fleet.sync()
    fleet.sync()

    assert [asked for asked in proxy.asked if b"limit" in asked.body or b"nresults" in asked.body] == []


def portion(asked: Asked) -> bool:
    return (asked.token or "").startswith("portion:")
