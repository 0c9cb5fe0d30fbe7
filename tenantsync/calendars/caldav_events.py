"""From a CalDAV resource (an .ics file) to rows: one for each VEVENT in it. Pure; RFC 5545.

A resource holds a series and its overrides, or one event. Rows of a resource are told apart by UID and
RECURRENCE-ID, so that a file that moves to another address stays the same event. The row of the series,
or the first one, keeps the whole resource as its raw data; the others keep their own component.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
from icalendar import Calendar

from db.repositories.events import StagedRow, fits_key
from tenantsync.calendars.digests import digest

RAW_LIMIT = 256 * 1024  # bytes
_STATUS = {"CONFIRMED": "confirmed", "TENTATIVE": "tentative", "CANCELLED": "cancelled"}
_RECURRENCE = ("RRULE", "RDATE", "EXDATE", "EXRULE")


class Malformed(Exception):
    """Why a resource cannot be events. The text is a constant and quotes nothing from it."""


def staged(resource: str, etag: str | None, ics: str, seq: int) -> list[StagedRow]:
    """The rows of a resource; none if it holds no VEVENT; one of kind `q` if it cannot be read."""
    try:
        return _staged(resource, etag, ics, seq)
    except Malformed as error:
        return [set_aside(resource, etag, seq, str(error))]


def set_aside(resource: str, etag: str | None, seq: int, reason: str) -> StagedRow:
    return StagedRow(str(seq), "q", None, None, resource, etag, title=reason)


def resource_digest(ics: str) -> str:
    """What the audit compares: the digest that the resource's leading row was stored with."""
    return digest(_raw(ics))


def has_events(ics: str) -> bool:
    """Whether the resource concerns us at all; tasks and journals share collections with events."""
    return "BEGIN:VEVENT" in ics.upper()


def _raw(ics: str) -> bytes:
    return orjson.dumps({"ics": ics})


def _staged(resource: str, etag: str | None, ics: str, seq: int) -> list[StagedRow]:
    if "BEGIN:VCALENDAR" not in ics.upper():
        raise Malformed("not an iCalendar object")
    if not has_events(ics):
        return []
    if len(ics) > RAW_LIMIT:
        raise Malformed(f"larger than {RAW_LIMIT // 1024} KiB")
    if "\0" in ics:
        raise Malformed("a NUL character")
    try:
        components: list[Any] = list(Calendar.from_ical(ics).walk("VEVENT"))
    except (ValueError, IndexError, KeyError, TypeError, AttributeError):
        raise Malformed("not an iCalendar object") from None
    components.sort(key=lambda component: "RECURRENCE-ID" in component)
    rows = []
    for number, component in enumerate(components):
        try:
            raw = _raw(ics if number == 0 else component.to_ical().decode())
            rows.append(_row(component, resource, etag, raw, seq))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, UnicodeError):
            raise Malformed("a property that cannot be read") from None
    if len({row.provider_key for row in rows}) != len(rows):
        raise Malformed("two events of the same UID and RECURRENCE-ID")
    return rows


def _row(component: Any, resource: str, etag: str | None, raw: bytes, seq: int) -> StagedRow:
    uid = str(component.get("UID") or "").strip()
    if not uid:
        raise Malformed("no UID")
    if not fits_key(uid):
        raise Malformed("a UID that is too long")
    start, end = _span(component)
    original = component.get("RECURRENCE-ID")
    instant = None if original is None else _instant(original.dt)
    start_property = component["DTSTART"]
    return StagedRow(
        seq=str(seq),
        kind="u",
        event_id=None,
        provider_key=uid if instant is None else f"{uid}#{instant}",
        resource=resource,
        etag=etag,
        uid=uid,
        series_key=None if instant is None else uid,
        status=_STATUS.get(str(component.get("STATUS", "CONFIRMED")).upper(), "confirmed"),
        title=_text(component, "SUMMARY"),
        description=_text(component, "DESCRIPTION"),
        location=_text(component, "LOCATION"),
        starts_at=_instant(start),
        ends_at=_instant(end),
        all_day="f" if isinstance(start, datetime) else "t",
        time_zone=start_property.params.get("TZID"),
        recurrence=_recurrence(component),
        original_start=instant,
        original_all_day=None if original is None else "f" if isinstance(original.dt, datetime) else "t",
        organizer=_address(component.get("ORGANIZER")),
        attendees=_attendees(component),
        link=_text(component, "URL"),
        transparency=(_text(component, "TRANSP") or "").lower() or None,
        visibility=(_text(component, "CLASS") or "").lower() or None,
        provider_updated_at=_stamp(component),
        raw=raw.decode(),
        digest=digest(raw),
    )


def _span(component: Any) -> tuple[date, date]:
    if "DTSTART" not in component:
        raise Malformed("no start")
    start = component["DTSTART"].dt
    if "DTEND" in component:
        end = component["DTEND"].dt
    elif "DURATION" in component:
        end = _after(start, component["DURATION"].dt)
    else:
        end = start if isinstance(start, datetime) else start + timedelta(days=1)
    if isinstance(start, datetime) != isinstance(end, datetime):
        raise Malformed("start and end are not of one kind")
    if _as_utc(end) < _as_utc(start):
        raise Malformed("end before start")
    return start, end


def _after(start: date, duration: timedelta) -> date:
    """The end of a duration: days are of the calendar, hours of the clock (RFC 5545 §3.3.6)."""
    days = timedelta(days=duration.days)
    if not isinstance(start, datetime) or start.tzinfo is None:
        return start + duration
    return ((start + days).astimezone(UTC) + (duration - days)).astimezone(start.tzinfo)


def _as_utc(moment: date) -> datetime:
    # A floating time means "wherever you are"; it is kept as if it were UTC, and its row has no zone.
    if not isinstance(moment, datetime):
        return datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _instant(moment: date) -> str:
    return _as_utc(moment).isoformat()


def _text(component: Any, name: str) -> str | None:
    value = component.get(name)
    return None if value is None else str(value[0] if isinstance(value, list) else value)


def _recurrence(component: Any) -> str | None:
    lines = []
    for name in _RECURRENCE:
        values = component.get(name)
        for value in values if isinstance(values, list) else [] if values is None else [values]:
            parameters = value.params.to_ical().decode()
            head = f"{name};{parameters}" if parameters else name
            lines.append(f"{head}:{value.to_ical().decode()}")
    return orjson.dumps(lines).decode() if lines else None


def _address(value: Any) -> str | None:
    if value is None:
        return None
    text = str(value)
    return text[7:] if text.lower().startswith("mailto:") else text


def _attendees(component: Any) -> str | None:
    values = component.get("ATTENDEE")
    if values is None:
        return None
    people = []
    for value in values if isinstance(values, list) else [values]:
        person = {"email": _address(value), "displayName": value.params.get("CN")}
        answer = value.params.get("PARTSTAT")
        person["responseStatus"] = None if answer is None else str(answer).lower()
        people.append({key: text for key, text in person.items() if text})
    return orjson.dumps(people).decode()


def _stamp(component: Any) -> str | None:
    for name in ("LAST-MODIFIED", "DTSTAMP"):
        if name in component:
            return _instant(component[name].dt)
    return None
