"""The endpoints: each takes one authorised call and gives one reply, or raises the API's refusal."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sandbox.google.calendar_lists import list_calendars
from sandbox.google.codec import JsonDict, decode, encode, etag_of
from sandbox.google.errors import ApiError
from sandbox.google.fieldmask import Mask, mask_body, parse_mask
from sandbox.google.listing import Mark, Page, list_body, list_events, masked_body, settle
from sandbox.google.model import Account, Calendar, bare_of
from sandbox.google.params import (
    InstancesQuery,
    Pairs,
    read_calendar_list_query,
    read_event_query,
    read_instances_query,
)
from sandbox.google.recurrence import Series, Slot, instance_of, key_of, moment_of
from sandbox.google.store import Store
from sandbox.google.views import busy_body

JSON_TYPE = "application/json; charset=UTF-8"
_WRITERS = frozenset({"owner", "writer", "writerWithoutPrivateAccess"})


@dataclass(slots=True)
class Call:
    store: Store
    account: Account
    calendar_id: str
    event_id: str
    pairs: Pairs
    body: bytes
    if_match: str | None
    if_none_match: str | None
    quirks: frozenset[str]
    mask: Mask | None = field(init=False)

    def __post_init__(self) -> None:
        text = self.pairs.get("fields")
        self.mask = parse_mask(text[0]) if text else None

    def calendar(self) -> Calendar:
        calendar = self.account.find(self.calendar_id)
        if calendar is None:
            raise ApiError(404, "notFound")
        return calendar

    def writable_calendar(self) -> Calendar:
        calendar = self.calendar()
        if calendar.profile.access_role not in _WRITERS:
            raise ApiError(403, "requiredAccessLevel")
        return calendar

    def written(self) -> JsonDict:
        try:
            return decode(self.body)
        except (ValueError, TypeError) as error:
            raise ApiError(400, "parseError") from error


@dataclass(slots=True)
class Reply:
    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: dict[str, str] = field(default_factory=dict)


Operation = Callable[[Call], Reply]


def refused(error: ApiError) -> Reply:
    return Reply(error.status, error.envelope(), headers=dict(error.headers))


def calendar_list_list(call: Call) -> Reply:
    query = read_calendar_list_query(call.pairs, call.store.behaviour)
    body = list_calendars(call.account, query, call.store.desk, quirks=call.quirks, mask=call.mask)
    return Reply(200, body)


def calendar_list_get(call: Call) -> Reply:
    return _resource(call, call.calendar().entry())


def calendars_get(call: Call) -> Reply:
    calendar = call.calendar()
    resource = {
        "kind": "calendar#calendar",
        "etag": etag_of(calendar.listed_ms),
        "id": calendar.id,
        "summary": calendar.profile.summary,
        "description": calendar.profile.description,
        "timeZone": calendar.profile.time_zone,
        "conferenceProperties": {"allowedConferenceSolutionTypes": ["hangoutsMeet"]},
    }
    return _resource(call, resource)


def events_list(call: Call) -> Reply:
    calendar = call.calendar()
    query = read_event_query(call.pairs, call.store.behaviour)
    etag = str(calendar.headline()["etag"]) if call.if_none_match is not None else None
    if etag is not None and call.if_none_match == etag:
        return Reply(304, b"")
    return Reply(200, list_events(calendar, query, call.store.desk, quirks=call.quirks, mask=call.mask))


def events_get(call: Call) -> Reply:
    calendar = call.calendar()
    target = call.store.editor.find(calendar, call.event_id)
    return _resource(call, busy_body(calendar, target.resource))


def events_insert(call: Call) -> Reply:
    return _resource(call, call.store.editor.insert(call.writable_calendar(), call.written()))


def events_patch(call: Call) -> Reply:
    calendar, body = call.writable_calendar(), call.written()
    return _resource(call, call.store.editor.patch(calendar, call.event_id, body, if_match=call.if_match))


def events_update(call: Call) -> Reply:
    calendar, body = call.writable_calendar(), call.written()
    return _resource(call, call.store.editor.update(calendar, call.event_id, body, if_match=call.if_match))


def events_delete(call: Call) -> Reply:
    call.store.editor.delete(call.writable_calendar(), call.event_id, if_match=call.if_match)
    return Reply(204, b"")


def events_move(call: Call) -> Reply:
    source = call.writable_calendar()
    names = call.pairs.get("destination")
    if not names:
        raise ApiError(400, "required", location="destination")
    destination = call.account.find(names[0])
    if destination is None:
        raise ApiError(404, "notFound")
    if destination.profile.access_role not in _WRITERS:
        raise ApiError(403, "requiredAccessLevel")
    return _resource(call, call.store.editor.move(source, call.event_id, destination))


def events_instances(call: Call) -> Reply:
    """On an occurrence's id it answers with that occurrence alone."""
    calendar, desk = call.calendar(), call.store.desk
    query = read_instances_query(call.pairs, call.store.behaviour)
    target = call.store.editor.find(calendar, call.event_id)
    here = Mark(0)
    if query.page_token is not None:
        here = Mark(desk.open_page(query.page_token, owner=calendar, query=query.whole).position)
    found = [target.resource] if target.master else _instances(call, calendar, target.resource, query)
    items = [encode(busy_body(calendar, item)) for item in found]
    end = here.position + query.size
    page = Page(items[here.position : end], here, Mark(end - 1), Mark(end) if end < len(items) else None)
    settle(page, query.page_token, desk, calendar, query.whole, calendar.revision, call.quirks, delta=False)
    if call.mask is None:
        return Reply(200, list_body(calendar.head(), page))
    return Reply(200, masked_body(calendar.headline(), page, call.mask))


def _instances(call: Call, calendar: Calendar, master: JsonDict, query: InstancesQuery) -> list[JsonDict]:
    behaviour = call.store.behaviour
    until = datetime.fromtimestamp(call.store.clock.now_ms() / 1000, UTC) + timedelta(days=behaviour.expansion_days)
    try:
        slots = list(Series(master).slots(limit=behaviour.expansion_limit, until=until))
    except (KeyError, ValueError, TypeError) as error:
        raise ApiError(400, "invalid", "The event is not a series.", location="eventId") from error
    wanted = key_of(query.original_start) if query.original_start is not None else None
    kept = [slot for slot in slots if wanted in (None, slot.key)]
    shown = (_instance(calendar, master, slot, query) for slot in kept)
    return [item for item in shown if item is not None and _within(item, query)]


def _instance(calendar: Calendar, master: JsonDict, slot: Slot, query: InstancesQuery) -> JsonDict | None:
    row = calendar.rows.get(f"{master['id']}_{slot.key}")
    if row is None:
        return instance_of(master, slot)
    if row.cancelled or row.orphaned:
        return bare_of(row.resource() | {"status": "cancelled"}) if query.show_deleted else None
    return row.resource()


def _within(item: JsonDict, query: InstancesQuery) -> bool:
    if "start" not in item:
        return True
    ends, starts = moment_of(item["end"]).timestamp() * 1000, moment_of(item["start"]).timestamp() * 1000
    late_enough = query.time_min is None or ends > query.time_min
    return late_enough and (query.time_max is None or starts < query.time_max)


def _resource(call: Call, resource: JsonDict) -> Reply:
    etag = resource["etag"]
    if call.if_none_match is not None and call.if_none_match == etag:
        return Reply(304, b"", headers={"ETag": etag})
    return Reply(200, mask_body(call.mask, encode(resource)), headers={"ETag": etag})


ROUTES: tuple[tuple[str, str, str, Operation], ...] = (
    ("GET", "/users/me/calendarList", "calendarList.list", calendar_list_list),
    ("GET", "/users/me/calendarList/{calendar}", "calendarList.get", calendar_list_get),
    ("GET", "/calendars/{calendar}", "calendars.get", calendars_get),
    ("GET", "/calendars/{calendar}/events", "events.list", events_list),
    ("POST", "/calendars/{calendar}/events", "events.insert", events_insert),
    ("GET", "/calendars/{calendar}/events/{event}", "events.get", events_get),
    ("PUT", "/calendars/{calendar}/events/{event}", "events.update", events_update),
    ("PATCH", "/calendars/{calendar}/events/{event}", "events.patch", events_patch),
    ("DELETE", "/calendars/{calendar}/events/{event}", "events.delete", events_delete),
    ("POST", "/calendars/{calendar}/events/{event}/move", "events.move", events_move),
    ("GET", "/calendars/{calendar}/events/{event}/instances", "events.instances", events_instances),
)
