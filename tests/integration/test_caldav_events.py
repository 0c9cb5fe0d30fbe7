"""What stands in an iCalendar resource, and the columns that it becomes; through a real server."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from db.session import Database
from sandbox.servers.postgres import Postgres
from sandbox.servers.radicale import Radicale
from tests.conftest import TEMPLATE
from tests.support.caldav import END, STAMP, START, Shelf, calendar, component, stored, vevent
from tests.support.fleet import Fleet, TenantHandle, make_settings

pytest_plugins = ["tests.support.caldav_fixtures"]

ZONE = "DTSTART;TZID=Europe/Berlin:20261201T090000"


def at(*moment: int) -> datetime:
    return datetime(*moment, tzinfo=UTC)  # type: ignore[misc,arg-type]


def zone(name: str, offset: str) -> str:
    """A VTIMEZONE that has this offset all the year."""
    lines = ["DTSTART:19700101T000000", f"TZOFFSETFROM:{offset}", f"TZOFFSETTO:{offset}", "TZNAME:X"]
    return component("VTIMEZONE", f"TZID:{name}", component("STANDARD", *lines))


NINE, TEN = at(2026, 12, 1, 9), at(2026, 12, 1, 10)
BERLIN = {"starts_at": at(2026, 12, 1, 8), "ends_at": at(2026, 12, 1, 9), "all_day": False}
WINDOWS = "W. Europe Standard Time"
LONG_PATH = "/freeassociation.sourceforge.net/Europe/Berlin"
TIMES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "in utc": ([START, END], {"starts_at": NINE, "ends_at": TEN, "all_day": False}),
    "in a zone": ([ZONE, "DURATION:PT1H"], BERLIN | {"time_zone": "Europe/Berlin"}),
    "in a zone in quotes": (['DTSTART;TZID="Europe/Berlin":20261201T090000', "DURATION:PT1H"], BERLIN),
    "with a duration": ([START, "DURATION:PT90M"], {"starts_at": NINE, "ends_at": at(2026, 12, 1, 10, 30)}),
    "with a duration in weeks": ([START, "DURATION:P2W"], {"ends_at": at(2026, 12, 15, 9)}),
    "without an end": ([START], {"starts_at": NINE, "ends_at": NINE}),
    "a day long over the change to summer time": (
        ["DTSTART;TZID=Europe/Berlin:20270327T120000", "DURATION:P1D"],
        {"starts_at": at(2027, 3, 27, 11), "ends_at": at(2027, 3, 28, 10)},
    ),
    "a night long over the change to summer time": (
        ["DTSTART;TZID=Europe/Berlin:20270327T220000", "DURATION:PT8H"],
        {"starts_at": at(2027, 3, 27, 21), "ends_at": at(2027, 3, 28, 5)},
    ),
    "floating": (
        ["DTSTART:20261201T090000", "DTEND:20261201T100000"],
        {"starts_at": NINE, "ends_at": TEN, "time_zone": None},
    ),
    "all day": (
        ["DTSTART;VALUE=DATE:20261201", "DTEND;VALUE=DATE:20261203"],
        {"starts_at": at(2026, 12, 1), "ends_at": at(2026, 12, 3), "all_day": True},
    ),
    "all day without an end": (
        ["DTSTART;VALUE=DATE:20261201"],
        {"starts_at": at(2026, 12, 1), "ends_at": at(2026, 12, 2), "all_day": True},
    ),
    "all day with a duration": (
        ["DTSTART;VALUE=DATE:20261201", "DURATION:P3D"],
        {"starts_at": at(2026, 12, 1), "ends_at": at(2026, 12, 4), "all_day": True},
    ),
    "in a zone of its own": (
        ["DTSTART;TZID=Ours:20261201T090000", "DTEND;TZID=Ours:20261201T100000", zone("Ours", "+0330")],
        {"starts_at": at(2026, 12, 1, 5, 30), "ends_at": at(2026, 12, 1, 6, 30)},
    ),
    "in a zone of Windows": ([f"DTSTART;TZID={WINDOWS}:20261201T090000", "DURATION:PT1H"], BERLIN),
    "in a zone of Windows that it describes": (
        [f"DTSTART;TZID={WINDOWS}:20261201T090000", "DURATION:PT1H", zone(WINDOWS, "+0100")],
        BERLIN,
    ),
    "in a zone with a path": (
        [f"DTSTART;TZID={LONG_PATH}:20261201T090000", "DURATION:PT1H", zone(LONG_PATH, "+0100")],
        BERLIN,
    ),
}
CASES: dict[str, tuple[list[str], dict[str, Any]]] = TIMES | {
    "nothing said": ([START, END], {"status": "confirmed", "description": None, "recurrence": None}),
    "tentative": ([START, END, "STATUS:TENTATIVE"], {"status": "tentative"}),
    "cancelled": ([START, END, "STATUS:CANCELLED"], {"status": "cancelled"}),
    "free": ([START, END, "TRANSP:TRANSPARENT"], {"transparency": "transparent"}),
    "private": ([START, END, "CLASS:PRIVATE"], {"visibility": "private"}),
    "at a place": ([START, END, "LOCATION:Room 1\\, second floor"], {"location": "Room 1, second floor"}),
    "described": ([START, END, "DESCRIPTION:First\\nSecond"], {"description": "First\nSecond"}),
    "dates without a rule": (
        ["DTSTART;VALUE=DATE:20261201", "RDATE;VALUE=DATE:20261224,20261231"],
        {"recurrence": ["RDATE;VALUE=DATE:20261224,20261231"]},
    ),
    "a second for ever": ([START, END, "RRULE:FREQ=SECONDLY"], {"recurrence": ["RRULE:FREQ=SECONDLY"]}),
    "a day for ever": ([START, END, "RRULE:FREQ=DAILY"], {"recurrence": ["RRULE:FREQ=DAILY"]}),
    "before there was unix": (["DTSTART;VALUE=DATE:18791231"], {"starts_at": at(1879, 12, 31)}),
    "at the end of time": (["DTSTART:99991231T230000Z"], {"starts_at": at(9999, 12, 31, 23)}),
    "organized": (
        [START, END, 'ORGANIZER;CN="Ann, the boss":mailto:ann@example.test'],
        {"organizer": "ann@example.test"},
    ),
    "with an alarm": (
        [START, END, component("VALARM", "ACTION:DISPLAY", "DESCRIPTION:Alarm", "TRIGGER:-PT15M", "DURATION:PT5M")],
        {"title": "Stand-up", "description": None, "ends_at": TEN},
    ),
}


@pytest.fixture
def acme(fleet: Fleet, shelf: Shelf) -> TenantHandle:
    """A tenant with an empty calendar."""
    tenant = fleet.tenant()
    fleet.caldav(tenant, shelf.server, shelf.user)
    return tenant


@pytest.fixture(scope="module")
def rows(postgres: Postgres, radicale: Radicale) -> Iterator[dict[str, dict[str, Any]]]:
    """The rows of all cases, by name, from one calendar and one sync."""
    shelf = Shelf(radicale, "columns").create()
    for name, (lines, _) in CASES.items():
        shelf.put(name, with_zones(name, lines))
    url = postgres.create_database("caldav_events", template=TEMPLATE)
    with (
        closing(Database(url, pool_size=4, name="tests")) as database,
        closing(Fleet(database, make_settings(url))) as fleet,
    ):
        acme = fleet.tenant()
        fleet.caldav(acme, radicale, shelf.user)
        fleet.run()
        yield fleet.events(acme)
    postgres.drop_database("caldav_events")


def with_zones(uid: str, lines: list[str]) -> str:
    """A resource with these lines in its event, and the zones among them beside it."""
    zones = [line for line in lines if line.startswith("BEGIN:VTIMEZONE")]
    return calendar(*zones, vevent(uid, "Stand-up", *(line for line in lines if line not in zones)))


@pytest.mark.parametrize("case", CASES)
def test_c95_the_columns_say_what_the_resource_says(rows: dict[str, dict[str, Any]], case: str) -> None:
    _, expected = CASES[case]

    row = rows[case]

    assert {column: row[column] for column in expected} == expected


def test_c95_an_event_in_a_zone_that_nobody_knows_is_accounted_for(
    fleet: Fleet, shelf: Shelf, acme: TenantHandle
) -> None:
    shelf.put("event", calendar(vevent("event", "Nowhere", "DTSTART;TZID=Mars/Olympus:20261201T090000")))
    shelf.put("other", calendar(vevent("other", "Here", START, END)))

    fleet.run()

    resources = {row["resource"] for row in fleet.events(acme).values()} | set(fleet.set_aside(acme))
    assert resources == {shelf.resource("event"), shelf.resource("other")}
    assert "other" in fleet.events(acme)


def test_c95_the_rules_and_dates_of_a_series_are_kept_with_their_zones(
    fleet: Fleet, shelf: Shelf, acme: TenantHandle
) -> None:
    rules = [
        "RRULE:FREQ=WEEKLY;COUNT=5",
        "EXDATE;TZID=Europe/Berlin:20261208T090000",
        "RDATE;TZID=Europe/Berlin:20261224T090000",
    ]
    shelf.put("event", calendar(vevent("event", "Weekly", ZONE, "DURATION:PT1H", *rules)))

    fleet.run()

    assert sorted(fleet.events(acme)["event"]["recurrence"]) == sorted(rules)


def test_c95_an_override_of_an_all_day_series_is_the_instance_of_its_day(
    fleet: Fleet, shelf: Shelf, acme: TenantHandle
) -> None:
    master = vevent("event", "Daily", "DTSTART;VALUE=DATE:20261201", "RRULE:FREQ=DAILY;COUNT=5")
    moved = vevent("event", "Moved", "RECURRENCE-ID;VALUE=DATE:20261203", "DTSTART;VALUE=DATE:20261210")
    shelf.put("event", calendar(master, moved))

    fleet.run()

    (row,) = [row for row in fleet.events(acme).values() if row["title"] == "Moved"]
    assert (row["original_start"], row["original_all_day"]) == (at(2026, 12, 3), True)


@pytest.mark.parametrize(
    "written",
    [
        "RECURRENCE-ID;TZID=Europe/Berlin:20261208T090000",
        "RECURRENCE-ID:20261208T080000Z",
        "RECURRENCE-ID;TZID=America/New_York:20261208T030000",
    ],
)
def test_c95_an_instance_is_the_same_in_whatever_zone_its_id_is_written(
    fleet: Fleet, shelf: Shelf, acme: TenantHandle, written: str
) -> None:
    master = vevent("event", "Weekly", ZONE, "DURATION:PT1H", "RRULE:FREQ=WEEKLY;COUNT=5")
    first = "RECURRENCE-ID;TZID=Europe/Berlin:20261208T090000"
    shelf.put("event", calendar(master, vevent("event", "Moved", first, "DTSTART:20261208T130000Z")))
    fleet.run()
    before = {row["event_id"] for row in fleet.events(acme).values()}
    shelf.put("event", calendar(master, vevent("event", "Moved again", written, "DTSTART:20261208T150000Z")))

    fleet.sync()

    assert {row["event_id"] for row in fleet.events(acme).values()} == before


def test_c95_an_alarm_is_kept_though_it_is_no_part_of_the_event(rows: dict[str, dict[str, Any]]) -> None:
    assert "BEGIN:VALARM" in rows["with an alarm"]["raw"]["ics"]


def test_c95_attendees_are_found(fleet: Fleet, shelf: Shelf, acme: TenantHandle) -> None:
    lines = [
        "ATTENDEE;CN=Bob;PARTSTAT=ACCEPTED:mailto:bob@example.test",
        "ATTENDEE;PARTSTAT=DECLINED:MAILTO:Carol@example.test",
    ]
    shelf.put("event", calendar(vevent("event", "Stand-up", START, END, *lines)))

    fleet.run()

    attendees = fleet.events(acme)["event"]["attendees"]
    assert [one["email"].lower() for one in attendees] == ["bob@example.test", "carol@example.test"]


def test_c95_long_lines_are_unfolded(fleet: Fleet, shelf: Shelf, acme: TenantHandle) -> None:
    title = "Überlänge 🎉 " * 60 + "end"
    shelf.put("event", calendar(vevent("event", title, START, END)))

    fleet.run()

    assert fleet.events(acme)["event"]["title"] == title


@pytest.mark.parametrize(
    ("size", "stored_ones", "set_aside"), [(200_000, {"large", "other"}, 0), (300_000, {"other"}, 1)]
)
def test_c95_a_large_resource_is_stored_whole_or_set_aside_and_harms_no_other(
    fleet: Fleet, shelf: Shelf, acme: TenantHandle, size: int, stored_ones: set[str], set_aside: int
) -> None:
    lines = {uid: f"DESCRIPTION:{'0123456789' * (length // 10)}" for uid, length in (("large", size), ("other", 10))}
    for uid, line in lines.items():
        shelf.put(uid, calendar(vevent(uid, "Stand-up", START, END, line)))

    fleet.run()

    found = {uid: f"DESCRIPTION:{row['description']}" for uid, row in fleet.events(acme).items()}
    assert found == {uid: lines[uid] for uid in stored_ones}
    assert list(fleet.set_aside(acme)) == [shelf.resource("large")] * set_aside


def test_c95_lines_may_end_in_any_way(fleet: Fleet, shelf: Shelf, acme: TenantHandle) -> None:
    text = calendar(vevent("event", "Stand-up", START, END))
    shelf.put("crlf", text.replace("UID:event", "UID:crlf"))
    shelf.put("lf", text.replace("UID:event", "UID:lf").replace("\r\n", "\n"))

    fleet.run()

    one, other = (fleet.events(acme)[uid] for uid in ("crlf", "lf"))
    assert [one[column] for column in ("title", "starts_at", "ends_at")] == ["Stand-up", NINE, TEN]
    assert [other[column] for column in ("title", "starts_at", "ends_at")] == ["Stand-up", NINE, TEN]


def test_c95_a_resource_whose_name_needs_quoting_is_found_again(fleet: Fleet, shelf: Shelf, acme: TenantHandle) -> None:
    names = ["with space", "ümläut", "plus+and&amp", "at@home", "50%25", "100%", "日本"]
    for number, name in enumerate(names):
        shelf.put(name, calendar(vevent(f"uid-{number}", name, START, END)))
    fleet.run()
    first = stored(fleet, acme, shelf)
    shelf.delete(*names[::2])
    for number, name in enumerate(names):
        if number % 2:
            shelf.put(name, calendar(vevent(f"uid-{number}", f"{name} changed", START, END)))

    fleet.sync()

    assert len(first) == len(names)
    assert stored(fleet, acme, shelf) == shelf.truth()


@pytest.mark.parametrize("missing", ["UID:event", STAMP])
def test_c95_a_resource_without_what_it_should_have_harms_no_other(
    fleet: Fleet, shelf: Shelf, acme: TenantHandle, missing: str
) -> None:
    (shelf.folder / "raw.ics").write_text(calendar(vevent("event", "Bare", START, END)).replace(f"{missing}\r\n", ""))
    shelf.put("other", calendar(vevent("other", "Whole", START, END)))

    fleet.run()

    assert "other" in fleet.events(acme)
    assert fleet.calendar(acme)["state"] == "synced"
