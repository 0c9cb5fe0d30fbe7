"""The port to calendar providers. `tests/contract/provider_contract.py` runs against every adapter."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from db.repositories.events import StagedRow
from tenantsync.outbound import Meter

KnownEtags = Callable[[Sequence[str]], Awaitable[Mapping[str, str | None]]]
"""Given resources of a calendar, answers the etags that we hold of them; unknown ones are absent."""


class Credentials(Protocol):
    """What authenticates an account's requests. One object serves all calendars of the account in a run."""

    async def headers(self, meter: Meter) -> Mapping[str, str]:
        """Headers to send. May ask the provider for an access token first; at most one such request is under way."""
        ...

    async def renewed(self, refused: Mapping[str, str], meter: Meter) -> Mapping[str, str] | None:
        """Headers to try once after a 401 to `refused`; None where the account has nothing to renew."""
        ...


@dataclass(frozen=True, slots=True)
class RemoteCalendar:
    """A calendar as its provider lists it. `provider_key` identifies it within the account, for ever."""

    provider_key: str
    name: str
    time_zone: str | None
    access_role: str | None


@dataclass(frozen=True, slots=True)
class RemoteAccount:
    """What discovery found: who the account is, where its requests go, and its calendars."""

    identity: str
    endpoint: str | None
    calendars: tuple[RemoteCalendar, ...]


@dataclass(frozen=True, slots=True)
class ChangesWanted:
    """Which changes a run asks for. `cursor` None asks for a full listing."""

    provider_key: str
    endpoint: str | None
    cursor: str | None
    event_count: int
    """Events that we hold: lets an adapter notice a server that answers a delta with everything."""
    known: KnownEtags
    time_zone: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the answer. `cursor` stands on the last page alone, and a last page always has one.

    `full` is the same on every page of one answer: True when the pages together name everything that the
    calendar has, so that what they do not name is gone. It may be True although a cursor was given,
    when the server turned out to answer with everything.
    """

    rows: Sequence[StagedRow]
    cursor: str | None
    full: bool


@dataclass(frozen=True, slots=True)
class Listed:
    """One resource as the audit sees it: its identity, its etag and the digest of its raw data."""

    resource: str
    etag: str | None
    digest: str
    visible: bool
    """False for what a calendar does not show, such as the cancelled instance of a series."""


class CalendarProvider(Protocol):
    """A provider of calendars. Stateless: everything that lasts is in Postgres.

    The contract, for every adapter:

    * Errors are SyncErrors (tenantsync/errors.py) and nothing else.
    * A failed answer never looks like a quiet one. HTML with status 200, a body that is cut short, an
      answer without cursor and without next page: each raises; no page is ever made up.
    * `changes` yields pages in the provider's order; within one answer the later row of a resource
      wins (`seq` grows). Asking again with the same cursor gives the same outcome. The cursor of the
      last page covers all pages of the answer, and changes that came while it was read appear in it or
      in the next.
    * A void cursor raises CursorVoid before or between pages; the caller then asks for everything.
    * An item that cannot be an event is a row of kind `q` with its reason; the others go on.
    * Paging ends: a page token that repeats, or more pages than a calendar can have, raises.
    * Nothing is fetched from an address that the account's own address does not vouch for.
    """

    name: str
    query_version: int
    """Grows when parameters, fields or parsing change; cursors of another version are not used."""

    async def discover(self, credentials: Credentials, endpoint: str | None, meter: Meter) -> RemoteAccount:
        """Who the account is and which calendars it has. `endpoint` is what the tenant typed, if anything."""
        ...

    def changes(self, credentials: Credentials, wanted: ChangesWanted, meter: Meter) -> AsyncIterator[Page]:
        """What changed since the cursor, or everything."""
        ...

    def relist_after(self, provider_key: str) -> timedelta | None:
        """How old a full listing may grow before the cursor alone is not trusted; None: as old as it likes."""
        ...

    def audit(self, credentials: Credentials, wanted: ChangesWanted, meter: Meter) -> AsyncIterator[Listed]:
        """Everything that the calendar has now, by another request than `changes` uses."""
        ...
