"""CalDAV over aiohttp: sync-collection and multiget, and a ladder down for servers without them.

The cursor says on which rung it was made: `sync:` and the server's token (RFC 6578), `ctag:` and the
collection's ctag, or `etags:` for servers that offer neither, whose collections are listed and compared
by etag each time. `sync:` with nothing behind it asks for everything again, after a listing that named what
was not given. A cursor of any other form (the popular `caldav` library invents `fake-…` ones, which hide
deletions) is void.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

from yarl import URL

from db.repositories.events import StagedRow
from tenantsync.calendars import caldav_events, caldav_xml
from tenantsync.calendars.caldav_discovery import Discovery, Send
from tenantsync.calendars.caldav_errors import classify
from tenantsync.calendars.caldav_xml import CALDAV, CALENDARSERVER, DAV, Multistatus, Response
from tenantsync.calendars.provider import ChangesWanted, Credentials, Listed, Page, RemoteAccount
from tenantsync.errors import (
    CursorVoid,
    Refused,
    Transient,
)
from tenantsync.outbound import Answer, Meter, Transport

QUERY_VERSION = 1
HREFS_PER_REQUEST = 50
RESOURCES_COMPARED = 500  # by one query for their etags
TRUNCATED_ANSWERS = 1000  # each of them has to bring a new token
RELIST = timedelta(days=7)  # servers are known to forget deletions; a full comparison of etags finds them

_ETAG = DAV + "getetag"
_DATA = CALDAV + "calendar-data"
_CTAG = CALENDARSERVER + "getctag"


@dataclass(frozen=True, slots=True)
class _Found:
    """A resource that a listing named: gone, or there with an etag."""

    resource: str
    etag: str | None
    gone: bool


class Caldav:
    """CalendarProvider for CalDAV servers (RFC 4791)."""

    name = "caldav"
    query_version = QUERY_VERSION

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def discover(self, credentials: Credentials, endpoint: str | None, meter: Meter) -> RemoteAccount:
        if endpoint is None:
            raise Refused("address_missing", "a CalDAV account needs the address of its server")
        return await Discovery(self._send, credentials, meter).run(endpoint)

    def relist_after(self, provider_key: str) -> timedelta | None:
        return RELIST

    async def changes(self, credentials: Credentials, wanted: ChangesWanted, meter: Meter) -> AsyncIterator[Page]:
        collection = _Collection(self._send, credentials, wanted, meter)
        rung, _, token = (wanted.cursor or "").partition(":")
        if wanted.cursor is None:
            pages = collection.everything()
        elif rung == "sync":
            pages = collection.since(token)
        elif rung in ("ctag", "etags"):
            pages = collection.since_ctag(token)
        else:
            raise CursorVoid("foreign_cursor")
        async for page in pages:
            yield page

    async def audit(self, credentials: Credentials, wanted: ChangesWanted, meter: Meter) -> AsyncIterator[Listed]:
        collection = _Collection(self._send, credentials, wanted, meter)
        answer = await collection.ask("REPORT", caldav_xml.all_events(), depth="1")
        collection.make_sure_it_is_ours(answer)
        for response in answer.responses:
            resource = collection.resource(response)
            ics = response.text(_DATA)
            if resource is not None and ics is not None and caldav_events.has_events(ics):
                yield Listed(resource, response.text(_ETAG), caldav_events.resource_digest(ics), visible=True)

    async def _send(
        self, method: str, url: URL, body: bytes, credentials: Credentials, meter: Meter, depth: str
    ) -> Answer:
        headers = {
            **await credentials.headers(meter),
            "Depth": depth,
            "Content-Type": "application/xml; charset=utf-8",
        }
        answer = await self._transport.request(method, url, headers=headers, data=body, meter=meter)
        if answer.status == 401:
            # Asked once more, because front ends of some servers lose the header when they restart.
            answer = await self._transport.request(method, url, headers=headers, data=body, meter=meter)
        return answer


class _Collection:
    """One calendar collection for the length of one run."""

    def __init__(self, send: Send, credentials: Credentials, wanted: ChangesWanted, meter: Meter) -> None:
        if wanted.endpoint is None:
            raise Refused("address_missing", "the account has no address")
        self._send = send
        self._credentials = credentials
        self._wanted = wanted
        self._meter = meter
        self._unanswered = False
        self._url = URL(wanted.endpoint.rstrip("/") + wanted.provider_key, encoded=True)

    async def since(self, token: str) -> AsyncIterator[Page]:
        """What changed since a sync token."""
        found, new_token = await self._sync(token)
        if await self._names_what_did_not_change(found):
            # Some servers answer a token they do not know with everything and no deletions: such an answer
            # is checked against a plain listing.
            async for page in self._compare(await self._etags(), "sync:" + new_token):
                yield page
            return
        async for page in self._fetch(found, "sync:" + new_token):
            yield page

    async def _names_what_did_not_change(self, found: Sequence[_Found]) -> bool:
        """Whether an answer to a token looks like everything there is. Etags tell; without them, the number does."""
        if not found or any(one.gone for one in found):
            return False
        sample = [one for one in found[:RESOURCES_COMPARED] if _strong(one.etag)]
        if not sample:
            return len(found) * 2 >= self._wanted.event_count
        known = await self._wanted.known([one.resource for one in sample])
        return any(known.get(one.resource) == one.etag for one in sample)

    async def since_ctag(self, ctag: str) -> AsyncIterator[Page]:
        """Nothing if the collection's ctag still stands; otherwise everything, compared by etag."""
        current = (await self._abilities())[1]
        if ctag and current == ctag:
            yield Page([], "ctag:" + ctag, full=False)
            return
        async for page in self._compare(await self._etags(), _listing_cursor(current)):
            yield page

    async def everything(self) -> AsyncIterator[Page]:
        """A full listing, by the best means that the server has."""
        can_sync, ctag = await self._abilities()
        if can_sync:
            found, token = await self._sync("")
            cursor = "sync:" + token
        else:
            found, cursor = await self._etags(), _listing_cursor(ctag)
        async for page in self._compare(found, cursor):
            yield page

    async def ask(self, method: str, body: bytes, *, depth: str) -> Multistatus:
        answer = await self._send(method, self._url, body, self._credentials, self._meter, depth)
        if answer.status != 207:
            raise classify(answer, with_token=False)
        return caldav_xml.parse(answer.body)

    def resource(self, response: Response) -> str | None:
        """The resource that a response is about; None for the collection itself and for other places."""
        path = self._path(response)
        home = self._wanted.provider_key
        return path if path.startswith(home) and path.rstrip("/") != home.rstrip("/") else None

    def _path(self, response: Response) -> str:
        return caldav_xml.path_of(response.href, str(self._url), any_origin=True) or ""

    def make_sure_it_is_ours(self, answer: Multistatus) -> None:
        """Raises Transient for a listing of another place: to skip all of it would look like an empty calendar."""
        home = self._wanted.provider_key.rstrip("/")
        paths = [self._path(one).rstrip("/") for one in answer.responses]
        others = [path for path in paths if path != home]
        if others and not any(path.startswith(home + "/") for path in others):
            raise Transient("elsewhere", "the server lists resources of another place than was asked for")

    async def _abilities(self) -> tuple[bool, str | None]:
        """(knows sync-collection?, ctag) of the collection."""
        body = caldav_xml.propfind(DAV + "supported-report-set", _CTAG)
        answer = await self.ask("PROPFIND", body, depth="0")
        if not answer.responses:
            raise Transient("protocol", "the server says nothing about the collection")
        about = answer.responses[0]
        reports = about.properties.get(DAV + "supported-report-set")
        can_sync = reports is not None and any(one.tag == DAV + "sync-collection" for one in reports.iter())
        return can_sync, about.text(_CTAG)

    async def _sync(self, token: str) -> tuple[list[_Found], str]:
        """sync-collection until the server has no more; a 507 for the collection means that it has."""
        latest: dict[str, _Found] = {}
        for _ in range(TRUNCATED_ANSWERS):
            answer = await self._send(
                "REPORT", self._url, caldav_xml.sync_collection(token), self._credentials, self._meter, "0"
            )
            if answer.status != 207:
                raise classify(answer, with_token=bool(token))
            part = caldav_xml.parse(answer.body)
            if not part.sync_token:
                raise Transient("no_cursor", "the answer has no sync token")
            self.make_sure_it_is_ours(part)
            truncated = False
            for response in part.responses:
                resource = self.resource(response)
                if resource is None:
                    truncated = truncated or response.status == 507
                    continue
                latest[resource] = _Found(resource, response.text(_ETAG), response.status in (404, 410))
            if not truncated:
                return list(latest.values()), part.sync_token
            if part.sync_token == token:
                raise Transient("paging", "the server cuts its answer short and gives the same token again")
            token = part.sync_token
        raise Transient("paging", f"the server cut its answer short {TRUNCATED_ANSWERS} times")

    async def _etags(self) -> list[_Found]:
        answer = await self.ask("PROPFIND", caldav_xml.propfind(_ETAG, DAV + "resourcetype"), depth="1")
        self.make_sure_it_is_ours(answer)
        found = []
        for response in answer.responses:
            resource = self.resource(response)
            kind = response.properties.get(DAV + "resourcetype")
            if resource is not None and not any(True for _ in caldav_xml.children(kind)):
                found.append(_Found(resource, response.text(_ETAG), gone=False))
        return found

    async def _compare(self, found: Sequence[_Found], cursor: str) -> AsyncIterator[Page]:
        """A full listing: resources whose etag we hold are kept as they are, the others fetched."""
        there = [one for one in found if not one.gone]
        seq = 0
        for chunk in _chunks(there, RESOURCES_COMPARED):
            known = await self._wanted.known([one.resource for one in chunk])
            kept = [one for one in chunk if _strong(one.etag) and known.get(one.resource) == one.etag]
            rows = [StagedRow(str(seq + n), "k", None, None, one.resource, one.etag) for n, one in enumerate(kept)]
            seq += len(rows)
            if rows:
                yield Page(rows, None, full=True)
            unchanged = {one.resource for one in kept}
            for part in _chunks([one for one in chunk if one.resource not in unchanged], HREFS_PER_REQUEST):
                rows = await self._bodies([one.resource for one in part], seq)
                seq += len(part)
                yield Page(rows, None, full=True)
        if self._unanswered:
            cursor = cursor.partition(":")[0].replace("ctag", "etags") + ":"  # compare everything again next time
        yield Page([], cursor, full=True)

    async def _fetch(self, found: Sequence[_Found], cursor: str) -> AsyncIterator[Page]:
        """What a delta names."""
        gone = [StagedRow(str(n), "d", None, None, one.resource) for n, one in enumerate(found) if one.gone]
        seq = len(found)
        if gone:
            yield Page(gone, None, full=False)
        for part in _chunks([one for one in found if not one.gone], HREFS_PER_REQUEST):
            rows = await self._bodies([one.resource for one in part], seq)
            seq += len(part)
            yield Page(rows, None, full=False)
        # What was not given is asked for again: the old cursor names it, and the rest of it changes nothing.
        yield Page([], self._wanted.cursor if self._unanswered else cursor, full=False)

    async def _bodies(self, resources: Sequence[str], seq: int) -> list[StagedRow]:
        """Rows of these resources. One that is gone by now is a deletion: it is one soon anyway.

        One that the server names and does not give, or gives in a form that spoils the answer, is set aside and the
        cursor stays. Raises Transient if that is so for all of them: then it is the server, not the resource.
        """
        rows, unanswered = await self._multiget(resources, seq)
        if unanswered:
            if len(unanswered) == len(resources):
                raise Transient("protocol", f"the server leaves all {len(resources)} resources asked for unanswered")
            self._unanswered = True
            rows += [
                caldav_events.set_aside(resource, None, seq + len(resources) - 1, "named by the server, but not given")
                for resource in unanswered
            ]
        return rows

    async def _multiget(self, resources: Sequence[str], seq: int) -> tuple[list[StagedRow], list[str]]:
        """(rows, resources without an answer); where an answer is not XML, halves are asked for apart."""
        try:
            answer = await self.ask("REPORT", caldav_xml.multiget(resources), depth="1")
        except Transient as error:
            if error.reason != "not_xml":
                raise
            if len(resources) == 1:
                return [], list(resources)
            middle = len(resources) // 2
            rows, unanswered = await self._multiget(resources[:middle], seq)
            more, also = await self._multiget(resources[middle:], seq + middle)
            return rows + more, unanswered + also
        rows = []
        missing = dict.fromkeys(resources)
        for response in answer.responses:
            resource = self.resource(response)
            if resource is None or resource not in missing:
                continue
            number = str(seq + len(resources) - len(missing))
            ics = response.text(_DATA)
            if ics is not None:
                made = caldav_events.staged(resource, response.text(_ETAG), ics, int(number))
                # A resource without events (a task, a journal) may have held one before.
                rows.extend(made or [StagedRow(number, "d", None, None, resource)])
            elif response.status in (404, 410):
                rows.append(StagedRow(number, "d", None, None, resource))
            else:
                continue
            del missing[resource]
        return rows, list(missing)


def _listing_cursor(ctag: str | None) -> str:
    return f"ctag:{ctag}" if ctag else "etags:"


def _strong(etag: str | None) -> bool:
    return etag is not None and not etag.startswith("W/")


def _chunks(items: Sequence[_Found], size: int) -> Iterator[list[_Found]]:
    source = iter(items)
    while chunk := list(islice(source, size)):
        yield chunk
