"""What the contract's tests work with: a door to an adapter, a store made of pages, and a provider to change."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from db.repositories.events import StagedRow
from tenantsync.calendars.provider import CalendarProvider, ChangesWanted, Credentials, Listed, Page
from tenantsync.outbound import Meter


@dataclass(frozen=True, slots=True)
class Door:
    """An adapter with what it needs to ask for one calendar."""

    provider: CalendarProvider
    credentials: Credentials
    endpoint: str | None
    calendar: str

    def wanted(self, held: "Held") -> ChangesWanted:
        return ChangesWanted(self.calendar, self.endpoint, held.cursor, len(held.rows), held.known)

    def changes(self, held: "Held") -> AsyncIterator[Page]:
        return self.provider.changes(self.credentials, self.wanted(held), Meter())

    async def audit(self) -> dict[str, Listed]:
        wanted = self.wanted(Held())
        return {one.resource: one async for one in self.provider.audit(self.credentials, wanted, Meter())}


class Held:
    """One calendar as a store would hold it, built from nothing but pages."""

    def __init__(self) -> None:
        self.rows: dict[str, list[StagedRow]] = {}
        self.aside: dict[str, str] = {}
        self.cursor: str | None = None

    def copy(self) -> Self:
        twin = type(self)()
        twin.rows, twin.aside, twin.cursor = dict(self.rows), dict(self.aside), self.cursor
        return twin

    async def known(self, resources: Sequence[str]) -> dict[str, str | None]:
        return {name: self.rows[name][0].etag for name in resources if name in self.rows}

    async def take(self, door: Door) -> list[Page]:
        """Ask by the cursor, and apply the answer once it is complete."""
        pages = [page async for page in door.changes(self)]
        self.apply(pages)
        return pages

    def apply(self, pages: Sequence[Page]) -> None:
        latest: dict[str, list[StagedRow]] = {}
        for row in (row for page in pages for row in page.rows):
            found = latest.setdefault(row.resource, [])
            if found and int(row.seq) > int(found[0].seq):
                found.clear()
            if not found or int(row.seq) == int(found[0].seq):
                found.append(row)
        gone = set(self.rows) - set(latest) if pages[-1].full else set()
        gone |= {name for name, rows in latest.items() if rows[0].kind in "dq"}
        self.rows = {name: rows for name, rows in self.rows.items() if name not in gone}
        self.rows |= {name: rows for name, rows in latest.items() if rows[0].kind == "u"}
        self.aside = {name: rows[0].title or "" for name, rows in latest.items() if rows[0].kind == "q"}
        missed = {name for name, rows in latest.items() if rows[0].kind == "k"} - set(self.rows)
        assert not missed, f"kept, but never sent: {missed}"
        self.cursor = pages[-1].cursor

    def titles(self) -> dict[str, str | None]:
        """Titles of what a person would see, by resource."""
        return {
            name: row.title
            for name, rows in self.rows.items()
            for row in rows
            if row.series_key is None and row.status != "cancelled"
        }

    def digests(self) -> dict[str, set[str | None]]:
        return {name: {row.digest for row in rows} for name, rows in self.rows.items()}


class There(ABC):
    """One account with two calendars at a real server: our doors to them, and another client's hands on them."""

    doors: tuple[Door, Door]

    @property
    def door(self) -> Door:
        return self.doors[0]

    @abstractmethod
    def put(
        self, name: str, title: str = "Stand-up", *, second: bool = False, description: str = "", zone: str = "UTC"
    ) -> None:
        """Create or change the event of this name (letters a to v and digits), on 1 December 2026, 9:00 to 10:00."""

    @abstractmethod
    def fill(self, titles: Mapping[str, str], *, second: bool = False) -> None:
        """Put many at once into a calendar that is empty."""

    @abstractmethod
    def delete(self, *names: str) -> None: ...

    @abstractmethod
    def poison(self) -> str:
        """Put something that cannot be an event; the resource that it is."""

    @abstractmethod
    def void_cursors(self) -> None: ...

    @abstractmethod
    def remove_calendar(self) -> None: ...

    @abstractmethod
    def titles(self, *, second: bool = False) -> dict[str, str]:
        """What is there, by resource."""

    @abstractmethod
    def stranger(self) -> Door:
        """The same calendar with credentials that the provider refuses."""

    @abstractmethod
    def small_pages(self) -> int:
        """Make answers come in several pages; events that fill three of them."""

    @abstractmethod
    def fresh(self) -> Door:
        """The same door, through an adapter that has never been used."""


Call = Callable[[Door, Held], Awaitable[None]]


async def changes(door: Door, held: Held) -> None:
    await Held().take(door)


async def further_changes(door: Door, held: Held) -> None:
    await held.copy().take(door)


async def audit(door: Door, held: Held) -> None:
    await door.audit()


async def discover(door: Door, held: Held) -> None:
    await door.provider.discover(door.credentials, door.endpoint, Meter())


CALLS = [changes, further_changes, audit, discover]
