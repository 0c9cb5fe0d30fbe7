"""What the real CalDAV server says on the wire: what the adapter and the proxy's quirks were built on."""

from xml.etree.ElementTree import Element

import httpx
import pytest
from defusedxml.ElementTree import fromstring

from tests.support.caldav import CALDAV, DAV, Shelf, meeting, numbered

pytest_plugins = ["tests.support.caldav_fixtures"]

SYNC = """\
<d:sync-collection xmlns:d="DAV:"><d:sync-token>{token}</d:sync-token><d:sync-level>1</d:sync-level>{limit}
<d:prop><d:getetag/></d:prop></d:sync-collection>
"""
MULTIGET = """\
<c:calendar-multiget xmlns:d="DAV:" xmlns:c="urn:ietf:params:xml:ns:caldav">
<d:prop><d:getetag/><c:calendar-data/></d:prop>{hrefs}</c:calendar-multiget>
"""
ABILITIES = """\
<d:propfind xmlns:d="DAV:" xmlns:s="http://calendarserver.org/ns/">
<d:prop><s:getctag/><d:sync-token/><d:supported-report-set/></d:prop></d:propfind>
"""
GONE = "HTTP/1.1 404 Not Found"


class Wire:
    """Requests to one calendar, as they are sent."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf

    def ask(self, method: str, body: str, depth: str = "0") -> httpx.Response:
        with self.shelf.server.client(self.shelf.user) as client:
            return client.request(method, self.shelf.url, content=body.encode(), headers={"Depth": depth})

    def sync(self, token: str = "", limit: str = "") -> httpx.Response:
        return self.ask("REPORT", SYNC.format(token=token, limit=limit))


@pytest.fixture
def wire(shelf: Shelf) -> Wire:
    """A calendar of three events."""
    return Wire(shelf.fill(numbered(3)))


def responses(answer: httpx.Response) -> dict[str, Element]:
    assert answer.status_code == 207
    return {one.findtext(f"{DAV}href", ""): one for one in fromstring(answer.content).findall(f"{DAV}response")}


def token_of(answer: httpx.Response) -> str:
    token: str = fromstring(answer.content).findtext(f"{DAV}sync-token", "")
    return token


def names_void_token(answer: httpx.Response) -> bool:
    return fromstring(answer.content).find(f"{DAV}valid-sync-token") is not None


def test_a_first_sync_lists_every_href_with_its_etag_and_gives_a_token(wire: Wire) -> None:
    answer = wire.sync()

    found = responses(answer)
    assert set(found) == set(wire.shelf.truth())
    assert all(one.findtext(f"{DAV}propstat/{DAV}prop/{DAV}getetag") for one in found.values())
    assert token_of(answer).startswith("http://radicale.org/ns/sync/")


def test_a_delta_names_a_change_with_its_etag_and_a_deletion_with_a_bare_404(wire: Wire) -> None:
    token = token_of(wire.sync())
    changed, gone = wire.shelf.put("event-001", title="Changed"), wire.shelf.resource("event-002")
    wire.shelf.delete("event-002")

    found = responses(wire.sync(token))

    assert set(found) == {changed, gone}
    assert found[changed].findtext(f"{DAV}propstat/{DAV}status") == "HTTP/1.1 200 OK"
    assert found[gone].findtext(f"{DAV}status") == GONE
    assert found[gone].find(f"{DAV}propstat") is None


def test_a_token_may_be_sent_again_and_where_nothing_changed_it_stays(wire: Wire) -> None:
    old = token_of(wire.sync())
    wire.shelf.put("event-001", title="Changed")

    first, second = wire.sync(old), wire.sync(old)
    quiet = wire.sync(token_of(first))

    assert responses(first).keys() == responses(second).keys()
    assert token_of(first) == token_of(second) == token_of(quiet)
    assert responses(quiet) == {}


def test_what_came_and_went_is_reported_as_gone_though_it_was_never_seen(wire: Wire) -> None:
    token = token_of(wire.sync())
    path = wire.shelf.put("guest")
    wire.shelf.delete("guest")

    found = responses(wire.sync(token))

    assert {href: one.findtext(f"{DAV}status") for href, one in found.items()} == {path: GONE}


def test_even_a_first_sync_names_what_was_deleted(wire: Wire) -> None:
    wire.sync()
    wire.shelf.delete("event-002")

    found = responses(wire.sync())

    assert found[wire.shelf.resource("event-002")].findtext(f"{DAV}status") == GONE


@pytest.mark.parametrize(
    "token", ["rubbish", "http://radicale.org/ns/sync/0000", "http://radicale.org/ns/sync/" + "a" * 64]
)
def test_a_token_that_it_does_not_know_is_refused_by_name(wire: Wire, token: str) -> None:
    answer = wire.sync(token)

    assert answer.status_code == 403
    assert names_void_token(answer)


def test_every_token_is_void_once_the_cache_is_gone(wire: Wire) -> None:
    token = token_of(wire.sync())
    wire.shelf.forget_tokens()
    wire.shelf.put("event-001", title="Changed")

    answer = wire.sync(token)

    assert answer.status_code == 403
    assert names_void_token(answer)


def test_a_calendar_that_is_gone_is_404_and_made_anew_it_refuses_the_old_token(wire: Wire) -> None:
    token = token_of(wire.sync())
    wire.shelf.remove()

    while_gone = wire.sync(token)
    wire.shelf.create()
    anew = wire.sync(token)

    assert (while_gone.status_code, anew.status_code) == (404, 403)
    assert names_void_token(anew)


def test_a_limit_is_ignored(wire: Wire) -> None:
    found = responses(wire.sync(limit="<d:limit><d:nresults>1</d:nresults></d:limit>"))

    assert len(found) == 3


def test_a_multiget_answers_404_for_the_one_that_is_missing(wire: Wire) -> None:
    there, missing = wire.shelf.resource("event-001"), wire.shelf.resource("missing")
    hrefs = "".join(f"<d:href>{href}</d:href>" for href in (there, missing))

    found = responses(wire.ask("REPORT", MULTIGET.format(hrefs=hrefs), "1"))

    assert "UID:event-001" in found[there].findtext(f".//{CALDAV}calendar-data", "")
    assert found[missing].findtext(f"{DAV}status") == GONE


def test_a_uid_stands_at_one_href_only(wire: Wire) -> None:
    with pytest.raises(httpx.HTTPStatusError) as caught:
        wire.shelf.put("elsewhere", meeting("event-001"))

    assert caught.value.response.status_code == 409
    assert b"no-uid-conflict" in caught.value.response.content


def test_it_says_what_it_can_do(wire: Wire) -> None:
    (about,) = responses(wire.ask("PROPFIND", ABILITIES)).values()

    assert about.findtext(".//{http://calendarserver.org/ns/}getctag")
    assert about.findtext(f".//{DAV}sync-token") == token_of(wire.sync())
    assert about.find(f".//{DAV}supported-report/{DAV}report/{DAV}sync-collection") is not None
