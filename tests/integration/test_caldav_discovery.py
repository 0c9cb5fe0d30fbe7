"""Connecting a CalDAV account: what a tenant may type, what is found, and where no password goes."""

from collections.abc import Callable, Iterator
from xml.etree.ElementTree import Element

import httpx
import pytest

from db.repositories.accounts import AccountExists
from sandbox.servers.ports import free_port
from tenantsync.errors import GrantRevoked, Refused, SyncError, Transient
from tests.contract.provider_failures import HTML, said
from tests.support import caldav_quirks as quirks
from tests.support.caldav import CALDAV, DAV, Shelf, numbered, stored
from tests.support.caldav_proxy import CaldavProxy, Quirk, Told
from tests.support.canned_server import CannedServer
from tests.support.fleet import Fleet

pytest_plugins = ["tests.support.caldav_fixtures"]

MAKE = """\
<C:mkcalendar xmlns:D="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><D:set><D:prop>
<C:supported-calendar-component-set><C:comp name="{component}"/></C:supported-calendar-component-set>
</D:prop></D:set></C:mkcalendar>
"""
MAKE_ADDRESS_BOOK = """\
<D:mkcol xmlns:D="DAV:" xmlns:A="urn:ietf:params:xml:ns:carddav"><D:set><D:prop>
<D:resourcetype><D:collection/><A:addressbook/></D:resourcetype></D:prop></D:set></D:mkcol>
"""
NOTHING = Told(404, b"<html/>", {"Content-Type": "text/html"})


@pytest.fixture
def trap() -> Iterator[CaldavProxy]:
    """A server of somebody else, which remembers what it was asked."""
    with CaldavProxy(None) as server:
        yield server


def keys(fleet: Fleet) -> set[str]:
    return {row["provider_key"] for row in fleet.rows("select provider_key from sync.calendars")}


def authorized(server: CaldavProxy) -> list[str]:
    return [asked.target for asked in server.asked if "Authorization" in asked.headers]


# What may be typed


@pytest.mark.parametrize("typed", ["", "{user}/", "{user}", "{user}/team/", "{user}/team"])
def test_any_address_of_the_account_leads_to_its_calendars(fleet: Fleet, shelf: Shelf, typed: str) -> None:
    shelf.fill(numbered(3))
    acme = fleet.tenant()

    fleet.caldav(acme, shelf.server, shelf.user, url=shelf.server.url + typed.format(user=shelf.user))
    fleet.run()

    assert stored(fleet, acme, shelf) == shelf.truth()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_well_known_address_is_followed_to_where_it_points(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, status: int
) -> None:
    shelf.fill(numbered(3))
    acme = fleet.tenant()
    proxy.behave(
        quirks.redirecting(quirks.on("/.well-known/caldav"), lambda _: f"/{shelf.user}/", status=status),
        quirks.answering(quirks.on("/"), NOTHING),
    )

    fleet.caldav(acme, shelf.server, shelf.user, url=proxy.url)
    fleet.run()

    assert stored(fleet, acme, shelf) == shelf.truth()


@pytest.mark.parametrize("form", ["{dav}/", "{base}dav/", "dav/"])
def test_the_well_known_address_may_point_below_a_prefix(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, form: str
) -> None:
    shelf.fill(numbered(3))
    acme = fleet.tenant()
    target = form.format(dav="/dav", base=proxy.url)
    proxy.behave(
        quirks.redirecting(quirks.on("/.well-known/caldav"), lambda _: target, status=301),
        quirks.redirecting(quirks.on("/.well-known/dav/"), lambda _: "/dav/", status=301),
        quirks.below("/dav"),
    )

    fleet.caldav(acme, shelf.server, shelf.user, url=proxy.url)
    fleet.run()

    assert keys(fleet) == {f"/dav{shelf.path}"}
    assert len(fleet.events(acme)) == 3


def test_an_account_is_the_same_however_its_address_was_typed(fleet: Fleet, shelf: Shelf) -> None:
    acme = fleet.tenant()
    fleet.caldav(acme, shelf.server, shelf.user)

    with pytest.raises(AccountExists):
        fleet.caldav(acme, shelf.server, shelf.user, url=shelf.url)


@pytest.mark.parametrize(
    "typed", ["", "not an address", "ftp://127.0.0.1/", "http://", "//127.0.0.1/", "mailto:ann@b.test"]
)
def test_what_is_no_address_is_refused_with_a_reason(fleet: Fleet, shelf: Shelf, typed: str) -> None:
    with pytest.raises(Refused) as caught:
        fleet._connect(fleet.tenant(), "caldav", typed, {"username": "ann", "password": "p"}, ())

    assert caught.value.detail


@pytest.mark.parametrize(
    "answer",
    [
        said(b"404 Not Found", HTML, b"Content-Type: text/html"),
        said(b"200 OK", HTML, b"Content-Type: text/html"),
        said(b"405 Method Not Allowed"),
        said(b"501 Not Implemented"),
        said(b"207 Multi-Status", b'<multistatus xmlns="DAV:"/>', b"Content-Type: text/xml"),
    ],
    ids=["404", "a web page", "405", "501", "webdav without calendars"],
)
def test_an_address_without_caldav_is_refused_with_a_reason(fleet: Fleet, shelf: Shelf, answer: bytes) -> None:
    with CannedServer(answer) as server, pytest.raises(SyncError) as caught:
        fleet.caldav(fleet.tenant(), shelf.server, shelf.user, url=server.url)

    assert not isinstance(caught.value, Transient | GrantRevoked)
    assert caught.value.detail
    assert keys(fleet) == set()


def test_a_server_that_is_not_there_is_expected_back(fleet: Fleet, shelf: Shelf) -> None:
    with pytest.raises(Transient):
        fleet.caldav(fleet.tenant(), shelf.server, shelf.user, url=f"http://127.0.0.1:{free_port()}/")


def test_an_address_inside_our_own_network_is_refused_unless_the_operator_allows_it(
    make_fleet: Callable[..., Fleet], shelf: Shelf, proxy: CaldavProxy
) -> None:
    fleet = make_fleet(outbound_allowed_networks="")

    with pytest.raises(Refused):
        fleet.caldav(fleet.tenant(), shelf.server, shelf.user, url=proxy.url)

    assert proxy.asked == []


# Who is let in


@pytest.mark.parametrize(
    "credentials", [{"username": "{user}", "password": "wrong"}, {"username": "x", "password": "y"}]
)
def test_a_wrong_name_or_password_is_told_and_nothing_is_stored(
    fleet: Fleet, shelf: Shelf, credentials: dict[str, str]
) -> None:
    given = {name: value.format(user=shelf.user) for name, value in credentials.items()}

    with pytest.raises(GrantRevoked):
        fleet._connect(fleet.tenant(), "caldav", shelf.server.url, given, ())

    assert fleet.rows("select * from sync.accounts") == []


def test_a_password_with_odd_characters_opens_the_account(fleet: Fleet, shelf: Shelf) -> None:
    password = "pä:ss wörd%20\"'&<>🎉"
    shelf.server.add_user(shelf.user, password)
    acme = fleet.tenant()

    fleet._connect(acme, "caldav", shelf.server.url, {"username": shelf.user, "password": password}, ())
    fleet.run()

    assert fleet.calendar(acme)["state"] == "synced"


def test_a_changed_password_asks_for_a_new_one_and_keeps_what_is_there(fleet: Fleet, shelf: Shelf) -> None:
    shelf.fill(numbered(3))
    acme = fleet.tenant()
    fleet.caldav(acme, shelf.server, shelf.user)
    fleet.run()
    shelf.server.add_user(shelf.user)

    fleet.sync()
    refused = fleet.account(acme)["state"]
    kept = len(fleet.events(acme))
    shelf.put("new", title="New")
    fleet.caldav(acme, shelf.server, shelf.user)
    fleet.run()

    assert (refused, kept) == ("needs_reauth", 3)
    assert fleet.account(acme)["state"] == "connected"
    assert stored(fleet, acme, shelf) == shelf.truth()


# What is found


def test_every_calendar_of_the_account_is_found_with_its_name(fleet: Fleet, shelf: Shelf) -> None:
    shelf.server.create_calendar(shelf.user, "home", display_name="Zu Hause 🏡 & <more>")
    acme = fleet.tenant()

    fleet.caldav(acme, shelf.server, shelf.user)

    names = {row["provider_key"]: row["name"] for row in fleet.rows("select provider_key, name from sync.calendars")}
    assert names == {shelf.path: "team", f"/{shelf.user}/home/": "Zu Hause 🏡 & <more>"}


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("MKCALENDAR", MAKE.format(component="VTODO")),
        ("MKCALENDAR", MAKE.format(component="VJOURNAL")),
        ("MKCOL", MAKE_ADDRESS_BOOK),
    ],
)
def test_a_collection_that_cannot_hold_events_is_no_calendar(
    fleet: Fleet, shelf: Shelf, method: str, body: str
) -> None:
    with shelf.server.client(shelf.user) as client:
        made: httpx.Response = client.request(
            method, shelf.server.calendar_url(shelf.user, "other"), content=body, headers={"Content-Type": "text/xml"}
        )

    fleet.caldav(fleet.tenant(), shelf.server, shelf.user)

    assert made.is_success
    assert keys(fleet) == {shelf.path}


# Where no password goes


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_to_another_server_takes_no_password_along(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, trap: CaldavProxy, status: int
) -> None:
    proxy.behave(quirks.redirecting(quirks.anything, lambda _: trap.url, status=status))

    with pytest.raises(SyncError):
        fleet.caldav(fleet.tenant(), shelf.server, shelf.user, url=proxy.url)

    assert authorized(trap) == []


@pytest.mark.parametrize(
    "name", [f"{DAV}current-user-principal", f"{CALDAV}calendar-home-set"], ids=["principal", "home"]
)
def test_a_property_that_points_to_another_server_is_not_followed(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, trap: CaldavProxy, name: str
) -> None:
    proxy.behave(pointing(name, trap.url))

    with pytest.raises(SyncError):
        fleet.caldav(fleet.tenant(), shelf.server, shelf.user, url=proxy.url)

    assert trap.asked == []


def test_a_calendar_at_another_server_is_not_taken(
    fleet: Fleet, shelf: Shelf, proxy: CaldavProxy, trap: CaldavProxy
) -> None:
    foreign = f"{trap.url}{shelf.user}/team/"
    home = Shelf(shelf.server, shelf.user, "home").create()
    proxy.behave(quirks.writing_hrefs(lambda href: foreign if href == shelf.path else href))

    fleet.caldav(fleet.tenant(), shelf.server, shelf.user, url=proxy.url)
    fleet.run()

    assert trap.asked == []
    assert keys(fleet) == {home.path}


def test_redirects_in_a_circle_end(fleet: Fleet, shelf: Shelf, proxy: CaldavProxy) -> None:
    proxy.behave(quirks.redirecting(quirks.anything, lambda asked: asked.path, status=301))

    with pytest.raises(SyncError):
        fleet.caldav(fleet.tenant(), shelf.server, shelf.user, url=proxy.url)

    assert len(proxy.asked) < 30


def pointing(name: str, address: str) -> Quirk:
    """Answers in which this property points to an address."""

    def point(root: Element) -> None:
        for href in root.iterfind(f".//{name}/{DAV}href"):
            href.text = address

    return quirks.editing(quirks.anything, point)
