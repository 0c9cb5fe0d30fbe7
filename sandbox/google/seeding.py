"""Events by the thousand from a spec, poisoned ones by name, and random edits to keep a fleet moving."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from sandbox.google.bodies import fresh, new_id
from sandbox.google.codec import JsonDict, encode, etag_of, iso_ms
from sandbox.google.errors import ApiError
from sandbox.google.model import Calendar, bare_of
from sandbox.google.recurrence import Series, instance_of
from sandbox.google.specs import SeedSpec
from sandbox.google.store import Store

_TOPICS = (
    "Planning",
    "Review",
    "1:1",
    "Stand-up",
    "Interview",
    "Fokuszeit",
    "歯医者",
    "Déjeuner",
    "Retro",
    "Demo",
)
_WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_FAR = datetime.max.replace(tzinfo=UTC)


class Seeder:
    def __init__(self, store: Store, spec: SeedSpec) -> None:
        self._store = store
        self._spec = spec
        self._rng = store.rng
        self._zone = ZoneInfo(spec.time_zone)
        self._first = date.fromisoformat(spec.first_day)

    def run(self, calendar: Calendar) -> int:
        """How many rows were written, exceptions and tombstones included."""
        spec = self._spec
        per_series = spec.overrides_per_series + spec.cancelled_per_series
        series = -(-spec.events // spec.series_every) if spec.series_every else 0
        stamps = iter(self._store.clock.stamps(spec.events + series * per_series + spec.tombstones))
        before = calendar.revision
        for number in range(spec.events):
            event = self._event(calendar, number, next(stamps))
            if "recurrence" in event and per_series:
                self._exceptions(calendar, event, stamps)
        for stamp in islice(stamps, spec.tombstones):
            self._tombstone(calendar, stamp)
        return calendar.revision - before

    def _event(self, calendar: Calendar, number: int, stamp: int) -> JsonDict:
        spec = self._spec
        day = self._first + timedelta(days=self._rng.randrange(spec.days))
        if spec.all_day_every and number % spec.all_day_every == spec.all_day_every - 1:
            times = {"start": {"date": f"{day}"}, "end": {"date": f"{day + timedelta(days=1)}"}}
        else:
            times = self._hours(day)
        written: JsonDict = {"summary": f"{self._rng.choice(_TOPICS)} {number}", **times}
        if spec.description_bytes:
            written["description"] = "x" * spec.description_bytes
        if spec.attendees:
            written["attendees"] = [_guest(index) for index in range(spec.attendees)]
        if spec.series_every and number % spec.series_every == 0:
            written["recurrence"] = [f"RRULE:FREQ=WEEKLY;BYDAY={_WEEKDAYS[day.weekday()]}"]
        event = fresh(new_id(self._rng), written, owner=calendar.owner, stamp=stamp)
        calendar.put(event, stamp=stamp)
        return event

    def _hours(self, day: date) -> JsonDict:
        start = datetime(day.year, day.month, day.day, self._rng.randrange(7, 19), tzinfo=self._zone)
        end = start + timedelta(minutes=self._rng.choice((15, 30, 45, 60)))
        zone = self._spec.time_zone
        return {
            "start": {"dateTime": start.isoformat(), "timeZone": zone},
            "end": {"dateTime": end.isoformat(), "timeZone": zone},
        }

    def _exceptions(self, calendar: Calendar, master: JsonDict, stamps: Iterator[int]) -> None:
        spec = self._spec
        wanted = spec.overrides_per_series + spec.cancelled_per_series
        for index, slot in enumerate(Series(master).slots(limit=wanted, until=_FAR)):
            instance = instance_of(master, slot)
            if index < spec.overrides_per_series:
                instance["summary"] += " (moved)"
            else:
                instance["status"] = "cancelled"
            calendar.put(instance, stamp=next(stamps), master=master["id"])

    def _tombstone(self, calendar: Calendar, stamp: int) -> None:
        stub = {
            "kind": "calendar#event",
            "etag": etag_of(stamp),
            "id": new_id(self._rng),
            "status": "cancelled",
            "updated": iso_ms(stamp),
        }
        calendar.put_encoded(stub["id"], encode(stub), stamp=stamp, bare=encode(bare_of(stub)))


def _guest(index: int) -> JsonDict:
    return {"email": f"guest{index}@example.test", "responseStatus": "needsAction"}


def seed_bodies(store: Store, calendar: Calendar, events: Iterable[JsonDict], *, raw: bool) -> list[str]:
    """Explicit events, unchecked. `raw` adds nothing but an id and an etag, and so lets broken ones in."""
    ids = []
    for body in events:
        stamp = store.clock.stamp()
        event_id = body.get("id") or new_id(store.rng)
        event = {**body, "id": event_id}
        if not raw:
            uid = body.get("iCalUID")
            event = fresh(event_id, event, owner=calendar.owner, stamp=stamp, ical_uid=uid)
        calendar.put(event, stamp=stamp, master=body.get("recurringEventId"), keep_updated=raw)
        ids.append(event_id)
    return ids


_DAY: JsonDict = {
    "start": {"dateTime": "2026-12-01T10:00:00+01:00", "timeZone": "Europe/Berlin"},
    "end": {"dateTime": "2026-12-01T11:00:00+01:00", "timeZone": "Europe/Berlin"},
}
_POISON: dict[str, JsonDict] = {
    "year_zero": {
        "start": {"dateTime": "0000-12-30T00:00:00Z"},
        "end": {"dateTime": "0000-12-30T01:00:00Z"},
    },
    "end_before_start": {"start": _DAY["end"], "end": _DAY["start"]},
    "missing_start": {"start": None},
    "missing_end": {"end": None},
    "unknown_event_type": {"eventType": "telepathy", "telepathyProperties": {"range": 3}},
    "huge_description": {"description": "d" * 300_000},
    "nul_text": {"summary": "before\x00after", "description": "\x00"},
    "lone_surrogate": {"summary": "broken \ud83d emoji"},
    "bad_time_zone": {
        "start": _DAY["start"] | {"timeZone": "Mars/Olympus"},
        "recurrence": ["RRULE:FREQ=DAILY"],
    },
    "bad_recurrence": {"recurrence": ["RRULE:FREQ=SOMETIMES;BYDAY=XX"]},
    "wrong_types": {"summary": 5, "attendees": "everyone", "sequence": "two"},
    "every_second": {"recurrence": ["RRULE:FREQ=SECONDLY"]},
}


def poison(store: Store, calendar: Calendar, kind: str) -> str:
    event: JsonDict = {**_DAY, "summary": f"poison {kind}", **_POISON[kind]}
    kept = {key: value for key, value in event.items() if value is not None}
    return seed_bodies(store, calendar, [kept], raw=False)[0]


class Churner:
    """Random edits with the weights of an ordinary week; what an edit cannot do is passed over."""

    def __init__(self, store: Store) -> None:
        self._editor = store.editor
        self._rng = store.rng
        self._acts: Sequence[Callable[[Calendar], object]] = (
            *[self._patch] * 10, *[self._insert] * 4, *[self._delete] * 3, self._cancel, self._override,
        )  # fmt: skip

    def run(self, calendars: Sequence[Calendar], edits: int) -> int:
        done = 0
        for _ in range(edits):
            try:
                self._rng.choice(self._acts)(self._rng.choice(calendars))
                done += 1
            except (ApiError, LookupError):
                continue
        return done

    def _living(self, calendar: Calendar, *, series: bool = False) -> str:
        for _ in range(50):
            if not calendar.order:
                break
            row = calendar.rows[self._rng.choice(calendar.order)]
            plain = not row.cancelled and not row.orphaned and row.master is None
            if plain and (not series or b'"recurrence"' in row.body):
                return row.id
        raise LookupError("no living event was met")

    def _insert(self, calendar: Calendar) -> None:
        start = datetime(2026, 11, 2, 8, tzinfo=UTC) + timedelta(hours=self._rng.randrange(2000))
        when = [{"dateTime": moment.isoformat()} for moment in (start, start + timedelta(hours=1))]
        summary = f"{self._rng.choice(_TOPICS)} {self._rng.randrange(10**6)}"
        self._editor.insert(calendar, {"summary": summary, "start": when[0], "end": when[1]})

    def _patch(self, calendar: Calendar) -> None:
        text = f"{self._rng.choice(_TOPICS)} {self._rng.randrange(10**6)}"
        self._editor.patch(calendar, self._living(calendar), {"summary": text})

    def _delete(self, calendar: Calendar) -> None:
        self._editor.delete(calendar, self._living(calendar))

    def _cancel(self, calendar: Calendar) -> None:
        self._editor.delete(calendar, self._some_instance(calendar))

    def _override(self, calendar: Calendar) -> None:
        self._editor.patch(calendar, self._some_instance(calendar), {"summary": "moved", "location": "elsewhere"})

    def _some_instance(self, calendar: Calendar) -> str:
        master = calendar.rows[self._living(calendar, series=True)].resource()
        slots = list(Series(master).slots(limit=30, until=_FAR))
        if not slots:
            raise LookupError("the series has no occurrence")
        return f"{master['id']}_{self._rng.choice(slots).key}"
