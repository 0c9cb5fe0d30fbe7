"""Hrefs, tokens and etags in the forms that servers give them, and servers that can do less (C92 to C96)."""

import random
from collections.abc import Callable

import pytest

from tests.support import caldav_quirks as quirks
from tests.support.caldav import (
    Shelf,
    meeting,
    numbered,
    relist,
    stored,
    titles,
    versions,
    without,
)
from tests.support.caldav_proxy import CaldavProxy, Quirk
from tests.support.fleet import Fleet, TenantHandle

pytest_plugins = ["tests.support.caldav_fixtures"]

ODD_NAMES = ("with space", "ümläut", "plus+and&amp", "at@home", "日本")
LADDERS: dict[str, tuple[Quirk, ...]] = {
    "no sync": (quirks.without_sync(),),
    "no sync, no ctag": (quirks.without_sync(), quirks.without_ctags()),
    "no sync, no etags": (quirks.without_sync(), quirks.without_etags()),
    "no sync, weak etags": (quirks.without_sync(), quirks.weak_etags()),
    "nothing at all": (quirks.without_sync(), quirks.without_ctags(), quirks.without_etags()),
}


# Hrefs that change


def test_c92_the_late_report_that_an_old_href_is_gone_leaves_the_moved_event(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle
) -> None:
    before = fleet.events(acme)["event-001"]["event_id"]
    shelf.move("event-001", "elsewhere")
    proxy.behave(quirks.hiding(shelf.resource("event-001")))
    fleet.sync()
    proxy.behave(quirks.reporting_gone(shelf.resource("event-001")))

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert fleet.events(acme)["event-001"]["event_id"] == before


def test_c92_an_href_reported_gone_before_the_uid_appears_at_another_brings_the_event_back(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle
) -> None:
    before = fleet.events(acme)["event-001"]["event_id"]
    shelf.delete("event-001")
    fleet.sync()
    shelf.put("elsewhere", meeting("event-001", "Moved"))

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert fleet.events(acme)["event-001"]["event_id"] == before
    assert fleet.tombstones(acme) == {}


# Tokens of other kinds


@pytest.mark.parametrize(
    "form",
    [
        lambda n: str(1763640000 + n),
        lambda n: f"{n:04}",
        lambda n: f"with spaces & <entities> \"{n}\" 'quotes' &amp; é 🎉",
        lambda n: f"https://cal.example.test/sync?token={n}&x=%2F+/=#part",
        lambda n: f"data:,{n}",
        lambda n: str(n) * 4096,
        lambda n: f"sync:{n}",
    ],
    ids=["an integer", "leading zeros", "spaces and entities", "a url", "a data url", "very long", "our own prefix"],
)
def test_c93_a_token_is_sent_back_as_it_came(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, form: Callable[[int], str]
) -> None:
    shelf.fill(numbered(5))
    proxy.behave(quirks.writing_tokens(form))
    acme = fleet.tenant()
    fleet.caldav(acme, shelf.server, shelf.user, url=proxy.url)
    fleet.run()
    shelf.put("event-001", title="Changed")
    shelf.delete("event-002")
    proxy.asked.clear()

    fleet.sync()

    assert proxy.tokens == [form(1)]
    assert stored(fleet, acme, shelf) == shelf.truth()


# Hrefs in other forms


@pytest.fixture
def oddly_named(fleet: Fleet, shelf: Shelf, proxy: CaldavProxy) -> TenantHandle:
    """A tenant in step with a calendar whose resources have names that need quoting."""
    for number, name in enumerate(ODD_NAMES):
        shelf.put(name, meeting(f"uid-{number}", name))
    acme = fleet.tenant()
    fleet.caldav(acme, shelf.server, shelf.user, url=proxy.url)
    fleet.run()
    return acme


HREFS: dict[str, Callable[[CaldavProxy], Callable[[str], str]]] = {
    "absolute": lambda proxy: quirks.as_absolute(proxy.url),
    "unquoted": lambda _: quirks.as_unquoted,
    "quoted throughout": lambda _: quirks.as_quoted_throughout,
    "absolute in capitals": lambda proxy: quirks.as_absolute(proxy.url.replace("http", "HTTP")),
}


@pytest.mark.parametrize("form", HREFS)
@pytest.mark.parametrize("anew", [True, False])
def test_c94_an_href_in_another_form_is_the_same_resource(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, oddly_named: TenantHandle, form: str, anew: bool
) -> None:
    before = versions(fleet, oddly_named)
    fleet.execute("update sync.calendars set listed_at = now() - :age * interval '30 days'", age=int(anew))
    shelf.delete(ODD_NAMES[0], ODD_NAMES[1])
    shelf.put(ODD_NAMES[2], meeting("uid-2", "Changed"))
    proxy.behave(quirks.writing_hrefs(HREFS[form](proxy)))

    fleet.sync()

    assert stored(fleet, oddly_named, shelf) == shelf.truth()
    assert without(versions(fleet, oddly_named), ["uid-2"]) == without(before, ["uid-0", "uid-1", "uid-2"])


@pytest.mark.parametrize("form", ["{path}", "{slashless}", "{base}{path}"])
def test_c94_the_collection_among_its_members_is_skipped(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle, form: str
) -> None:
    listed = form.format(path=shelf.path, slashless=shelf.path.rstrip("/"), base=proxy.url.rstrip("/"))
    shelf.put("event-001", title="Changed")
    proxy.behave(quirks.listing_the_collection(listed))

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert fleet.set_aside(acme) == {}
    assert fleet.calendar(acme)["last_error"] is None


@pytest.mark.parametrize("anew", [True, False])
def test_c94_hrefs_with_the_address_behind_a_front_end_lose_nothing_in_silence(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle, anew: bool
) -> None:
    fleet.execute("update sync.calendars set listed_at = now() - :age * interval '30 days'", age=int(anew))
    shelf.put("event-001", title="Changed")
    proxy.behave(quirks.writing_hrefs(quirks.as_absolute(shelf.server.url)))

    fleet.sync()
    while_so = fleet.calendar(acme)["last_error"] or titles(fleet, acme)["event-001"]
    proxy.behave()
    fleet.sync()

    assert while_so != "Stand-up 1"
    assert stored(fleet, acme, shelf) == shelf.truth()


def test_c94_hrefs_with_the_address_behind_a_front_end_never_empty_a_calendar(
    make_fleet: Callable[..., Fleet], shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle
) -> None:
    fleet = make_fleet(sync_confirm_empty_after="1ms")
    proxy.behave(quirks.writing_hrefs(quirks.as_absolute(shelf.server.url)))
    relist(fleet)

    for _ in range(3):
        fleet.sync()

    assert len(fleet.events(acme)) == 10


# Etags


def test_c95_etags_that_turn_weak_change_no_version(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle
) -> None:
    before = versions(fleet, acme)
    fleet.clear_outbox()
    relist(fleet)
    proxy.behave(quirks.weak_etags())

    fleet.sync()

    assert versions(fleet, acme) == before
    assert fleet.outbox(acme) == {}


@pytest.mark.parametrize("quirk", [quirks.weak_etags, quirks.without_etags])
def test_c95_changes_are_seen_whatever_the_etags_are_worth(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle, quirk: Callable[[], Quirk]
) -> None:
    before = versions(fleet, acme)
    proxy.behave(quirk())
    relist(fleet)
    fleet.sync()
    shelf.put("event-001", title="Changed")
    shelf.delete("event-002")
    relist(fleet)

    fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert without(versions(fleet, acme), ["event-001"]) == without(before, ["event-001", "event-002"])


# Servers that can do less


@pytest.mark.parametrize("ladder", LADDERS)
def test_c96_without_sync_the_end_is_the_same(fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, ladder: str) -> None:
    shelf.fill(numbered(10))
    proxy.behave(*LADDERS[ladder])
    acme = fleet.tenant()
    fleet.caldav(acme, shelf.server, shelf.user, url=proxy.url)
    fleet.run()
    chance = random.Random(96)  # noqa: S311 — to be repeated, not to be secret

    for edits in (3, 8):
        shelf.churn(chance, edits)
        fleet.sync()

    assert stored(fleet, acme, shelf) == shelf.truth()
    assert fleet.calendar(acme)["last_error"] is None


@pytest.mark.parametrize("ladder", LADDERS)
def test_c96_without_sync_what_did_not_change_keeps_its_version(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, ladder: str
) -> None:
    shelf.fill(numbered(5))
    proxy.behave(*LADDERS[ladder])
    acme = fleet.tenant()
    fleet.caldav(acme, shelf.server, shelf.user, url=proxy.url)
    fleet.run()
    before = versions(fleet, acme)
    fleet.sync()
    quiet = versions(fleet, acme)
    shelf.put("event-001", title="Changed")

    fleet.sync()

    assert quiet == before
    assert without(versions(fleet, acme), ["event-001"]) == without(before, ["event-001"])


def test_c96_a_ctag_that_has_not_changed_ends_the_run(fleet: Fleet, shelf: Shelf, proxy: CaldavProxy) -> None:
    shelf.fill(numbered(5))
    proxy.behave(quirks.without_sync())
    acme = fleet.tenant()
    fleet.caldav(acme, shelf.server, shelf.user, url=proxy.url)
    fleet.run()
    proxy.asked.clear()

    fleet.sync()

    assert [asked.headers.get("Depth") for asked in proxy.asked if asked.method == "PROPFIND"] == ["0"]
    assert fleet.calendar(acme)["last_error"] is None


def test_c96_a_server_may_lose_sync_and_get_it_back(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle
) -> None:
    before = versions(fleet, acme)
    shelf.delete("event-001")
    proxy.behave(quirks.without_sync())
    fleet.sync()
    fleet.sync()
    without_it = stored(fleet, acme, shelf) == shelf.truth()
    shelf.delete("event-002")
    proxy.behave()

    fleet.sync()

    assert without_it
    assert stored(fleet, acme, shelf) == shelf.truth()
    assert versions(fleet, acme) == without(before, ["event-001", "event-002"])


# Deletions that nobody reports


def test_a_deletion_that_no_delta_reports_is_found_within_a_week(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, acme: TenantHandle
) -> None:
    shelf.delete("event-001")
    proxy.behave(quirks.hiding(shelf.resource("event-001")))
    fleet.sync()
    before = "event-001" in fleet.events(acme)
    relist(fleet)

    fleet.sync()

    assert before
    assert stored(fleet, acme, shelf) == shelf.truth()
