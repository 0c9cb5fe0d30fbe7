"""What the server holds: accounts, their calendars, and per calendar the events and a log of changes."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from sandbox.google.codec import JsonDict, compact, decode, encode, etag_of, iso_ms

ROLES = ("freeBusyReader", "reader", "writerWithoutPrivateAccess", "writer", "owner")


@dataclass(slots=True)
class Row:
    """One event as it is now. `bare` is set when it is cancelled, `orphaned` when its master was deleted."""

    id: str
    ordinal: int
    revision: int
    updated_ms: int
    body: bytes
    master: str | None = None
    bare: bytes | None = None
    orphaned: bool = False

    @property
    def cancelled(self) -> bool:
        return self.bare is not None

    def resource(self) -> JsonDict:
        return decode(self.body)


@dataclass(slots=True)
class Profile:
    """What a calendar says about itself, on its own and in its account's list."""

    summary: str
    description: str = ""
    time_zone: str = "Europe/Berlin"
    access_role: str = "owner"
    primary: bool = False
    selected: bool = True
    hidden: bool = False
    deleted: bool = False
    summary_override: str | None = None
    color_id: str = "1"
    reports_deletions: bool = True


class Calendar:
    """Events in the order they first came, and a log in the order they changed.

    A full list walks the first, a delta the second, so both page by a number that no later change moves.
    """

    def __init__(self, *, owner: str, calendar_id: str, number: int, profile: Profile, stamp: int) -> None:
        self.owner = owner
        self.id = calendar_id
        self.number = number
        self.profile = profile
        self.rows: dict[str, Row] = {}
        self.order: list[str] = []
        self.exceptions: dict[str, set[str]] = {}
        self.revision = 0
        self.updated_ms = stamp
        self.listed_ms = stamp
        self.list_revision = 0
        self.tokens_valid_from = 0
        self.quiet_tokens: dict[int, tuple[int, str]] = {}
        self._log: list[Row] = []
        self._head: tuple[int, bytes] = (-1, b"")

    def put(
        self,
        resource: JsonDict,
        *,
        stamp: int,
        master: str | None = None,
        keep_updated: bool = False,
    ) -> Row:
        """Writes an event as the next revision; the status in it decides whether it is cancelled."""
        resource["etag"] = etag_of(stamp)
        if not keep_updated:
            resource["updated"] = iso_ms(stamp)
        cancelled = resource.get("status") == "cancelled"
        return self.put_encoded(
            resource["id"],
            encode(resource),
            stamp=stamp,
            master=master,
            bare=encode(bare_of(resource)) if cancelled else None,
        )

    def put_encoded(
        self, event_id: str, body: bytes, *, stamp: int, master: str | None = None, bare: bytes | None = None
    ) -> Row:
        known = self.rows.get(event_id)
        if known is None:
            ordinal = len(self.order)
            self.order.append(event_id)
        else:
            ordinal = known.ordinal
        if master is not None:
            self.exceptions.setdefault(master, set()).add(event_id)
        self.revision += 1
        self.updated_ms = stamp
        row = Row(event_id, ordinal, self.revision, stamp, compact(body), master, bare and compact(bare))
        self.rows[event_id] = row
        self._log.append(row)
        if len(self._log) > 2 * len(self.rows) + 1024:
            self._log = [row for row in self._log if self.rows[row.id] is row]
        return row

    def changes(self, *, after: int, upto: int) -> Iterator[Row]:
        """The rows whose newest change lies in (after, upto], oldest change first: one entry per id."""
        for index in range(bisect_right(self._log, after, key=lambda row: row.revision), len(self._log)):
            row = self._log[index]
            if row.revision > upto:
                return
            if self.rows[row.id] is row:
                yield row

    def from_ordinal(self, position: int) -> Iterator[Row]:
        for index in range(position, len(self.order)):
            yield self.rows[self.order[index]]

    def exceptions_of(self, master: str) -> list[Row]:
        rows = (self.rows[event_id] for event_id in self.exceptions.get(master, ()))
        return sorted(rows, key=lambda row: row.ordinal)

    def living(self, event_id: str | None) -> bool:
        row = self.rows.get(event_id) if event_id is not None else None
        return row is not None and not row.cancelled and not row.orphaned

    def head(self) -> bytes:
        """The part of a list's body that stands before its items, cached until the calendar changes."""
        if self._head[0] != self.revision or not self._head[1]:
            self._head = (self.revision, encode(self.headline())[:-1])
        return self._head[1]

    def forget_head(self) -> None:
        self._head = (-1, b"")

    def headline(self) -> JsonDict:
        return {
            "kind": "calendar#events",
            "etag": f'"p{self.number:08x}{self.revision:08x}"',
            "summary": self.profile.summary,
            "description": self.profile.description,
            "updated": iso_ms(self.updated_ms),
            "timeZone": self.profile.time_zone,
            "accessRole": self.profile.access_role,
            "defaultReminders": [{"method": "popup", "minutes": 10}],
        }

    def entry(self) -> JsonDict:
        """The calendar as an entry of its account's list."""
        head = {"kind": "calendar#calendarListEntry", "etag": etag_of(self.listed_ms), "id": self.id}
        profile = self.profile
        if profile.deleted:
            return head | {"deleted": True}
        entry: JsonDict = head | {
            "summary": profile.summary,
            "description": profile.description,
            "timeZone": profile.time_zone,
            "colorId": profile.color_id,
            "backgroundColor": "#ac725e",
            "foregroundColor": "#1d1d1d",
            "accessRole": profile.access_role,
            "defaultReminders": [{"method": "popup", "minutes": 10}],
            "conferenceProperties": {"allowedConferenceSolutionTypes": ["hangoutsMeet"]},
        }
        # Google leaves out what is false, so a reader must not need these keys.
        flags = {"selected": profile.selected, "hidden": profile.hidden, "primary": profile.primary}
        entry |= {key: True for key, value in flags.items() if value}
        if profile.summary_override is not None:
            entry["summaryOverride"] = profile.summary_override
        return entry


@dataclass(slots=True)
class Account:
    """A Google user who granted this client access; `number` owns the tokens of the calendar list."""

    email: str
    number: int
    refresh_token: str
    revoked: bool = False
    calendars: dict[str, Calendar] = field(default_factory=dict)
    list_revision: int = 0
    tokens_valid_from: int = 0
    quiet_tokens: dict[int, tuple[int, str]] = field(default_factory=dict)

    def touch(self, calendar: Calendar, stamp: int) -> None:
        """Notes that the calendar's entry in the list changed."""
        self.list_revision += 1
        calendar.list_revision = self.list_revision
        calendar.listed_ms = stamp

    def find(self, calendar_id: str) -> Calendar | None:
        """`primary` is an alias of the account's own calendar."""
        calendar = self.calendars.get(self.email if calendar_id == "primary" else calendar_id)
        return None if calendar is None or calendar.profile.deleted else calendar


def bare_of(resource: JsonDict) -> JsonDict:
    """What is left of a cancelled event; one of a series keeps the two keys that place it."""
    kept = ("kind", "etag", "id", "status", "recurringEventId", "originalStartTime")
    return {key: resource[key] for key in kept if key in resource}
