"""`calendar.report`: a workspace's week, as JSON for programs and as text for people, in English or Japanese."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from db.repositories import reports
from tenantsync.work.builtin import week
from tenantsync.work.builtin.week import DAY, Occurrence
from tenantsync.work.handlers import TaskFailed, handler
from tenantsync.work.run import Run

MOST_ROWS = 50_000  # stored events that are looked at; 2 s and 100 MB
MOST_SHOWN = 400  # occurrences; they stand in the result twice, as JSON and as text
MOST_OVERLAPS = 100
LONGEST_TEXT = 120  # characters of a title or a place
WEEK = 7
Language = Literal["en", "ja"]

_WORDS = {
    "en": {
        "all_day": "all day",
        "nothing": "nothing",
        "totals": "{events} events, {all_day} of them all day; {hours} booked; {overlaps} overlaps",
        "more": "… and {n} more",
        "overlap": "overlaps",
        "title": "Week of {day} ({zone})",
        "until": "until {time}",
        "since": "continued",
    },
    "ja": {
        "all_day": "終日",
        "nothing": "予定なし",
        "totals": "予定 {events} 件（うち終日 {all_day} 件）、予定時間 {hours}、重なり {overlaps} 件",
        "more": "…ほか {n} 件",
        "overlap": "重なりあり",
        "title": "{day}からの一週間（{zone}）",
        "until": "{time} まで",
        "since": "前日から",
    },
}
_WEEKDAYS = {
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "ja": ("月", "火", "水", "木", "金", "土", "日"),
}
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip


class Report(BaseModel):
    """What may be asked: from which day, in which zone, in which language."""

    model_config = ConfigDict(extra="forbid")

    week_start: date = Field(description="The first of seven days")
    time_zone: str = Field("UTC", max_length=64, description="An IANA name, like Asia/Tokyo")
    language: Language = "en"

    @field_validator("time_zone")
    @classmethod
    def _exists(cls, value: str) -> str:
        if week.zone(value) is None:
            raise PydanticCustomError("time_zone", "should be an IANA time zone, like Asia/Tokyo")
        return value

    @field_validator("week_start")
    @classmethod
    def _in_reach(cls, value: date) -> date:
        if not 1900 <= value.year <= 2200:
            raise PydanticCustomError("week_start", "should lie between the years 1900 and 2200")
        return value


@handler("calendar.report", timeout=60, retries=1, title="Weekly report")
def report(asked: Report, run: Run) -> dict[str, Any]:
    """A workspace's week (without one, the tenant's)."""
    found = run.step("read the calendars", lambda: _read(asked, run))
    return {**found, "text": run.step("write it", lambda: as_text(found, asked.language))}


def _read(asked: Report, run: Run) -> dict[str, Any]:
    there = week.zone(asked.time_zone)
    assert there is not None  # noqa: S101 — the payload was validated
    since, until = week.bounds(asked.week_start, WEEK, there)
    with run.database.reading() as connection:
        events = reports.span(
            connection,
            tenant_id=run.tenant_id,
            workspace_id=run.workspace_id,
            since=since - DAY,
            until=until + DAY,
            limit=MOST_ROWS + 1,
        )
    if len(events) > MOST_ROWS:
        raise TaskFailed(f"the calendars hold more than {MOST_ROWS} events to look at: ask for one workspace")
    run.log("events read", {"rows": len(events)})
    found, unreadable = week.occurrences(events, first=asked.week_start, days=WEEK, there=there)
    return as_json(found, asked, unreadable)


def as_json(found: Sequence[Occurrence], asked: Report, unreadable: int = 0) -> dict[str, Any]:
    """The week as JSON."""
    overlaps = overlapping(found)
    touched = {number for pair in overlaps for number in pair}
    shown = list(enumerate(found))[:MOST_SHOWN]
    days = [asked.week_start + number * DAY for number in range(WEEK)]
    rows = {number: _row(one, number in touched) for number, one in shown}
    return {
        "week_start": days[0].isoformat(),
        "week_end": days[-1].isoformat(),
        "time_zone": asked.time_zone,
        "language": asked.language,
        "days": [
            {
                "date": day.isoformat(),
                "weekday": _WEEKDAYS[asked.language][day.weekday()],
                "events": [rows[number] for number, one in shown if one.first_day <= day <= one.last_day],
            }
            for day in days
        ],
        "overlaps": [
            {
                "first": _named(found[left]),
                "second": _named(found[right]),
                "minutes": _shared(found[left], found[right]),
            }
            for left, right in overlaps[:MOST_OVERLAPS]
        ],
        "totals": {
            "events": len(found),
            "all_day": sum(one.all_day for one in found),
            "minutes": sum(one.minutes for one in found),
            "booked_minutes": booked(found),
            "overlaps": len(overlaps),
            "by_calendar": _by_calendar(found),
        },
        "left_out": len(found) - len(shown),
        "unreadable_series": unreadable,
    }


def _row(one: Occurrence, overlaps: bool) -> dict[str, Any]:
    return {
        "title": one.title[:LONGEST_TEXT],
        "calendar": one.calendar[:LONGEST_TEXT],
        "start": one.start.isoformat(),
        "end": one.end.isoformat(),
        "all_day": one.all_day,
        "minutes": one.minutes,
        "location": None if one.location is None else one.location[:LONGEST_TEXT],
        "tentative": one.tentative,
        "busy": one.busy,
        "series": one.series,
        "overlaps": overlaps,
    }


def _named(one: Occurrence) -> dict[str, Any]:
    return {"title": one.title[:LONGEST_TEXT], "calendar": one.calendar[:LONGEST_TEXT], "start": one.start.isoformat()}


def _by_calendar(found: Sequence[Occurrence]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for one in found:
        name = one.calendar[:LONGEST_TEXT]
        counted[name] = counted.get(name, 0) + 1
    return dict(sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))[:50])


def _span(one: Occurrence) -> tuple[datetime, datetime] | None:
    """When somebody is busy; None for what takes no time of the day."""
    if not one.busy or not isinstance(one.start, datetime) or not isinstance(one.end, datetime):
        return None
    start, end = one.start.astimezone(UTC), one.end.astimezone(UTC)
    return (start, end) if start < end else None


def overlapping(found: Sequence[Occurrence]) -> list[tuple[int, int]]:
    """Pairs of busy occurrences that share time, by their numbers, in order."""
    spans = sorted((span, number) for number, one in enumerate(found) if (span := _span(one)) is not None)
    pairs: list[tuple[int, int]] = []
    running: list[tuple[datetime, int]] = []
    for (start, end), number in spans:
        running = [(until, other) for until, other in running if until > start]
        pairs += [(other, number) for _, other in running]
        running.append((end, number))
        if len(pairs) > 10 * MOST_OVERLAPS:
            break  # a calendar in which everything overlaps; nobody reads on
    return pairs


def _shared(left: Occurrence, right: Occurrence) -> int:
    first, second = _span(left), _span(right)
    if first is None or second is None:
        return 0
    return int((min(first[1], second[1]) - max(first[0], second[0])).total_seconds() // 60)


def booked(found: Sequence[Occurrence]) -> int:
    """Minutes in which at least one thing stands."""
    spans = sorted(span for one in found if (span := _span(one)) is not None)
    total, until = timedelta(), None
    for start, end in spans:
        fresh = start if until is None else max(start, until)
        if end > fresh:
            total += end - fresh
        until = end if until is None else max(until, end)
    return int(total.total_seconds() // 60)


def as_text(found: dict[str, Any], language: Language) -> str:
    """The week for people, a line an event."""
    words = _WORDS[language]
    lines = [
        words["title"].format(day=_day(date.fromisoformat(found["week_start"]), language), zone=found["time_zone"])
    ]
    for one in found["days"]:
        day = date.fromisoformat(one["date"])
        lines += ["", _heading(day, language)]
        lines += [f"  {_line(event, day, words)}" for event in one["events"]] or [f"  {words['nothing']}"]
    if found["left_out"]:
        lines += ["", words["more"].format(n=found["left_out"])]
    totals = found["totals"]
    hours = f"{totals['booked_minutes'] // 60}:{totals['booked_minutes'] % 60:02}"
    return "\n".join([*lines, "", words["totals"].format(**{**totals, "hours": hours})])


def _day(day: date, language: Language) -> str:
    if language == "ja":
        return f"{day.year}年{day.month}月{day.day}日"
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


def _heading(day: date, language: Language) -> str:
    name = _WEEKDAYS[language][day.weekday()]
    return f"{day.month}月{day.day}日（{name}）" if language == "ja" else f"{name} {day.day} {_MONTHS[day.month - 1]}"


def _line(event: dict[str, Any], day: date, words: dict[str, str]) -> str:
    when = words["all_day"]
    if not event["all_day"]:
        start, end = datetime.fromisoformat(event["start"]), datetime.fromisoformat(event["end"])
        begins, ends = start.date() == day, end.date() == day
        until = words["until"].format(time=f"{end:%H:%M}") if ends else words["since"]
        when = f"{start:%H:%M}–{end:%H:%M}" if begins and ends else f"{start:%H:%M}–" if begins else until
    about = [event["title"].replace("\n", " ") or "–", f"[{event['calendar']}]"]
    if event["location"]:
        about.append(f"@ {event['location']}".replace("\n", " "))
    if event["overlaps"]:
        about.append(f"({words['overlap']})")
    return f"{when}  {' '.join(about)}"
