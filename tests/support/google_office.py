"""One tenant with one Google account and one calendar, the stage of most tests of the Google adapter.

The fixtures are in `google_fixtures.py`: `pytest_plugins = ["tests.support.google_fixtures"]`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from config.queues import Lane
from db.repositories import units
from sandbox.google.control import GoogleControl
from sandbox.google.specs import AccountInfo, Edit, LoggedRequest, SeedSpec
from tests.support.fleet import Fleet, TenantHandle, events_equal_truth
from tests.support.wiretap import JsonDict

ANN = "ann@example.test"
SERIES_START = "2026-12-01T10:00:00+01:00"
"""The first occurrence of `weekly`; the next ones follow on the 8th, 15th, 22nd and so on, at 09:00 UTC."""


def meeting(number: int = 1, **fields: Any) -> JsonDict:
    """A plain event with an id of its own; fields override."""
    day = date(2026, 12, 1) + timedelta(days=number % 300)
    return {
        "id": f"meeting{number:05d}",
        "summary": f"Meeting {number}",
        "start": {"dateTime": f"{day}T10:00:00+01:00", "timeZone": "Europe/Berlin"},
        "end": {"dateTime": f"{day}T11:00:00+01:00", "timeZone": "Europe/Berlin"},
        **fields,
    }


def meetings(count: int, first: int = 1) -> list[JsonDict]:
    return [meeting(number) for number in range(first, first + count)]


def weekly(name: str = "standup", **fields: Any) -> JsonDict:
    """A series on Tuesdays at ten, from 2026-12-01 on."""
    return {
        "id": name,
        "summary": f"Series {name}",
        "start": {"dateTime": SERIES_START, "timeZone": "Europe/Berlin"},
        "end": {"dateTime": "2026-12-01T10:30:00+01:00", "timeZone": "Europe/Berlin"},
        "recurrence": ["RRULE:FREQ=WEEKLY;BYDAY=TU"],
        **fields,
    }


def daily_all_day(name: str = "oncall", **fields: Any) -> JsonDict:
    """An all-day series from 2026-12-01 on."""
    return {
        "id": name,
        "summary": f"Series {name}",
        "start": {"date": "2026-12-01"},
        "end": {"date": "2026-12-02"},
        "recurrence": ["RRULE:FREQ=DAILY;COUNT=30"],
        **fields,
    }


def instance(day: str) -> str:
    """The last part of an occurrence's id: of `weekly` for a day like 20261208, else as it is given."""
    return day if "T" in day else f"{day}T090000Z"


def exception(master: str = "standup", day: str = "20261208", **fields: Any) -> JsonDict:
    """An exception of `weekly`, as Google writes it; its master need not be there."""
    iso = f"{day[:4]}-{day[4:6]}-{day[6:]}"
    return {
        "id": f"{master}_{instance(day)}",
        "summary": f"Override of {day}",
        "start": {"dateTime": f"{iso}T14:00:00+01:00", "timeZone": "Europe/Berlin"},
        "end": {"dateTime": f"{iso}T14:30:00+01:00", "timeZone": "Europe/Berlin"},
        "recurringEventId": master,
        "originalStartTime": {"dateTime": f"{iso}T10:00:00+01:00", "timeZone": "Europe/Berlin"},
        **fields,
    }


@dataclass(frozen=True, slots=True)
class Office:
    """A tenant, its account and one of the account's calendars."""

    fleet: Fleet
    google: GoogleControl
    tenant: TenantHandle
    account: AccountInfo
    key: str

    @property
    def email(self) -> str:
        return self.account.email

    def at(self, key: str) -> "Office":
        """The same office, looked at from another of its calendars."""
        return replace(self, key=key)

    # At Google

    def seed(self, *events: JsonDict, raw: bool = False) -> list[str]:
        """Put events into the calendar, as they are."""
        return self.google.seed_events(self.email, self.key, events, raw=raw)

    def fill(self, **spec: Any) -> None:
        """Events by the thousand; the arguments are a SeedSpec's."""
        self.google.seed(self.email, self.key, SeedSpec(**spec))

    def delete(self, *events: str) -> None:
        self.google.apply([Edit(kind="delete", account=self.email, calendar=self.key, event=event) for event in events])

    def patch(self, event: str, **body: Any) -> JsonDict:
        return self.google.patch(self.email, self.key, event, body)

    def override(self, day: str, master: str = "standup", **body: Any) -> JsonDict:
        """Change one occurrence of a series; `day` like 20261208."""
        return self.google.override_instance(self.email, self.key, master, instance(day), body)

    def cancel(self, day: str, master: str = "standup") -> None:
        self.google.cancel_instance(self.email, self.key, master, instance(day))

    def churn(self, edits: int) -> None:
        self.google.churn(edits, account=self.email, calendar=self.key)

    def expire(self) -> None:
        """Google forgets every sync token of the calendar."""
        self.google.expire_sync_tokens(account=self.email, calendar=self.key)

    def edit_on_both_sides(self) -> set[str]:
        """Change, delete and add, so that a page of `meetings(6)` that was read and one that was not are both stale."""
        self.patch("meeting00001", summary="changed after it was read")
        self.patch("meeting00005", summary="changed before it was read")
        self.delete("meeting00002", "meeting00006")
        self.seed(meeting(7))
        return {f"meeting{number:05d}" for number in (1, 2, 5, 6, 7)}

    # Running; each answers which lists of the calendar Google was asked for

    def sync(self) -> list[LoggedRequest]:
        """One more sync of the tenant."""
        return self._watched(lambda: self.fleet.sync(self.tenant))

    def sync_alone(self) -> list[LoggedRequest]:
        """One more sync of this calendar and none of the others."""
        self.fleet.due(self.tenant)
        self._update("next_due_at = now() + interval '1 hour'", "provider_key <> :key")
        return self.run()

    def run(self) -> list[LoggedRequest]:
        """Run what is due by itself."""
        return self._watched(self.fleet.run)

    def _watched(self, work: Callable[[], object]) -> list[LoggedRequest]:
        before = max((entry.seq for entry in self.google.requests()), default=0)
        work()
        return self.google.requests(since=before, account=self.email, calendar=self.key, endpoint="events.list")

    # In the database

    def use_cursor(self, cursor: str | None) -> None:
        """Put another cursor into the database."""
        self._update("cursor = :cursor", cursor=cursor)

    def use_older_query(self) -> None:
        """The calendar was last synced by a version of the code that asked Google something else."""
        self._update("query_version = query_version - 1")

    def days_pass(self, days: int) -> None:
        """The last full listing lies further back."""
        self._update("listed_at = listed_at - :days * interval '1 day'", days=days)

    def _update(self, change: str, which: str = "provider_key = :key", **values: object) -> None:
        self.fleet.execute(
            f"update sync.calendars set {change} where tenant_id = :tenant and {which}",
            tenant=self.tenant.tenant_id,
            key=self.key,
            **values,
        )

    def lose_lease(self) -> None:
        """The lease of the unit's run ends, as if its worker were dead, and a dispatcher notices at its next look."""
        with self.fleet.database.transaction() as connection:
            connection.execute(text("update sync.units set lease_until = now() - interval '1 second'"))
            connection.execute(text("update sync.turns set ready_at = now()"))
            units.claim(connection, lane=Lane.SYNC, limit=10)

    @property
    def calendar(self) -> dict[str, Any]:
        return self.fleet.calendar(self.tenant, self.key)

    @property
    def health(self) -> tuple[str, int]:
        """The calendar's state and its failures in a row."""
        return self.calendar["state"], self.calendar["failures"]

    @property
    def events(self) -> dict[str, dict[str, Any]]:
        return self.fleet.events(self.tenant, self.key)

    @property
    def visible(self) -> set[str]:
        return self.fleet.visible(self.tenant, self.key)

    @property
    def titles(self) -> dict[str, str | None]:
        """Read apart, because Python cannot hold every moment that Postgres can."""
        where = self.calendar["calendar_id"]
        found = self.fleet.rows("select provider_key, title from sync.events where calendar_id = :id", id=where)
        return {row["provider_key"]: row["title"] for row in found}

    @property
    def versions(self) -> dict[str, int]:
        return {key: row["version"] for key, row in self.events.items()}

    @property
    def tombstones(self) -> dict[str, dict[str, Any]]:
        return self.fleet.tombstones(self.tenant)

    @property
    def set_aside(self) -> dict[str, str]:
        return self.fleet.set_aside(self.tenant)

    @property
    def outbox(self) -> dict[UUID, int]:
        return self.fleet.outbox(self.tenant)

    def table(self) -> dict[str, Any]:
        """Every row that a sync may write, whole."""
        return {
            "events": self.events,
            "tombstones": self.tombstones,
            "set_aside": self.set_aside,
            "outbox": self.outbox,
        }

    def stored(self) -> dict[str, Any]:
        """The rows together with the cursor that covers them."""
        calendar = self.calendar
        return self.table() | {name: calendar[name] for name in ("cursor", "last_success_at", "event_count")}

    def assert_truth(self) -> None:
        """What a person would see is what Google has, to the last byte."""
        events_equal_truth(self.fleet, self.tenant, self.google, self.email, self.key)


def kinds(asked: Sequence[LoggedRequest]) -> list[str]:
    """What each request for a list asked for: `delta` or `full`, with `+` on the pages after the first."""
    return [
        ("delta" if "syncToken" in entry.query else "full") + ("+" if "pageToken" in entry.query else "")
        for entry in asked
    ]
