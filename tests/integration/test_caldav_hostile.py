"""CalDAV servers that fail or mean harm: nothing is lost, nothing is made up, nothing leaks, and it passes."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import pytest

from tests.support import caldav_quirks as quirks
from tests.support.caldav import (
    END,
    STAMP,
    START,
    Shelf,
    calendar,
    component,
    meeting,
    relist,
    stored,
    versions,
    vevent,
)
from tests.support.caldav_proxy import CaldavProxy, Quirk, Told
from tests.support.caldav_quirks import Which
from tests.support.fleet import Fleet, TenantHandle

pytest_plugins = ["tests.support.caldav_fixtures"]

EMPTY_TOKEN = Told(207, b'<multistatus xmlns="DAV:"><sync-token/></multistatus>')
FAILURES: dict[str, Callable[[Which], Quirk]] = {
    "html with 200": partial(quirks.answering, told=quirks.HTML),
    "an empty body with 207": partial(quirks.answering, told=Told(207)),
    "an empty token": partial(quirks.answering, told=EMPTY_TOKEN),
    "a cut body": quirks.cutting,
    "an entity bomb": partial(quirks.answering, told=quirks.BOMB),
    "503": partial(quirks.answering, told=Told(503)),
    "507": partial(quirks.answering, told=Told(507)),
    "a redirect to itself": partial(quirks.redirecting, target=lambda asked: asked.path, status=302),
}
POISON: dict[str, str] = {
    "not icalendar": "BEGIN:VEVENT is all that it has of one",
    "html": "<html><body>BEGIN:VEVENT</body></html>",
    "cut short": meeting("event-001")[:120],
    "no uid": calendar(component("VEVENT", STAMP, START, END)),
    "no start": calendar(vevent("event-001", "No start")),
    "a start in no month": calendar(vevent("event-001", "x", "DTSTART:20261341T990000Z")),
    "a start in words": calendar(vevent("event-001", "x", "DTSTART:tomorrow")),
    "year zero": calendar(vevent("event-001", "x", "DTSTART:00000101T000000Z")),
    "an end before its start": calendar(vevent("event-001", "x", START, "DTEND:20251201T100000Z")),
    "a day and an hour": calendar(vevent("event-001", "x", "DTSTART;VALUE=DATE:20261201", END)),
    "an endless duration": calendar(vevent("event-001", "x", START, "DURATION:P999999999D")),
    "a recurrence id in words": calendar(vevent("event-001", "x", START, "RECURRENCE-ID:then")),
    "the same instance twice": calendar(*[vevent("event-001", "x", START, "RECURRENCE-ID:20261208T090000Z")] * 2),
    "two calendars": meeting("event-001") * 2,
    "far too long": calendar(vevent("event-001", "x", START, "DESCRIPTION:" + "x" * 2**20)),
}


@pytest.fixture
def trap() -> Iterator[CaldavProxy]:
    """A server of somebody else, which remembers what it was asked."""
    with CaldavProxy(None) as server:
        yield server


# Failures pass


@pytest.mark.parametrize(
    ("which", "failure"),
    [
        *((quirks.delta, failure) for failure in FAILURES),
        *product((quirks.listing, quirks.fetching), ("html with 200", "an empty token", "a cut body")),
    ],
)
def test_a_failure_has_a_name_changes_nothing_and_passes(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle, which: Which, failure: str
) -> None:
    shelf.put("event-001", title="Changed")
    shelf.delete("event-002")
    days = 30 * int(which is quirks.listing)
    fleet.execute("update sync.calendars set listed_at = now() - :days * interval '1 day'", days=days)
    held, cursor = stored(fleet, acme, shelf), fleet.calendar(acme)["cursor"]
    proxy.behave(FAILURES[failure](which))

    fleet.sync()
    failed, kept = fleet.calendar(acme), stored(fleet, acme, shelf)
    proxy.behave()
    fleet.sync()

    assert (failed["cursor"], failed["failures"], kept) == (cursor, 1, held)
    assert failed["last_error"]
    assert stored(fleet, acme, shelf) == shelf.truth()
    assert fleet.calendar(acme)["last_error"] is None


@pytest.mark.parametrize("which", [quirks.delta, quirks.fetching])
def test_a_server_that_never_answers_costs_no_more_than_the_deadline(
    make_fleet: Callable[..., Fleet], shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle, which: Which
) -> None:
    fleet = make_fleet(sync_unit_deadline="2s", sync_bulk_deadline="2s")
    shelf.put("event-001", title="Changed")
    held = stored(fleet, acme, shelf)
    proxy.behave(quirks.hanging(which))

    fleet.sync()
    failed, kept = fleet.calendar(acme), stored(fleet, acme, shelf)
    proxy.behave()
    make_fleet().sync()

    assert "deadline" in failed["last_error"]
    assert kept == held
    assert stored(fleet, acme, shelf) == shelf.truth()


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_for_a_pause_gets_it(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle, status: int
) -> None:
    proxy.behave(quirks.answering(quirks.anything, Told(status, b"", {"Retry-After": "120"})))
    fleet.sync()
    proxy.behave()

    fleet.sync()

    assert proxy.asked == []
    pause = fleet.one("select extract(epoch from max(until) - now())::float8 as s from sync.cooldowns")["s"]
    assert 100 < pause <= 120
    assert fleet.account(acme)["state"] == "connected"


def test_a_refusal_to_let_us_in_ends_in_a_request_for_a_new_password(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle
) -> None:
    proxy.behave(quirks.answering(quirks.anything, Told(401, b"", {"WWW-Authenticate": "Basic"})))

    fleet.sync()
    asked = len(proxy.asked)
    fleet.sync()

    assert fleet.account(acme)["state"] == "needs_reauth"
    assert asked <= 2
    assert len(proxy.asked) == asked
    assert len(fleet.events(acme)) == 10


def test_one_refusal_to_let_us_in_is_not_believed(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle
) -> None:
    shelf.put("event-001", title="Changed")
    proxy.behave(quirks.answering(quirks.anything, Told(401), times=1))

    fleet.sync()

    assert fleet.account(acme)["state"] == "connected"
    assert stored(fleet, acme, shelf) == shelf.truth()


# Other places


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_to_another_server_takes_no_password_along(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle, trap: CaldavProxy, status: int
) -> None:
    cursor = fleet.calendar(acme)["cursor"]
    proxy.behave(quirks.redirecting(quirks.anything, lambda asked: trap.url + asked.path[1:], status=status))

    fleet.sync()

    assert trap.asked == []
    assert fleet.calendar(acme)["cursor"] == cursor
    assert fleet.calendar(acme)["last_error"]


def test_an_href_at_another_server_is_not_fetched_there(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle, trap: CaldavProxy
) -> None:
    shelf.put("event-001", title="Changed")
    proxy.behave(quirks.naming(f"{trap.url}elsewhere/theirs.ics"))

    fleet.sync()
    proxy.behave()
    fleet.sync()

    assert trap.asked == []
    assert stored(fleet, acme, shelf) == shelf.truth()


@pytest.mark.parametrize("href", ["/{other}/team/secret.ics", "{path}../../{other}/team/secret.ics", "/{other}/team/"])
def test_an_href_outside_the_calendar_is_none_of_its_events(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle, href: str
) -> None:
    other = Shelf(shelf.server, f"{shelf.user}-other").create()
    other.put("secret", title="Secret")
    shelf.put("event-001", title="Changed")
    named = href.format(other=other.user, path=shelf.path)
    proxy.behave(quirks.naming(named))

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert [asked for asked in proxy.reports("calendar-multiget") if other.user.encode() in asked.body] == []


# Poisoned resources


@pytest.mark.parametrize("poison", POISON)
def test_c95_a_resource_that_cannot_be_read_is_set_aside_until_it_can(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle, poison: str
) -> None:
    before = versions(fleet, acme)
    shelf.put("new", meeting("uid-of-new", "Poisoned"))
    shelf.put("event-003", title="Changed")
    proxy.behave(quirks.holding(shelf.resource("new"), POISON[poison]))

    fleet.sync()
    aside, others = fleet.set_aside(acme), versions(fleet, acme)
    proxy.behave()
    shelf.put("new", meeting("uid-of-new", "Healed"))
    fleet.sync()

    assert list(aside) == [shelf.resource("new")]
    assert aside[shelf.resource("new")]
    assert others["event-003"] > before["event-003"]
    assert stored(fleet, acme, shelf) == shelf.truth()
    assert fleet.set_aside(acme) == {}


@pytest.mark.parametrize("text", ["", "garbage", "<html>Error</html>"])
def test_c95_a_text_that_is_no_calendar_at_all_does_not_delete_the_event_that_was_there(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle, text: str
) -> None:
    shelf.put("event-001", title="Changed")
    shelf.put("event-003", title="Changed")
    proxy.behave(quirks.holding(shelf.resource("event-001"), text))

    fleet.sync()

    assert fleet.events(acme)["event-003"]["title"] == "Changed"
    assert "event-001" in fleet.events(acme)
    assert list(fleet.set_aside(acme)) == [shelf.resource("event-001")]


@pytest.mark.parametrize("raw", [b"\x00", b"\x08", b"\xff\xfe", b"&#0;"])
def test_c95_bytes_that_may_not_stand_in_xml_spoil_their_own_resource_alone(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle, raw: bytes
) -> None:
    shelf.put("event-001", title="A MARK in it")
    shelf.put("event-003", title="Changed")
    proxy.behave(quirks.holding_bytes(b"MARK", raw))

    for _ in range(3):
        fleet.sync()

    assert fleet.events(acme)["event-003"]["title"] == "Changed"


def test_c95_a_resource_between_two_poisoned_ones_arrives(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle
) -> None:
    for n in range(3):
        shelf.put(f"event-{n:03}", title=f"Changed {n}")
    proxy.behave(*(quirks.holding(shelf.resource(f"event-{n:03}"), POISON["no start"]) for n in (0, 2)))
    relist(fleet)

    fleet.sync()

    assert fleet.events(acme)["event-001"]["title"] == "Changed 1"
    assert set(fleet.set_aside(acme)) == {shelf.resource("event-000"), shelf.resource("event-002")}
    assert fleet.calendar(acme)["state"] == "synced"
