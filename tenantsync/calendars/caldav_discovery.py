"""From the address that a tenant typed to their calendars (RFC 6764 §6, RFC 5397, RFC 4791 §6.2).

The address may be a calendar, a home, a principal or just the server. Redirects are followed only within
the origin that was typed: a password goes nowhere else. DNS SRV records are not asked, because an address
and not a mail domain is given.
"""

from collections.abc import Awaitable, Callable
from urllib.parse import quote, unquote, urlsplit

from yarl import URL

from tenantsync.calendars.caldav_errors import classify
from tenantsync.calendars.caldav_xml import (
    CALDAV,
    DAV,
    SAFE_IN_PATH,
    Multistatus,
    Response,
    children,
    parse,
    path_of,
    propfind,
)
from tenantsync.calendars.provider import Credentials, RemoteAccount, RemoteCalendar
from tenantsync.errors import CalendarUnavailable, GrantRevoked, Refused, Transient
from tenantsync.outbound import Answer, Meter

WELL_KNOWN = "/.well-known/caldav"
REDIRECTS = 5

Send = Callable[[str, URL, bytes, Credentials, Meter, str], Awaitable[Answer]]

_PRINCIPAL = DAV + "current-user-principal"
_HOME = CALDAV + "calendar-home-set"
_KIND = DAV + "resourcetype"
_NAME = DAV + "displayname"
_COMPONENTS = CALDAV + "supported-calendar-component-set"


class Discovery:
    """One discovery, with the credentials of one account."""

    def __init__(self, send: Send, credentials: Credentials, meter: Meter) -> None:
        self._send = send
        self._credentials = credentials
        self._meter = meter

    async def run(self, address: str) -> RemoteAccount:
        """The account's identity, origin and calendars. Raises a SyncError that says what was not found."""
        origin, host, path = _taken_apart(address)
        start = await self._about(origin, path) or await self._about(origin, WELL_KNOWN)
        if start is None:
            raise CalendarUnavailable("not_caldav", "neither the address nor its /.well-known/caldav speaks CalDAV")
        principal = _href(start, _PRINCIPAL, origin)
        homes = _hrefs(start, _HOME, origin)
        if not homes and principal is not None:
            about = await self._about(origin, principal)
            homes = [] if about is None else _hrefs(about, _HOME, origin)
        calendars = {
            calendar.provider_key: calendar
            for place in homes or [path]
            for calendar in await self._calendars(origin, place)
        }
        if not calendars:
            raise CalendarUnavailable("no_calendars", "the account has no calendar that holds events")
        identity = f"{principal or path}@{host}"
        return RemoteAccount(identity, origin, tuple(calendars.values()))

    async def _about(self, origin: str, path: str) -> Response | None:
        """What the server says of a path, or None where it does not speak CalDAV."""
        body = propfind(_PRINCIPAL, _HOME, _KIND)
        for _ in range(REDIRECTS):
            answer = await self._ask(origin, path, body, "0")
            if 300 <= answer.status < 400:
                target = path_of(answer.headers.get("Location", ""), origin + path)
                if target is None:
                    raise Refused(
                        "redirected_elsewhere",
                        "the server redirects to another host; give that address instead",
                    )
                path = target
                continue
            if answer.status in (408, 429) or (answer.status >= 500 and answer.status != 501):
                raise classify(answer, with_token=False)
            if answer.status != 207:
                return None
            found = parse(answer.body).responses
            return found[0] if found else None
        raise Transient("redirected", "the server keeps redirecting")

    async def _calendars(self, origin: str, home: str) -> list[RemoteCalendar]:
        body = propfind(_KIND, _NAME, _COMPONENTS)
        answer = await self._ask(origin, home, body, "1")
        if answer.status != 207:
            raise CalendarUnavailable(f"http_{answer.status}", "the calendar home cannot be listed")
        return [
            calendar
            for response in _responses(parse(answer.body))
            if (calendar := _calendar(response, origin)) is not None
        ]

    async def _ask(self, origin: str, path: str, body: bytes, depth: str) -> Answer:
        url = URL(origin + path, encoded=True)
        answer = await self._send("PROPFIND", url, body, self._credentials, self._meter, depth)
        if answer.status == 401:
            raise GrantRevoked("unauthorized", "the server refuses the name or the password")
        return answer


def _taken_apart(address: str) -> tuple[str, str, str]:
    """(origin, host with port, path) of the address that was typed."""
    try:
        parts = urlsplit(address.strip())
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        parts, port = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise Refused("address_malformed", "a CalDAV address should look like https://host/path, without a name in it")
    host = (f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname) + port
    path = quote(unquote(parts.path), safe=SAFE_IN_PATH) or "/"
    return f"{parts.scheme}://{host}", host, path


def _responses(answer: Multistatus) -> list[Response]:
    return [response for response in answer.responses if response.status in (None, 200)]


def _calendar(response: Response, origin: str) -> RemoteCalendar | None:
    kinds = {child.tag for child in children(response.properties.get(_KIND))}
    path = path_of(response.href, origin + "/")
    if CALDAV + "calendar" not in kinds or path is None:
        return None
    components = response.properties.get(_COMPONENTS)
    held = {child.get("name", "").upper() for child in children(components)}
    if held and "VEVENT" not in held:
        return None
    name = response.text(_NAME) or path.rstrip("/").rsplit("/", 1)[-1]
    return RemoteCalendar(path if path.endswith("/") else path + "/", name, None, None)


def _hrefs(response: Response, name: str, origin: str) -> list[str]:
    element = response.properties.get(name)
    paths = [
        path_of((child.text or "").strip(), origin + "/") for child in children(element) if child.tag == DAV + "href"
    ]
    return [path for path in paths if path is not None]


def _href(response: Response, name: str, origin: str) -> str | None:
    found = _hrefs(response, name, origin)
    return found[0] if found else None
