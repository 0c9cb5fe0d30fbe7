"""Calendars at a real CalDAV server in the hands of another client, and the texts that stand in them."""

import random
import re
import shutil
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import httpx
from defusedxml.ElementTree import fromstring

from sandbox.servers.radicale import Radicale
from tests.support.fleet import Fleet, TenantHandle

DAV = "{DAV:}"
CALDAV = "{urn:ietf:params:xml:ns:caldav}"
CRLF = "\r\n"
AS_CALENDAR = {"Content-Type": "text/calendar; charset=utf-8"}
BARE = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # plain HTTP only: reading certificates takes 20 ms a client
STAMP = "DTSTAMP:20261101T000000Z"
START = "DTSTART:20261201T090000Z"
END = "DTEND:20261201T100000Z"

EVERYTHING = """\
<C:calendar-query xmlns:D="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav">
<D:prop><D:getetag/><C:calendar-data/></D:prop>
<C:filter><C:comp-filter name="VCALENDAR"><C:comp-filter name="VEVENT"/></C:comp-filter></C:filter>
</C:calendar-query>
"""


def text_value(plain: str) -> str:
    """A TEXT value as RFC 5545 §3.3.11 writes it."""
    return re.sub(r"([\\;,])", r"\\\1", plain).replace("\n", "\\n")


def component(name: str, *lines: str) -> str:
    return CRLF.join([f"BEGIN:{name}", *lines, f"END:{name}"])


def calendar(*components: str) -> str:
    """A whole resource."""
    return component("VCALENDAR", "VERSION:2.0", "PRODID:-//tenantsync//tests//EN", *components) + CRLF


def vevent(uid: str, title: str, *lines: str) -> str:
    """An event; `lines` say when it is, and more."""
    return component("VEVENT", f"UID:{uid}", STAMP, f"SUMMARY:{text_value(title)}", *lines)


def meeting(uid: str, title: str = "Stand-up") -> str:
    """A resource that holds one hour."""
    return calendar(vevent(uid, title, START, END))


class Shelf:
    """One calendar of one user. Resources are named by their path, unquoted, as in `/ann/team/one.ics`."""

    def __init__(self, server: Radicale, user: str, name: str = "team") -> None:
        self.server, self.user, self.name = server, user, name
        self.path = f"/{user}/{name}/"
        server.add_user(user)

    @property
    def url(self) -> str:
        return self.server.calendar_url(self.user, self.name)

    @property
    def folder(self) -> Path:
        return self.server.folder / "collections" / "collection-root" / self.user / self.name

    def create(self) -> "Shelf":
        self.server.create_calendar(self.user, self.name)
        return self

    def fill(self, titles: Mapping[str, str]) -> "Shelf":
        """Put the whole calendar at once, by UID; the resources become `<UID>.ics`."""
        self.server.fill_calendar(self.user, self.name, [meeting(uid, title) for uid, title in titles.items()])
        return self

    def put(self, name: str, text: str | None = None, *, title: str = "Stand-up") -> str:
        """Create or change a resource; its path. Without a text it is a meeting whose UID is the name."""
        self._ask("PUT", self._address(name), text or meeting(name, title), AS_CALENDAR)
        return self.resource(name)

    def delete(self, *names: str) -> None:
        for name in names:
            self._ask("DELETE", self._address(name))

    def churn(self, chance: random.Random, edits: int) -> None:
        """Random insertions, changes, deletions and moves; a name that went may come back, with another UID."""
        for _ in range(edits):
            there = {
                path.removeprefix(self.path).removesuffix(".ics"): _uid(text) for path, text in self.truth().items()
            }
            name, number = f"event-{chance.randrange(30):03}", chance.randrange(10**9)
            act = chance.choice(("put", "put", "delete", "move") if there else ("put",))
            if act == "put":
                self.put(name, meeting(there.get(name, f"uid-{number}"), f"Edit {number}"))
            elif act == "delete":
                self.delete(chance.choice(sorted(there)))
            else:
                self.move(chance.choice(sorted(there)), f"moved-{number}")

    def move(self, name: str, new_name: str) -> None:
        self._ask("MOVE", self._address(name), headers={"Destination": self._address(new_name)})

    def resource(self, name: str) -> str:
        return f"{self.path}{name}.ics"

    def remove(self) -> None:
        self._ask("DELETE", self.url)

    def forget_tokens(self) -> None:
        """As a restored backup would: every sync token that was ever given out is unknown."""
        shutil.rmtree(self.folder / ".Radicale.cache")

    def truth(self) -> dict[str, list[str]]:
        """Every event resource of the calendar, in lines."""
        answer = self._ask("REPORT", self.url, EVERYTHING, {"Depth": "1"})
        return {
            unquote(response.findtext(f"{DAV}href", "")): data.splitlines()
            for response in fromstring(answer.content).iter(f"{DAV}response")
            for data in [response.findtext(f".//{CALDAV}calendar-data", "")]
        }

    def _address(self, name: str) -> str:
        return f"{self.url}{quote(name)}.ics"

    def _ask(
        self, method: str, url: str, content: str = "", headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """The user's password is looked up each time: connecting an account changes it."""
        access = (self.user, self.server._users[self.user])
        with httpx.Client(auth=access, timeout=60, trust_env=False, verify=BARE) as client:
            answer = client.request(method, url, content=content.encode(), headers=headers)
        return answer.raise_for_status()


def _uid(lines: Iterable[str]) -> str:
    return next(line.removeprefix("UID:") for line in lines if line.startswith("UID:"))


def stored(fleet: Fleet, tenant: TenantHandle, shelf: Shelf) -> dict[str, list[str]]:
    """What we hold of the shelf's calendar, in the form of `Shelf.truth`."""
    rows = fleet.events(tenant, shelf.path).values()
    return {
        unquote(urlsplit(row["resource"]).path): row["raw"]["ics"].splitlines()
        for row in rows
        if row["series_key"] is None
    }


def titles(fleet: Fleet, tenant: TenantHandle) -> dict[str, str]:
    """Titles by provider key."""
    return {key: row["title"] for key, row in fleet.events(tenant).items()}


def versions(fleet: Fleet, tenant: TenantHandle) -> dict[str, int]:
    """Versions by provider key: what has not changed keeps its own."""
    return {key: row["version"] for key, row in fleet.events(tenant).items()}


def relist(fleet: Fleet) -> None:
    """Make the next sync a full listing, as a week would."""
    fleet.execute("update sync.calendars set listed_at = now() - interval '30 days'")


def numbered(count: int, *, title: str = "Stand-up") -> dict[str, str]:
    """Titles for `Shelf.fill`."""
    return {f"event-{n:03}": f"{title} {n}" for n in range(count)}


def without(found: Mapping[str, int], names: Iterable[str]) -> dict[str, int]:
    left_out = set(names)
    return {key: value for key, value in found.items() if key not in left_out}
