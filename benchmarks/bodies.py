"""The provider's answers, encoded before anybody asks: a quiet delta, and pages of events of about 1 kB each."""

import gzip
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

PAGE_SIZE = 2500
NEXT_SYNC_TOKEN = "CPDAgeyl1ZEDEPDAgeyl1ZEDGAUg5LD1rgMo5LD1rgM="  # noqa: S105 — a cursor
TOPICS = ("Weekly planning", "Design review", "歯医者の予約", "Déjeuner d'équipe", "Büro: Wartung", "Retro & résumé")
WORDS = (
    "agenda", "budget", "customer", "deadline", "estimate", "figures", "goals", "handover", "invoice", "journey",
    "kickoff", "launch", "margin", "notes", "outcome", "pipeline", "quarter", "roadmap", "staffing", "timeline",
    "update", "vendor", "workshop", "会議", "資料", "確認", "予定",
)  # fmt: skip
PEOPLE = ("ann", "bob", "chika", "dmitri", "élodie", "farid", "greta", "hiro")
ZONES = ("Asia/Tokyo", "Europe/Berlin", "America/New_York", "America/Sao_Paulo")
_FIRST = datetime(2023, 1, 2, 7, tzinfo=UTC)

Json = dict[str, Any]


def token_answer() -> bytes:
    """A refreshed grant."""
    return orjson.dumps(
        {"access_token": "ya29.bench", "expires_in": 3599, "scope": "calendar.readonly", "token_type": "Bearer"}
    )


def quiet_answer(calendar: str = "office@example.test") -> bytes:
    """An answer to a sync token that says: nothing changed."""
    return orjson.dumps({**_head(calendar), "items": [], "nextSyncToken": NEXT_SYNC_TOKEN})


def pages(events: int) -> list[bytes]:
    """The pages of a full listing, last one with the sync token, gzipped as Google sends them."""
    made = []
    for start in range(0, events, PAGE_SIZE):
        items = [event(number) for number in range(start, min(start + PAGE_SIZE, events))]
        last = start + PAGE_SIZE >= events
        following = {"nextSyncToken": f"listed-{events}"} if last else {"nextPageToken": str(start // PAGE_SIZE + 1)}
        made.append(orjson.dumps({**_head("large@example.test"), **following, "items": items}))
    return [zipped(page) for page in made]


def zipped(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=6, mtime=0)


def _head(calendar: str) -> Json:
    return {
        "kind": "calendar#events",
        "etag": '"p33g8dklqr2qok0o"',
        "summary": calendar,
        "description": "",
        "updated": "2026-11-20T09:00:00.000Z",
        "timeZone": "Europe/Berlin",
        "accessRole": "owner",
        "defaultReminders": [{"method": "popup", "minutes": 30}],
    }


def event(number: int) -> Json:
    """Event `number` of the large calendar: always the same one."""
    rng = random.Random(number)
    key = f"{rng.getrandbits(130):026x}"
    start = _FIRST + timedelta(days=rng.randrange(1500), minutes=15 * rng.randrange(40))
    people = rng.sample(PEOPLE, 3)
    stamp = (start - timedelta(days=rng.randrange(1, 60))).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return {
        "kind": "calendar#event",
        "etag": f'"{rng.getrandbits(50)}"',
        "id": key,
        "status": "confirmed",
        "htmlLink": f"https://www.google.com/calendar/event?eid={rng.getrandbits(200):050x}",
        "created": stamp,
        "updated": stamp,
        "summary": f"{rng.choice(TOPICS)} {number}",
        "description": " ".join(rng.choices(WORDS, k=25)),
        "location": rng.choice(("会議室 A", "Room 4.02", "https://meet.example.test/abc-defg-hij")),
        "creator": {"email": f"{people[0]}@example.test"},
        "organizer": {"email": f"{people[0]}@example.test", "self": people[0] == "ann"},
        **_times(start, number, rng.choice(ZONES)),
        "iCalUID": f"{key}@google.com",
        "sequence": number % 3,
        "attendees": [{"email": f"{name}@example.test", "responseStatus": "accepted"} for name in people],
        "reminders": {"useDefault": True},
        "eventType": "default",
    }


def _times(start: datetime, number: int, zone: str) -> Json:
    if number % 8 == 7:
        return {"start": {"date": f"{start:%Y-%m-%d}"}, "end": {"date": f"{start + timedelta(days=1):%Y-%m-%d}"}}
    times: Json = {
        "start": {"dateTime": start.isoformat(), "timeZone": zone},
        "end": {"dateTime": (start + timedelta(minutes=45)).isoformat(), "timeZone": zone},
    }
    if number % 10 == 0:
        times["recurrence"] = ["RRULE:FREQ=WEEKLY;COUNT=20"]
    return times


def events(count: int) -> Iterator[Json]:
    return (event(number) for number in range(count))
