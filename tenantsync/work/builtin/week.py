"""A week of calendars: which occurrences fall into it. Pure; series are expanded as RFC 5545 has it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from db.repositories.reports import StoredEvent

DAY = timedelta(days=1)
_LINES = ("RRULE:", "RDATE", "EXDATE")
_TOO_DENSE = ("FREQ=SECONDLY", "FREQ=MINUTELY")  # a week of them is no calendar


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Something in the week. All-day ones have dates, the others moments in the report's zone; the end is excluded."""

    title: str
    calendar: str
    start: datetime | date
    end: datetime | date
    all_day: bool
    location: str | None
    tentative: bool
    busy: bool
    series: bool

    @property
    def first_day(self) -> date:
        return self.start.date() if isinstance(self.start, datetime) else self.start

    @property
    def last_day(self) -> date:
        """An event that ends at midnight does not touch the day that begins then."""
        if isinstance(self.end, datetime):
            instant = self.end if self.end == self.start else self.end - timedelta(microseconds=1)
            return instant.date()
        return max(self.first_day, self.end - DAY)

    @property
    def minutes(self) -> int:
        if not isinstance(self.start, datetime) or not isinstance(self.end, datetime):
            return 0
        return int((self.end.astimezone(UTC) - self.start.astimezone(UTC)).total_seconds() // 60)


@cache
def zone(name: str) -> ZoneInfo | None:
    """A time zone by its IANA name; None if there is none of that name."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        return None


def bounds(first: date, days: int, there: ZoneInfo) -> tuple[datetime, datetime]:
    """The moments at which a span of days begins and ends somewhere."""
    return datetime.combine(first, time.min, there), datetime.combine(first + days * DAY, time.min, there)


def occurrences(
    events: Sequence[StoredEvent], *, first: date, days: int, there: ZoneInfo
) -> tuple[list[Occurrence], int]:
    """What falls into a span of days, in order, and how many series could not be expanded."""
    since, until = bounds(first, days, there)
    exceptions: dict[tuple[Any, str], list[StoredEvent]] = {}
    for event in events:
        if event.series_key is not None:
            exceptions.setdefault((event.calendar_id, event.series_key), []).append(event)
    found: list[Occurrence] = []
    unreadable = 0
    masters = {(event.calendar_id, event.provider_key) for event in events if event.ics is not None}
    for event in events:
        if event.status == "cancelled":
            continue
        if event.recurrence is None:
            if event.series_key is None or (event.calendar_id, event.series_key) not in masters:
                found += _single(event, there)
            continue
        try:
            own = exceptions.get((event.calendar_id, event.provider_key), [])
            found += _series(event, own, since, until, there)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, IndexError):
            unreadable += 1
    kept = [one for one in found if first <= one.last_day and one.first_day < first + days * DAY]
    return sorted(kept, key=_order), unreadable


def _order(one: Occurrence) -> tuple[date, bool, str, str, str]:
    moment = one.start.astimezone(UTC).isoformat() if isinstance(one.start, datetime) else ""
    return one.first_day, not one.all_day, moment, one.title, one.calendar


def _single(event: StoredEvent, there: ZoneInfo) -> Iterator[Occurrence]:
    if event.starts_at is None or event.ends_at is None:
        return
    if event.all_day:
        start, end = _utc_date(event.starts_at), _utc_date(event.ends_at)
        yield _made(event, start, max(end, start + DAY), series=event.series_key is not None)
    else:
        series = event.series_key is not None
        yield _made(event, event.starts_at.astimezone(there), event.ends_at.astimezone(there), series=series)


def _made(event: StoredEvent, start: datetime | date, end: datetime | date, *, series: bool) -> Occurrence:
    return Occurrence(
        title=event.title or "",
        calendar=event.calendar,
        start=start,
        end=end,
        all_day=not isinstance(start, datetime),
        location=event.location,
        tentative=event.status == "tentative",
        busy=event.transparency not in ("transparent", "free"),
        series=series,
    )


def _series(
    event: StoredEvent, exceptions: Iterable[StoredEvent], since: datetime, until: datetime, there: ZoneInfo
) -> Iterator[Occurrence]:
    """A series' occurrences. Exceptions that came as rows of their own are left out here: they stand for themselves."""
    import recurring_ical_events  # noqa: PLC0415 — 15 MB and 0.2 s that only a report needs
    from icalendar import Calendar  # noqa: PLC0415

    whole = event.ics if event.ics is not None else _as_ics(event, exceptions)
    if any(dense in whole.upper() for dense in _TOO_DENSE):
        raise ValueError("too dense")
    for one in recurring_ical_events.of(Calendar.from_ical(whole)).between(since - DAY, until + DAY):
        if str(one.get("STATUS", "")).upper() == "CANCELLED":
            continue
        start, end = one["DTSTART"].dt, one["DTEND"].dt if "DTEND" in one else one["DTSTART"].dt
        made = _made(event, _here(start, there), _here(end, there), series=True)
        title, place = one.get("SUMMARY"), one.get("LOCATION")
        if event.ics is None:
            yield made
        else:
            yield Occurrence(
                title=made.title if title is None else str(title),
                calendar=made.calendar,
                start=made.start,
                end=made.end if made.end > made.start or not made.all_day else made.first_day + DAY,
                all_day=made.all_day,
                location=made.location if place is None else str(place),
                tentative=str(one.get("STATUS", "")).upper() == "TENTATIVE",
                busy=str(one.get("TRANSP", "OPAQUE")).upper() != "TRANSPARENT",
                series=True,
            )


def _here(moment: datetime | date, there: ZoneInfo) -> datetime | date:
    """A floating time is wherever you are, so it stays what it says."""
    if not isinstance(moment, datetime):
        return moment
    return moment.replace(tzinfo=there) if moment.tzinfo is None else moment.astimezone(there)


def _as_ics(event: StoredEvent, exceptions: Iterable[StoredEvent]) -> str:
    """A series that came without an .ics file, as one; what has an exception is left out of it."""
    if event.starts_at is None or event.ends_at is None:
        raise ValueError("a series without a start")
    home = zone(event.time_zone or "") or zone(event.calendar_zone or "") or ZoneInfo("UTC")
    lines = [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//Tenantsync//report//EN",
        "BEGIN:VEVENT",
        "UID:series",
        _moment("DTSTART", event.starts_at, event.all_day, home),
        _moment("DTEND", event.ends_at, event.all_day, home),
        *(line for line in event.recurrence or () if line.upper().startswith(_LINES) and not {"\r", "\n"} & set(line)),
    ]
    lines += [
        _moment("EXDATE", one.original_start, bool(one.original_all_day), home)
        for one in exceptions
        if one.original_start is not None
    ]
    return "\r\n".join([*lines, "END:VEVENT", "END:VCALENDAR", ""])


def _moment(name: str, moment: datetime, all_day: bool, home: ZoneInfo) -> str:
    if all_day:
        return f"{name};VALUE=DATE:{_utc_date(moment):%Y%m%d}"
    local = moment.astimezone(home)
    if home.key == "UTC":
        return f"{name}:{local:%Y%m%dT%H%M%SZ}"
    return f"{name};TZID={home.key}:{local:%Y%m%dT%H%M%S}"


def _utc_date(moment: datetime) -> date:
    """The day of an all-day event, which is stored as midnight UTC."""
    return moment.astimezone(UTC).date()
