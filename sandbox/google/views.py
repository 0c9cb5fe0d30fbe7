"""How a row looks to one request: filtered, expanded, shortened, or reduced to busy time."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from sandbox.google.codec import JsonDict, encode
from sandbox.google.edits import BROKEN
from sandbox.google.model import Calendar, Row, bare_of
from sandbox.google.params import ListQuery
from sandbox.google.recurrence import Series, Slot, instance_of, moment_of
from sandbox.google.specs import Behaviour

_BUSY = (
    "kind", "etag", "id", "status", "created", "updated", "start", "end", "recurrence", "recurringEventId",
    "originalStartTime", "transparency", "iCalUID", "sequence", "eventType",
)  # fmt: skip
_SEARCHED = ("summary", "description", "location")


class View:
    """Decides for one list request which rows it shows and as what; a row may become many items or none."""

    def __init__(self, calendar: Calendar, query: ListQuery, behaviour: Behaviour, *, now_ms: int) -> None:
        self._calendar = calendar
        self._query = query
        self._behaviour = behaviour
        self._delta = query.sync_token is not None
        self._busy_only = calendar.profile.access_role == "freeBusyReader"
        self._tombstones_from = now_ms - round(behaviour.tombstone_days * 86_400_000)
        self._expand_until = datetime.fromtimestamp(now_ms / 1000, UTC) + timedelta(days=behaviour.expansion_days)
        plain = not (query.single_events or query.filters_rows or self._busy_only)
        self.render: Callable[[Row], list[bytes]] = self._plain if plain else self._worked

    def _plain(self, row: Row) -> list[bytes]:
        """The fast path: bytes as they are stored."""
        if not row.cancelled and not row.orphaned:
            return [row.body]
        return [self._cancelled(row)] if self._shows_cancelled(row) else []

    def _worked(self, row: Row) -> list[bytes]:
        gone = row.cancelled or row.orphaned
        if gone and not self._shows_cancelled(row):
            return []
        if not self._query.filters_rows and not self._query.single_events:
            return [self._cancelled(row) if gone else self._dressed(row.resource())]
        resource = row.resource()
        if not self._passes(resource):
            return []
        if self._query.single_events and resource.get("recurrence"):
            return [self._item(instance, row) for instance in self._expanded(resource)]
        return [self._item(resource, row)] if self._in_window(resource) else []

    def _shows_cancelled(self, row: Row) -> bool:
        if row.orphaned and not self._behaviour.list_exceptions_of_deleted_master:
            return False
        if self._delta:
            return self._calendar.profile.reports_deletions or self._is_exception(row)
        if self._query.updated_min is not None:
            return True
        if self._is_exception(row):
            return bool(self._query.show_deleted) or not self._query.single_events
        return bool(self._query.show_deleted) and row.updated_ms >= self._tombstones_from

    def _is_exception(self, row: Row) -> bool:
        """Cancelled instances of a series that lives are content, not tombstones."""
        return not row.orphaned and self._calendar.living(row.master)

    def _cancelled(self, row: Row) -> bytes:
        if self._behaviour.keep_cancelled_details and self._query.show_deleted and not self._busy_only:
            return row.body
        return row.bare or encode(bare_of(row.resource() | {"status": "cancelled"}))

    def _item(self, resource: JsonDict, row: Row) -> bytes:
        if not row.cancelled and not row.orphaned:
            return self._dressed(resource)
        if resource["id"] == row.id:
            return self._cancelled(row)
        return encode(bare_of(resource | {"status": "cancelled"}))

    def _dressed(self, resource: JsonDict) -> bytes:
        if self._busy_only:
            resource = {key: resource[key] for key in _BUSY if key in resource} | {"visibility": "private"}
        limit, guests = self._query.max_attendees, resource.get("attendees")
        if limit is not None and isinstance(guests, list) and len(guests) > limit:
            resource = resource | {"attendees": guests[:limit], "attendeesOmitted": True}
        return encode(resource)

    def _expanded(self, master: JsonDict) -> Iterator[JsonDict]:
        """Bug for bug: without a window, one touched series fills a delta with years of instances."""
        own = self._calendar.exceptions.get(master["id"], set())
        for slot in self._slots(master):
            instance = instance_of(master, slot)
            if instance["id"] not in own and self._in_window(instance):
                yield instance

    def _slots(self, master: JsonDict) -> list[Slot]:
        until = self._expand_until
        if self._query.time_max is not None:
            until = min(until, datetime.fromtimestamp(self._query.time_max / 1000, UTC))
        try:
            return list(Series(master).slots(limit=self._behaviour.expansion_limit, until=until))
        except BROKEN:
            return []

    def _passes(self, resource: JsonDict) -> bool:
        query = self._query
        if query.updated_min is not None and _ms(resource.get("updated")) < query.updated_min:
            return False
        if query.ical_uid is not None and resource.get("iCalUID") != query.ical_uid:
            return False
        if query.event_types and resource.get("eventType", "default") not in query.event_types:
            return False
        if not _has_properties(resource, "private", query.private):
            return False
        if not _has_properties(resource, "shared", query.shared):
            return False
        return query.text is None or query.text.lower() in _searchable(resource)

    def _in_window(self, resource: JsonDict) -> bool:
        """What has no readable time is shown: a filter must not hide a poisoned event."""
        low, high = self._query.time_min, self._query.time_max
        if low is None and high is None:
            return True
        if resource.get("recurrence"):
            return any(self._in_window(instance_of(resource, slot)) for slot in self._slots(resource))
        zone = self._calendar.profile.time_zone
        try:
            start, end = moment_of(resource["start"], zone), moment_of(resource["end"], zone)
        except (*BROKEN, OverflowError):
            return True
        after = low is None or end.timestamp() * 1000 > low
        return after and (high is None or start.timestamp() * 1000 < high)


def sort_key(order_by: str, body: JsonDict, zone: str) -> float:
    if order_by == "updated":
        return _ms(body.get("updated"))
    try:
        return moment_of(body.get("start") or body["originalStartTime"], zone).timestamp() * 1000
    except (*BROKEN, OverflowError):
        return 0.0


def busy_body(calendar: Calendar, resource: JsonDict) -> JsonDict:
    """A single event as the account may see it."""
    if calendar.profile.access_role != "freeBusyReader":
        return resource
    return {key: resource[key] for key in _BUSY if key in resource} | {"visibility": "private"}


def _ms(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() * 1000 if text else 0.0


def _has_properties(resource: JsonDict, kind: str, wanted: tuple[str, ...]) -> bool:
    if not wanted:
        return True
    held = (resource.get("extendedProperties") or {}).get(kind) or {}
    pairs = (text.partition("=") for text in wanted)
    return all(held.get(key) == value for key, _, value in pairs)


def _searchable(resource: JsonDict) -> str:
    guests = [person for person in resource.get("attendees", ()) if isinstance(person, dict)]
    people = " ".join(str(person.get("email", "")) for person in guests)
    return " ".join([*(str(resource.get(name, "")) for name in _SEARCHED), people]).lower()
