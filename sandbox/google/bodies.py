"""Event bodies: which fields a client may write, what the server adds, and what it refuses."""

import base64
import re
from datetime import UTC, datetime
from random import Random

from sandbox.google.codec import JsonDict, encode, iso_ms
from sandbox.google.errors import ApiError
from sandbox.google.model import bare_of
from sandbox.google.recurrence import Series, moment_of

WRITABLE = frozenset(
    {
        "anyoneCanAddSelf", "attachments", "attendees", "attendeesOmitted", "birthdayProperties",
        "colorId", "conferenceData", "description", "end", "endTimeUnspecified", "eventLabelId",
        "eventType", "extendedProperties", "focusTimeProperties", "gadget", "guestsCanInviteOthers",
        "guestsCanModify", "guestsCanSeeOtherGuests", "location", "outOfOfficeProperties", "recurrence",
        "reminders", "sequence", "source", "start", "status", "summary", "transparency", "visibility",
        "workingLocationProperties",
    }
)  # fmt: skip
CLIENT_ID = re.compile(r"^[a-v0-9]{5,1024}$")
TIMES = ("start", "end", "recurrence")
_TYPES: dict[type, tuple[str, ...]] = {
    str: (
        "colorId", "description", "eventLabelId", "eventType", "id", "location", "status", "summary",
        "transparency", "visibility",
    ),
    dict: ("conferenceData", "end", "extendedProperties", "gadget", "reminders", "source", "start"),
    list: ("attachments", "attendees", "recurrence"),
    int: ("sequence",),
}  # fmt: skip
_STATUSES = frozenset({"confirmed", "tentative", "cancelled"})


def new_id(rng: Random) -> str:
    return base64.b32hexencode(rng.randbytes(16)).decode().rstrip("=").lower()


def fresh(event_id: str, written: JsonDict, *, owner: str, stamp: int, ical_uid: str | None = None) -> JsonDict:
    """A new event with everything that the server adds to what was written."""
    person = {"email": owner, "self": True}
    return {
        "kind": "calendar#event",
        "etag": "",
        "id": event_id,
        "status": "confirmed",
        "htmlLink": f"https://www.google.com/calendar/event?eid={event_id}",
        "created": iso_ms(stamp - stamp % 1000),
        "updated": "",
        "creator": person,
        "organizer": person,
        "iCalUID": ical_uid or f"{event_id}@google.com",
        "sequence": 0,
        "reminders": {"useDefault": True},
        "eventType": "default",
        **written,
    }


def writable(body: JsonDict) -> JsonDict:
    return {key: value for key, value in body.items() if key in WRITABLE}


def merge(old: JsonDict, patch: JsonDict) -> JsonDict:
    """Patch semantics: null removes, objects merge, lists replace."""
    result = dict(old)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        else:
            result[key] = value
    return result


def check_id(event_id: object) -> None:
    if not isinstance(event_id, str) or not CLIENT_ID.match(event_id):
        raise ApiError(400, "invalid", "Invalid resource id value.", location="id")


def check(resource: JsonDict) -> None:
    """The rules that a write must keep; seeds and poison go round them on purpose."""
    for kind, names in _TYPES.items():
        for name in names:
            if name in resource and not isinstance(resource[name], kind):
                raise ApiError(400, "invalid", f"Invalid value for {name}.", location=name)
    if resource.get("status", "confirmed") not in _STATUSES:
        raise ApiError(400, "invalid", "Invalid status value.", location="status")
    for name in ("start", "end"):
        _check_moment(name, resource.get(name) or {})
    _check_times(resource)


def _check_moment(name: str, when: JsonDict) -> None:
    if not {"date", "dateTime"} & when.keys():
        raise ApiError(400, "required", f"Missing {name} time.", location=name)
    if {"date", "dateTime"} <= when.keys():
        raise ApiError(400, "invalid", "Invalid start or end: date and dateTime exclude each other.")


def _check_times(resource: JsonDict) -> None:
    start, end = resource["start"], resource["end"]
    if ("date" in start) != ("date" in end):
        raise ApiError(400, "invalid", "Start and end times must either both be date or both be dateTime.")
    if resource.get("recurrence") and "dateTime" in start and not start.get("timeZone"):
        raise ApiError(400, "required", "Missing time zone definition for start time.", location="start")
    try:
        backwards = moment_of(end) < moment_of(start)
        if resource.get("recurrence"):
            next(Series(resource).slots(limit=1, until=datetime.max.replace(tzinfo=UTC)), None)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ApiError(400, "invalid", "Invalid start or end time.") from error
    if backwards:
        raise ApiError(400, "timeRangeEmpty")


def changed(old: JsonDict, new: JsonDict) -> set[str]:
    return {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}


def cancelled_stub(resource: JsonDict, etag: str) -> bytes:
    return encode(bare_of(resource | {"etag": etag, "status": "cancelled"}))
