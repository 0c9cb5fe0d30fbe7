"""Tenants with calendars like those that people have: series, overrides, all-day, zones, other scripts, emoji.

The same seed plants the same population. Most of it stands at the Google stand-in, some of it on the
CalDAV server, and one calendar is very large.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

from icalendar import Timezone

from db.repositories import tenants
from sandbox.google.control import GoogleControl
from sandbox.google.specs import SeedSpec
from sandbox.servers.radicale import Radicale
from sandbox.world import World
from tenantsync.calendars import connecting

TREES = (
    "acacia", "alder", "aspen", "baobab", "beech", "birch", "bonsai", "cedar", "cherry", "chestnut", "cypress",
    "ebony", "elm", "fir", "ginkgo", "hazel", "hemlock", "hickory", "holly", "juniper", "larch", "laurel", "linden",
    "magnolia", "mahogany", "maple", "mulberry", "oak", "olive", "pine", "plane", "poplar", "redwood", "rowan",
    "spruce", "sycamore", "tamarack", "teak", "walnut", "willow",
)  # fmt: skip
TITLES = (
    "Weekly planning", "Design review", "歯医者の予約", "打ち合わせ 🍵", "Déjeuner d'équipe", "Büro: Wartung",
    "🎉 Launch party", "Запуск продукта", "1:1", "اجتماع الفريق", "お花見 🌸", "Retro & résumé", "Flight NRT → BER ✈️",
)  # fmt: skip
ZONES = ("Asia/Tokyo", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe")
CALDAV_EVERY = 5  # every n-th tenant has its calendars on the CalDAV server
LARGE_EVENTS = 20_000
_FIRST = date(2026, 10, 5)


@dataclass(slots=True)
class Planted:
    """A tenant and where its calendars stand."""

    tenant_id: UUID
    name: str
    google: list[tuple[str, list[str]]] = field(default_factory=list)
    caldav: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sketch:
    """An event before it is written down for one provider or the other."""

    title: str
    start: datetime | date
    minutes: int
    zone: str
    rule: str | None = None
    location: str | None = None

    @property
    def end(self) -> datetime | date:
        if isinstance(self.start, datetime):
            return self.start + timedelta(minutes=self.minutes)
        return self.start + timedelta(days=1)


def sketches(rng: random.Random, count: int) -> Iterator[Sketch]:
    """Events of an ordinary calendar: two thirds single, the rest series, one in eight all-day."""
    for number in range(count):
        day = _FIRST + timedelta(days=rng.randrange(120))
        start: datetime | date = day
        if number % 8 != 7:
            start = datetime(day.year, day.month, day.day, rng.randrange(7, 20), rng.choice((0, 15, 30)))  # noqa: DTZ001
        rule = rng.choice((f"FREQ=WEEKLY;COUNT={rng.randrange(5, 60)}", "FREQ=DAILY;INTERVAL=2;COUNT=20"))
        yield Sketch(
            title=f"{rng.choice(TITLES)} {number}",
            start=start,
            minutes=rng.choice((15, 30, 60, 90)),
            zone=rng.choice(ZONES),
            rule=rule if number % 3 == 2 else None,
            location=rng.choice((None, "会議室 A", "Room 4.02", "https://meet.example.test/x")),
        )


def as_google(sketch: Sketch) -> dict[str, Any]:
    """The body of an events.insert."""

    def moment(value: datetime | date) -> dict[str, str]:
        if isinstance(value, datetime):
            return {"dateTime": value.isoformat() + "Z", "timeZone": sketch.zone}
        return {"date": value.isoformat()}

    body: dict[str, Any] = {
        "summary": sketch.title,
        "start": moment(sketch.start),
        "end": moment(sketch.end),
        "attendees": [{"email": "guest@example.test", "responseStatus": "accepted"}],
    }
    if sketch.rule:
        body["recurrence"] = [f"RRULE:{sketch.rule}"]
    if sketch.location:
        body["location"] = sketch.location
    return body


@cache
def time_zone(name: str) -> str:
    """Its VTIMEZONE. Without one the CalDAV server spends 25 ms an event on guessing what the TZID means."""
    zone = Timezone.from_tzid(name, first_date=date(2026, 1, 1), last_date=date(2028, 1, 1))
    written: bytes = zone.to_ical()
    return written.decode().rstrip()


def as_ics(sketch: Sketch, uid: str) -> str:
    """A VCALENDAR; a series comes with one moved and one cancelled instance."""

    def line(name: str, value: datetime | date) -> str:
        if isinstance(value, datetime):
            return f"{name};TZID={sketch.zone}:{value:%Y%m%dT%H%M%S}"
        return f"{name};VALUE=DATE:{value:%Y%m%d}"

    common = [f"UID:{uid}", f"DTSTAMP:{datetime(2026, 11, 20, tzinfo=UTC):%Y%m%dT%H%M%SZ}"]
    master = [*common, line("DTSTART", sketch.start), line("DTEND", sketch.end), f"SUMMARY:{sketch.title}"]
    if sketch.location:
        master.append(f"LOCATION:{sketch.location}")
    events = [master]
    if sketch.rule:
        master.append(f"RRULE:{sketch.rule}")
        step = timedelta(weeks=1) if "WEEKLY" in sketch.rule else timedelta(days=2)
        master.append(line("EXDATE", sketch.start + 3 * step))
        moved = sketch.start + step
        override = [*common, line("RECURRENCE-ID", moved), line("DTSTART", moved + timedelta(days=1))]
        events.append([*override, f"DURATION:PT{sketch.minutes}M", f"SUMMARY:{sketch.title} (moved)"])
        if not isinstance(sketch.start, datetime):
            events[-1][-2] = "DURATION:P1D"
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//Tenantsync//sandbox//EN", time_zone(sketch.zone)]
    for event in events:
        lines += ["BEGIN:VEVENT", *event, "END:VEVENT"]
    return "\r\n".join([*lines, "END:VCALENDAR", ""])


def plant(world: World, *, tenant_count: int = 40, seed: int = 7, large: int = LARGE_EVENTS) -> list[Planted]:
    """Plant tenants at the providers and connect their accounts. `large`: events of the very large calendar."""
    rng = random.Random(seed)
    planted = []
    with world.google.control() as google:
        for number in range(tenant_count):
            name = TREES[number] if number < len(TREES) else f"tenant-{number:03d}"
            with world.database.transaction() as connection:
                tenant_id = tenants.add_tenant(connection, name=name)
                workspace_id = tenants.add_workspace(connection, tenant_id=tenant_id, name="office")
            one = Planted(tenant_id, name)
            if number % CALDAV_EVERY == CALDAV_EVERY - 1:
                _plant_caldav(world, world.radicale, rng, one, workspace_id)
            else:
                _plant_google(world, google, rng, one, workspace_id, large if number == 1 else 0)
            planted.append(one)
    return planted


def _plant_google(
    world: World, google: GoogleControl, rng: random.Random, one: Planted, workspace_id: UUID, large: int
) -> None:
    email = f"office@{one.name}.example.test"
    account = google.create_account(email)
    team = f"team-{one.name}@group.calendar.google.com"
    google.create_calendar(email, team, summary=f"{one.name} チーム 🌳", time_zone=rng.choice(ZONES))
    google.seed_events(email, team, [as_google(sketch) for sketch in sketches(rng, rng.randrange(20, 60))])
    history = large or rng.choice((300, 800, 3000, 6000))
    google.seed(email, email, SeedSpec(events=history, days=1500, first_day="2023-01-02", time_zone=rng.choice(ZONES)))
    _connect(world, one, workspace_id, "google", None, {"refresh_token": account.refresh_token})
    one.google.append((email, [email, team]))


def _plant_caldav(world: World, server: Radicale, rng: random.Random, one: Planted, workspace_id: UUID) -> None:
    password = server.add_user(one.name)
    items = [as_ics(sketch, f"{one.name}-{n}") for n, sketch in enumerate(sketches(rng, rng.randrange(40, 120)))]
    server.fill_calendar(one.name, "work", items, display_name=f"{one.name} 仕事")
    credentials = {"username": one.name, "password": password}
    _connect(world, one, workspace_id, "caldav", server.url, credentials)
    one.caldav.append((one.name, "work"))


def _connect(
    world: World, one: Planted, workspace_id: UUID, provider: str, address: str | None, credentials: dict[str, str]
) -> None:
    connecting.connect(
        world.database,
        world.settings,
        tenant_id=one.tenant_id,
        workspace_id=workspace_id,
        provider=provider,
        address=address,
        credentials=json.dumps(credentials),
    )


def plant_on_own_server(world: World, server: Radicale, name: str, *, seed: int = 11) -> Planted:
    """One more tenant, alone on a CalDAV server of its own, so that the server can be made to hang."""
    with world.database.transaction() as connection:
        tenant_id = tenants.add_tenant(connection, name=name)
        workspace_id = tenants.add_workspace(connection, tenant_id=tenant_id, name="office")
    one = Planted(tenant_id, name)
    _plant_caldav(world, server, random.Random(seed), one, workspace_id)
    return one
