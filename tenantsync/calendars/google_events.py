"""From Google's event JSON to a row. Pure; facts from the Calendar v3 reference (Events resource).

`status: cancelled` means two things: with `recurringEventId` it is an exception of a living series and is
kept as long as the series; otherwise the event is deleted and only its id can be relied upon.
"""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from db.repositories.events import StagedRow, fits_key
from tenantsync.calendars.digests import digest

Json = dict[str, Any]

RAW_LIMIT = 256 * 1024  # bytes; Google's own limits keep an honest event far below
EVENT_TYPES = frozenset({"default", "birthday", "focusTime", "fromGmail", "outOfOffice", "workingLocation"})
STATUSES = frozenset({"confirmed", "tentative", "cancelled"})
_WIDEST_OFFSET = timedelta(hours=16)  # Postgres takes up to 15:59:59
_EXCERPT = 200  # characters


class Malformed(Exception):
    """Why an item cannot be an event. The text is a constant and quotes nothing from the item."""


def staged(item: Any, seq: int) -> StagedRow:
    """The row for one entry of `items`; an entry that cannot be an event becomes a row of kind `q`."""
    try:
        return _staged(item, seq)
    except Malformed as error:
        return set_aside(item, seq, str(error))


def set_aside(item: Any, seq: int, reason: str) -> StagedRow:
    """The row that reports an item. An item without an id gets the position as its name."""
    key = item.get("id") if isinstance(item, dict) else None
    named = isinstance(key, str) and _storable(key) and fits_key(key)
    etag = item.get("etag") if isinstance(item, dict) else None
    return StagedRow(
        seq=str(seq),
        kind="q",
        event_id=None,
        provider_key=None,
        resource=key if named and isinstance(key, str) else f"item {seq} without an id",
        etag=etag if isinstance(etag, str) and _storable(etag) else None,
        title=reason,
        description=_excerpt(item),
    )


def _excerpt(item: Any) -> str:
    # Keys alone: the operator who reads this has no business with a tenant's appointments.
    keys = sorted(str(key) for key in item) if isinstance(item, dict) else [type(item).__name__]
    return ", ".join(keys).encode(errors="replace").decode().replace("\0", "?")[:_EXCERPT]


def _storable(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _staged(item: Any, seq: int) -> StagedRow:
    if not isinstance(item, dict):
        raise Malformed("not an object")
    key = item.get("id")
    if not isinstance(key, str) or not key:
        raise Malformed("no id")
    status = item.get("status", "confirmed")
    if status not in STATUSES:
        raise Malformed("unknown status")
    series = item.get("recurringEventId")
    if status == "cancelled" and series is None and _storable(key) and fits_key(key):
        return StagedRow(str(seq), "d", None, None, key)
    raw = canonical(item)
    if not fits_key(key) or (isinstance(series, str) and not fits_key(series)):
        raise Malformed("an id that is too long")
    original = _moment(item.get("originalStartTime"), "originalStartTime", required=False)
    if status == "cancelled":
        start = end = None
        all_day = original[1] if original else False
    else:
        start, end, all_day = _span(item)
        if item.get("eventType", "default") not in EVENT_TYPES:
            raise Malformed("unknown eventType")
    recurrence, attendees = item.get("recurrence"), item.get("attendees")
    organizer = item.get("organizer")
    text = raw.decode()
    return StagedRow(
        str(seq),
        "u",
        None,
        key,
        key,
        _text(item, "etag"),
        _text(item, "iCalUID"),
        series if isinstance(series, str) else None,
        status,
        _text(item, "summary"),
        _text(item, "description"),
        _text(item, "location"),
        start,
        end,
        "t" if all_day else "f",
        _zone(item),
        orjson.dumps(recurrence).decode() if recurrence else None,
        original[0] if original else None,
        None if original is None else "t" if original[1] else "f",
        organizer.get("email") if isinstance(organizer, dict) else None,
        _attendees(attendees) if attendees else None,
        _text(item, "htmlLink"),
        _text(item, "transparency"),
        _text(item, "visibility"),
        _updated(item.get("updated")),
        text,
        digest(raw),
    )


def canonical(item: Json) -> bytes:
    """The item's JSON with sorted keys. Raises Malformed for what neither UTF-8 nor jsonb can hold."""
    try:
        raw = orjson.dumps(item, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # a lone surrogate, or a number beyond 64 bits
        raise Malformed("text that is not Unicode, or a number out of range") from None
    if len(raw) > RAW_LIMIT:
        raise Malformed(f"larger than {RAW_LIMIT // 1024} KiB")
    if b"\\u0000" in raw and _has_nul(item):
        raise Malformed("a NUL character")
    return raw


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(_has_nul(part) for part in value)


def _span(item: Json) -> tuple[str, str, bool]:
    start = _moment(item.get("start"), "start")
    end = _moment(item.get("end"), "end", required=not item.get("endTimeUnspecified"))
    if start is None:
        raise Malformed("no start")
    if end is None:
        return start[0], start[0], start[1]
    if end[1] != start[1]:
        raise Malformed("start and end are not of one kind")
    if end[2] < start[2]:
        raise Malformed("end before start")
    return start[0], end[0], start[1]


def _moment(value: Any, name: str, *, required: bool = True) -> tuple[str, bool, datetime] | None:
    """(text for Postgres, all-day?, moment) of an EventDateTime. All-day dates stand for midnight UTC."""
    if value is None:
        if required:
            raise Malformed(f"no {name}")
        return None
    try:
        moment = value.get("dateTime")
        if moment is not None:
            when = datetime.fromisoformat(moment)
            if when.tzinfo is None:  # "required unless a time zone is explicitly specified in timeZone"
                when = when.replace(tzinfo=ZoneInfo(value["timeZone"]))
            return _in_postgres(when), False, when
        when = datetime.combine(date.fromisoformat(value["date"]), time.min, UTC)
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        OSError,
    ):  # OSError: a zone that is a folder
        raise Malformed(f"{name} is not a date") from None
    return when.isoformat(), True, when


def _in_postgres(when: datetime) -> str:
    """The moment as Postgres takes it. Raises OverflowError for what it or its clients cannot hold."""
    if not 1 < when.year < 9999:
        when.astimezone(UTC)  # raises where the years end
    offset = when.utcoffset()
    if offset is None or abs(offset) >= _WIDEST_OFFSET:
        raise OverflowError
    return when.isoformat()


def _zone(item: Json) -> str | None:
    start = item.get("start")
    zone = start.get("timeZone") if isinstance(start, dict) else None
    return zone if isinstance(zone, str) else None


def _text(item: Json, name: str) -> str | None:
    value = item.get(name)
    if value is None or isinstance(value, str):
        return value
    raise Malformed(f"{name} is not text")


def _updated(value: Any) -> str | None:
    try:
        return _in_postgres(datetime.fromisoformat(value))
    except (TypeError, ValueError, OverflowError):
        return None


def _attendees(value: Any) -> str:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise Malformed("attendees is not a list")
    kept = ("email", "displayName", "responseStatus", "optional", "organizer", "self", "resource")
    return orjson.dumps([{key: one[key] for key in kept if key in one} for one in value]).decode()
