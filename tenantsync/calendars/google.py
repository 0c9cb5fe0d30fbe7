"""Google Calendar v3 over aiohttp.

The query is fixed (docs/decisions/0006-google-query.md): series and their exceptions are stored as they
are, and expanded by whoever shows them. `singleEvents=true` and time windows are the source of most
defects reported against such connectors.
"""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import orjson
from yarl import URL

from db.repositories.events import StagedRow
from tenantsync.calendars import google_events
from tenantsync.calendars.digests import digest
from tenantsync.calendars.google_errors import classify
from tenantsync.calendars.provider import (
    ChangesWanted,
    Credentials,
    Listed,
    Page,
    RemoteAccount,
    RemoteCalendar,
)
from tenantsync.errors import Transient
from tenantsync.outbound import Answer, Meter, Transport

QUERY_VERSION = 1
PAGE_SIZE = 2500
PAGE_LIMIT = 2000  # five million events; a server that still has a next page is not paging
GENERATED_SUFFIXES = ("#holiday@group.v.calendar.google.com", "#contacts@group.v.calendar.google.com")
RELIST_GENERATED = timedelta(days=1)
_FIXED = f"maxResults={PAGE_SIZE}&showDeleted=true&singleEvents=false"

Json = dict[str, Any]


class GoogleCalendar:
    """CalendarProvider for Google."""

    name = "google"
    query_version = QUERY_VERSION

    def __init__(self, transport: Transport, *, base: str) -> None:
        self._transport = transport
        self._base = base if base.endswith("/") else base + "/"

    async def discover(self, credentials: Credentials, endpoint: str | None, meter: Meter) -> RemoteAccount:
        """All calendars of the account's list; `primary` is resolved to the id behind it, the e-mail address."""
        found: list[RemoteCalendar] = []
        identity: str | None = None
        async for body in self._pages(credentials, "users/me/calendarList", "maxResults=250", meter):
            for entry in _items(body):
                if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
                    raise Transient("protocol", "the calendar list holds an entry without an id")
                if entry.get("primary"):
                    identity = entry["id"]
                found.append(_remote_calendar(entry))
        if identity is None:
            raise Transient("protocol", "the calendar list names no primary calendar")
        return RemoteAccount(identity, None, tuple(found))

    async def changes(self, credentials: Credentials, wanted: ChangesWanted, meter: Meter) -> AsyncIterator[Page]:
        query = _FIXED if wanted.cursor is None else f"{_FIXED}&syncToken={quote(wanted.cursor, safe='')}"
        path = f"calendars/{quote(wanted.provider_key, safe='')}/events"
        seq = 0
        async for body in self._pages(credentials, path, query, meter, with_cursor=wanted.cursor is not None):
            items = _items(body)
            rows: list[StagedRow] = [google_events.staged(item, number) for number, item in enumerate(items, seq + 1)]
            seq += len(rows)
            last = "nextPageToken" not in body
            yield Page(rows, body["nextSyncToken"] if last else None, full=wanted.cursor is None)

    def relist_after(self, provider_key: str) -> timedelta | None:
        # Google's generated calendars never report deletions in a delta (WebhookDB #771).
        return RELIST_GENERATED if provider_key.endswith(GENERATED_SUFFIXES) else None

    async def audit(self, credentials: Credentials, wanted: ChangesWanted, meter: Meter) -> AsyncIterator[Listed]:
        # Another question than the sync asks: what is there now, without tombstones and without tokens.
        query = "maxResults=1000&showDeleted=false&singleEvents=false"
        path = f"calendars/{quote(wanted.provider_key, safe='')}/events"
        async for body in self._pages(credentials, path, query, meter, expect_sync_token=False):
            for item in _items(body):
                raw = orjson.dumps(item, option=orjson.OPT_SORT_KEYS) if _sortable(item) else b""
                yield Listed(str(item.get("id")), item.get("etag"), digest(raw), item.get("status") != "cancelled")

    async def _pages(
        self,
        credentials: Credentials,
        path: str,
        query: str,
        meter: Meter,
        *,
        with_cursor: bool = False,
        expect_sync_token: bool | None = None,
    ) -> AsyncIterator[Json]:
        """Every page of a list request; each repeats the whole query and adds its page token."""
        if expect_sync_token is None:
            expect_sync_token = path.endswith("/events")
        token: str | None = None
        for _ in range(PAGE_LIMIT):
            text = query if token is None else f"{query}&pageToken={quote(token, safe='')}"
            url = URL(f"{self._base}{path}?{text}", encoded=True)
            body = _object(await self._get(credentials, url, meter, with_cursor=with_cursor))
            following = body.get("nextPageToken")
            if following is None:
                if expect_sync_token and not _is_token(body.get("nextSyncToken")):
                    raise Transient("no_cursor", "the last page has neither a next page nor a sync token")
                yield body
                return
            if not _is_token(following) or following == token:
                raise Transient("paging", "the server repeats a page token")
            token = following
            yield body
        raise Transient("paging", f"the server has more than {PAGE_LIMIT} pages")

    async def _get(self, credentials: Credentials, url: URL, meter: Meter, *, with_cursor: bool) -> Answer:
        headers = await credentials.headers(meter)
        answer = await self._transport.request("GET", url, headers=headers, meter=meter)
        if answer.status == 401:
            again = await credentials.renewed(headers, meter)
            if again is not None:
                answer = await self._transport.request("GET", url, headers=again, meter=meter)
        if answer.status != 200:
            raise classify(answer, with_cursor=with_cursor)
        return answer


def _items(body: Json) -> list[Any]:
    """A page's entries. Raises Transient for an object that is no page, such as `{}`."""
    items = body.get("items", [] if str(body.get("kind")).startswith("calendar#") else None)
    if not isinstance(items, list):
        raise Transient("protocol", "the answer is no page of a list")
    return items


def _is_token(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _sortable(item: Any) -> bool:
    try:
        orjson.dumps(item, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return False
    return isinstance(item, dict)


def _object(answer: Answer) -> Json:
    """The JSON object of a 200 answer, or Transient."""
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        body = _lenient(answer.body)
    if not isinstance(body, dict) or "error" in body:
        raise Transient("not_json", "status 200 with a body that is not the JSON object asked for")
    return body


def _lenient(body: bytes) -> Any:
    # orjson refuses a whole page for one lone surrogate; the standard library reads it, and the one
    # event that holds it is set aside.
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Transient("not_json", "status 200 with a body that is not JSON") from None


def _remote_calendar(entry: Json) -> RemoteCalendar:
    name = entry.get("summaryOverride") or entry.get("summary") or entry["id"]
    return RemoteCalendar(entry["id"], str(name), entry.get("timeZone"), entry.get("accessRole"))
