"""A week of calendars: series, exceptions, zones, overlaps; as JSON and as text."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from db.repositories.reports import StoredEvent
from tenantsync.work.builtin import report, week
from tenantsync.work.builtin.report import Report

MONDAY = date(2026, 10, 19)  # on its Sunday Europe leaves summer time
BERLIN = ZoneInfo("Europe/Berlin")
CALENDAR = UUID(int=1)


def event(key: str = "e", start: str = "2026-10-19T09:00+02:00", minutes: int = 60, **columns: Any) -> StoredEvent:
    begins = datetime.fromisoformat(start)
    about: dict[str, Any] = {
        "provider_key": key,
        "series_key": None,
        "uid": key,
        "calendar_id": CALENDAR,
        "calendar": "Team",
        "calendar_zone": "Europe/Berlin",
        "status": "confirmed",
        "title": key,
        "location": None,
        "starts_at": begins,
        "ends_at": begins + timedelta(minutes=minutes),
        "all_day": False,
        "time_zone": "Europe/Berlin",
        "recurrence": None,
        "original_start": None,
        "original_all_day": None,
        "transparency": None,
        "ics": None,
    }
    return StoredEvent(**(about | columns))


def whole_day(key: str, day: str, days: int = 1, **columns: Any) -> StoredEvent:
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    return event(key, all_day=True, **({"starts_at": start, "ends_at": start + timedelta(days=days)} | columns))


def found(*events: StoredEvent, there: ZoneInfo = BERLIN) -> list[tuple[str, str, int]]:
    """(title, start, minutes) of what falls into the week."""
    occurrences, _ = week.occurrences(events, first=MONDAY, days=7, there=there)
    return [(one.title, one.start.isoformat(), one.minutes) for one in occurrences]


def test_single_events_stand_in_the_reports_zone() -> None:
    assert found(event(), there=ZoneInfo("Asia/Tokyo")) == [("e", "2026-10-19T16:00:00+09:00", 60)]


def test_only_what_touches_the_week_is_there() -> None:
    before = event("before", "2026-10-18T23:00+02:00", 60)
    into = event("into", "2026-10-18T23:30+02:00", 60)
    after = event("after", "2026-10-26T00:00+01:00")

    assert [one[0] for one in found(before, into, after)] == ["into"]


def test_a_weekly_series_keeps_its_local_time_over_a_change_of_the_clocks() -> None:
    series = event("s", "2026-10-12T09:00+02:00", recurrence=["RRULE:FREQ=DAILY"])

    assert [one[1] for one in found(series)] == [
        f"2026-10-{day}T09:00:00+0{1 if day == 25 else 2}:00" for day in range(19, 26)
    ]


def test_exceptions_of_a_series_stand_for_themselves() -> None:
    series = event("s", "2026-10-12T09:00+02:00", recurrence=["RRULE:FREQ=DAILY;COUNT=10"])
    moved = event("s_1", "2026-10-19T15:00+02:00", series_key="s", original_start=at("2026-10-19T09:00+02:00"))
    gone = event("s_2", series_key="s", status="cancelled", original_start=at("2026-10-20T09:00+02:00"))

    assert [(title, start) for title, start, _ in found(series, moved, gone)] == [
        ("s_1", "2026-10-19T15:00:00+02:00"),
        ("s", "2026-10-21T09:00:00+02:00"),
    ]


def at(moment: str) -> datetime:
    return datetime.fromisoformat(moment)


def test_all_day_events_are_dates_and_cover_their_days() -> None:
    fair = whole_day("fair", "2026-10-18", 3)
    weekly = whole_day("weekly", "2026-10-05", recurrence=["RRULE:FREQ=WEEKLY;BYDAY=WE"])

    occurrences, _ = week.occurrences([fair, weekly], first=MONDAY, days=7, there=BERLIN)

    assert [(one.title, one.first_day.day, one.last_day.day) for one in occurrences] == [
        ("fair", 18, 20), ("weekly", 21, 21),
    ]  # fmt: skip


ICS = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//t//t//EN
BEGIN:VEVENT
UID:u
DTSTAMP:20261001T000000Z
DTSTART;TZID=Asia/Tokyo:20261012T100000
DTEND;TZID=Asia/Tokyo:20261012T110000
RRULE:FREQ=WEEKLY
SUMMARY:朝会
END:VEVENT
BEGIN:VEVENT
UID:u
DTSTAMP:20261001T000000Z
RECURRENCE-ID;TZID=Asia/Tokyo:20261019T100000
DTSTART;TZID=Asia/Tokyo:20261020T120000
DTEND;TZID=Asia/Tokyo:20261020T123000
SUMMARY:朝会 (moved)
END:VEVENT
END:VCALENDAR
"""


def test_a_caldav_series_is_read_from_its_file_with_its_exceptions() -> None:
    series = event("u", recurrence=["RRULE:FREQ=WEEKLY"], ics=ICS)
    row = event("u#1", "2026-10-20T12:00+09:00", 30, series_key="u", original_start=at("2026-10-19T10:00+09:00"))

    assert found(series, row, there=ZoneInfo("Asia/Tokyo")) == [("朝会 (moved)", "2026-10-20T12:00:00+09:00", 30)]


@pytest.mark.parametrize(
    "columns",
    [
        {"recurrence": ["RRULE:FREQ=SECONDLY"]},
        {"recurrence": ["RRULE:FREQ=NONSENSE"]},
        {"recurrence": ["RRULE:X"], "ics": "x"},
    ],
    ids=["too dense", "nonsense", "no file"],
)  # fmt: skip
def test_a_series_that_cannot_be_expanded_is_counted_and_harms_no_other(columns: dict[str, Any]) -> None:
    occurrences, unreadable = week.occurrences([event("bad", **columns), event()], first=MONDAY, days=7, there=BERLIN)

    assert ([one.title for one in occurrences], unreadable) == (["e"], 1)


def test_a_line_that_would_smuggle_another_property_is_left_out() -> None:
    series = event("s", recurrence=["RRULE:FREQ=DAILY;COUNT=1\r\nSUMMARY:x", "SUMMARY:y"])

    assert [one[0] for one in found(series)] == ["s"]


# The report


def made(*events: StoredEvent, **asked: Any) -> dict[str, Any]:
    wanted = Report(week_start=MONDAY, **({"time_zone": "Europe/Berlin"} | asked))
    occurrences, unreadable = week.occurrences(events, first=MONDAY, days=7, there=ZoneInfo(wanted.time_zone))
    return report.as_json(occurrences, wanted, unreadable)


def test_overlaps_and_booked_time_are_reckoned() -> None:
    told = made(
        event("a", "2026-10-19T09:00+02:00", 60),
        event("b", "2026-10-19T09:30+02:00", 60),
        event("c", "2026-10-19T10:30+02:00", 30),
        event("free", "2026-10-19T09:00+02:00", 60, transparency="transparent"),
        whole_day("day", "2026-10-19"),
    )

    assert [(one["first"]["title"], one["second"]["title"], one["minutes"]) for one in told["overlaps"]] == [
        ("a", "b", 30)
    ]
    assert told["totals"]["booked_minutes"] == 120
    assert told["totals"] | {"by_calendar": None} == {
        "events": 5, "all_day": 1, "minutes": 210, "booked_minutes": 120, "overlaps": 1, "by_calendar": None,
    }  # fmt: skip
    assert told["totals"]["by_calendar"] == {"Team": 5}


def test_an_event_over_midnight_stands_on_both_days() -> None:
    told = made(event("night", "2026-10-19T23:00+02:00", 120))

    assert [len(day["events"]) for day in told["days"]] == [1, 1, 0, 0, 0, 0, 0]
    assert told["totals"]["events"] == 1


def test_a_full_week_is_cut_and_says_so() -> None:
    told = made(
        event("s", "2026-10-01T00:00+02:00", 10, recurrence=["RRULE:FREQ=HOURLY"]),
        *[event(f"e{n}") for n in range(400)],
    )

    assert sum(len(day["events"]) for day in told["days"]) == report.MOST_SHOWN
    assert told["left_out"] == told["totals"]["events"] - report.MOST_SHOWN


TEXTS = {
    "en": """Week of 19 October 2026 (Europe/Berlin)

Monday 19 October
  all day  day [Team]
  09:00–10:00  a [Team] @ Room 1 (overlaps)
  09:30–10:30  b [Team] (overlaps)

Tuesday 20 October
  nothing""",
    "ja": """2026年10月19日からの一週間（Europe/Berlin）

10月19日（月）
  終日  day [Team]
  09:00–10:00  a [Team] @ Room 1 (重なりあり)
  09:30–10:30  b [Team] (重なりあり)

10月20日（火）
  予定なし""",
}  # fmt: skip
LAST = {
    "en": "3 events, 1 of them all day; 1:30 booked; 1 overlaps",
    "ja": "予定 3 件（うち終日 1 件）、予定時間 1:30、重なり 1 件",
}


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_text_is_for_people(language: Any) -> None:
    told = made(
        event("a", location="Room 1"),
        event("b", "2026-10-19T09:30+02:00"),
        whole_day("day", "2026-10-19"),
        language=language,
    )

    text = report.as_text(told, language)

    assert text.startswith(TEXTS[language])
    assert text.endswith(LAST[language])


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"week_start": "2026-10-19", "time_zone": "Mars/Base"}, "should be an IANA time zone"),
        ({"week_start": "1066-10-14"}, "between the years 1900 and 2200"),
        ({"week_start": "soon"}, "valid date"),
        ({"week_start": "2026-10-19", "language": "fr"}, "'en' or 'ja'"),
        ({"week_start": "2026-10-19", "time_zone": "../../etc/passwd"}, "should be an IANA time zone"),
        ({}, "Field required"),
    ],
)
def test_a_report_that_cannot_be_made_is_refused_before_it_is_begun(asked: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Report.model_validate(asked)
