"""Query parameters of the list methods: read strictly, because a typo that is ignored hides a bug of ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from sandbox.google.codec import parse_moment
from sandbox.google.errors import ApiError
from sandbox.google.specs import Behaviour
from sandbox.google.tokens import digest

Pairs = Mapping[str, list[str]]

DEFAULT_PAGE, LARGEST_PAGE = 250, 2500
DEFAULT_LIST_PAGE, LARGEST_LIST_PAGE = 100, 250
STANDARD = frozenset(
    {
        "$.xgafv", "access_token", "alt", "callback", "fields", "key", "oauth_token", "prettyPrint",
        "quotaUser", "userIp", "upload_protocol", "uploadType",
    }
)  # fmt: skip
EVENT_PARAMS = frozenset(
    {
        "alwaysIncludeEmail", "eventTypes", "iCalUID", "maxAttendees", "maxResults", "orderBy",
        "pageToken", "privateExtendedProperty", "q", "sharedExtendedProperty", "showDeleted",
        "showHiddenInvitations", "singleEvents", "syncToken", "timeMax", "timeMin", "timeZone",
        "updatedMin",
    }
)  # fmt: skip
INSTANCE_PARAMS = frozenset(
    {
        "alwaysIncludeEmail", "maxAttendees", "maxResults", "originalStart", "pageToken", "showDeleted",
        "timeMax", "timeMin", "timeZone",
    }
)  # fmt: skip
CALENDAR_LIST_PARAMS = frozenset(
    {
        "maxResults", "minAccessRole", "pageToken", "showDeleted", "showHidden",
        "showOwnOrganizationOnly", "syncToken",
    }
)  # fmt: skip
NOT_WITH_TOKEN = (
    "iCalUID", "privateExtendedProperty", "q", "sharedExtendedProperty", "timeMin", "timeMax", "updatedMin",
)  # fmt: skip
FILTERS = ("iCalUID", "orderBy", "privateExtendedProperty", "q", "sharedExtendedProperty", "updatedMin")
_FIXED_DEFAULTS = {
    "singleEvents": "false", "showHiddenInvitations": "false", "alwaysIncludeEmail": "false",
    "eventTypes": None, "maxAttendees": None, "timeZone": None,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ListQuery:
    """An events.list request. A sync token is bound to its `fixed` part, a page token to the `whole`."""

    size: int
    single_events: bool
    show_deleted: bool | None
    page_token: str | None
    sync_token: str | None
    order_by: str | None
    time_min: int | None
    time_max: int | None
    updated_min: int | None
    text: str | None
    ical_uid: str | None
    event_types: frozenset[str]
    private: tuple[str, ...]
    shared: tuple[str, ...]
    max_attendees: int | None
    time_zone: str | None
    filtered: bool
    fixed: int
    whole: int

    @property
    def filters_rows(self) -> bool:
        return (
            self.filtered
            or bool(self.event_types)
            or self.time_min is not None
            or self.time_max is not None
            or self.max_attendees is not None
        )


def read_event_query(pairs: Pairs, behaviour: Behaviour) -> ListQuery:
    _check_names(pairs, EVENT_PARAMS, behaviour)
    query = ListQuery(
        size=_size(pairs, DEFAULT_PAGE, LARGEST_PAGE),
        single_events=bool(_flag(pairs, "singleEvents")),
        show_deleted=_flag(pairs, "showDeleted"),
        page_token=_one(pairs, "pageToken"),
        sync_token=_one(pairs, "syncToken"),
        order_by=_one(pairs, "orderBy"),
        time_min=_time(pairs, "timeMin"),
        time_max=_time(pairs, "timeMax"),
        updated_min=_time(pairs, "updatedMin"),
        text=_one(pairs, "q"),
        ical_uid=_one(pairs, "iCalUID"),
        event_types=frozenset(pairs.get("eventTypes", ())),
        private=tuple(pairs.get("privateExtendedProperty", ())),
        shared=tuple(pairs.get("sharedExtendedProperty", ())),
        max_attendees=_number(pairs, "maxAttendees"),
        time_zone=_one(pairs, "timeZone"),
        filtered=any(name in pairs for name in FILTERS),
        fixed=_fixed(pairs),
        whole=whole_of(pairs),
    )
    _check_event_query(query, pairs)
    return query


def _check_event_query(query: ListQuery, pairs: Pairs) -> None:
    if query.sync_token is not None:
        if query.order_by is not None:
            raise ApiError(400, "syncTokenWithNonDefaultOrdering")
        if query.show_deleted is False or any(name in pairs for name in NOT_WITH_TOKEN):
            raise ApiError(400, "syncTokenWithRequestRestrictions")
    if query.order_by not in (None, "startTime", "updated"):
        raise invalid("orderBy", query.order_by)
    if query.order_by == "startTime" and not query.single_events:
        message = "The requested ordering is not available for the particular query."
        raise ApiError(400, "invalid", message, location="orderBy")
    if query.time_min is not None and query.time_max is not None and query.time_min >= query.time_max:
        raise ApiError(400, "timeRangeEmpty")


@dataclass(frozen=True, slots=True)
class CalendarListQuery:
    size: int
    show_deleted: bool | None
    show_hidden: bool | None
    min_access_role: str | None
    page_token: str | None
    sync_token: str | None
    whole: int


def read_calendar_list_query(pairs: Pairs, behaviour: Behaviour) -> CalendarListQuery:
    _check_names(pairs, CALENDAR_LIST_PARAMS, behaviour)
    query = CalendarListQuery(
        size=_size(pairs, DEFAULT_LIST_PAGE, LARGEST_LIST_PAGE),
        show_deleted=_flag(pairs, "showDeleted"),
        show_hidden=_flag(pairs, "showHidden"),
        min_access_role=_one(pairs, "minAccessRole"),
        page_token=_one(pairs, "pageToken"),
        sync_token=_one(pairs, "syncToken"),
        whole=whole_of(pairs),
    )
    restricted = query.show_deleted is False or query.show_hidden is False or "showOwnOrganizationOnly" in pairs
    if query.sync_token is not None and (restricted or query.min_access_role is not None):
        raise ApiError(400, "syncTokenWithRequestRestrictions")
    return query


@dataclass(frozen=True, slots=True)
class InstancesQuery:
    size: int
    show_deleted: bool
    page_token: str | None
    original_start: str | None
    time_min: int | None
    time_max: int | None
    whole: int


def read_instances_query(pairs: Pairs, behaviour: Behaviour) -> InstancesQuery:
    _check_names(pairs, INSTANCE_PARAMS, behaviour)
    return InstancesQuery(
        size=_size(pairs, DEFAULT_PAGE, LARGEST_PAGE),
        show_deleted=bool(_flag(pairs, "showDeleted")),
        page_token=_one(pairs, "pageToken"),
        original_start=_one(pairs, "originalStart"),
        time_min=_time(pairs, "timeMin"),
        time_max=_time(pairs, "timeMax"),
        whole=whole_of(pairs),
    )


def invalid(name: str, value: str) -> ApiError:
    return ApiError(400, "invalidParameter", f"Invalid value for {name}: {value[:80]}", location=name)


def whole_of(pairs: Pairs) -> int:
    kept = tuple(
        sorted((key, tuple(value)) for key, value in pairs.items() if key != "pageToken" and key not in STANDARD)
    )
    return digest(kept)


@lru_cache(maxsize=1024)
def _digest(parts: tuple[object, ...]) -> int:
    return digest(parts)


def _fixed(pairs: Pairs) -> int:
    """A parameter that is spelled out with its default value counts as absent."""
    kept = []
    for name, default in _FIXED_DEFAULTS.items():
        values = sorted(pairs.get(name, ()))
        if values and values != [default]:
            kept.append((name, tuple(values)))
    return _digest(tuple(kept))


def _check_names(pairs: Pairs, known: frozenset[str], behaviour: Behaviour) -> None:
    if not behaviour.strict_params:
        return
    for name in pairs:
        if name not in known and name not in STANDARD:
            raise ApiError(400, "invalidParameter", f"Unknown parameter: {name[:80]}", location=name[:80])


def _one(pairs: Pairs, name: str) -> str | None:
    values = pairs.get(name)
    return values[0] if values else None


def _flag(pairs: Pairs, name: str) -> bool | None:
    value = _one(pairs, name)
    if value is None:
        return None
    if value not in {"true", "false"}:
        raise invalid(name, value)
    return value == "true"


def _size(pairs: Pairs, default: int, largest: int) -> int:
    return min(_number(pairs, "maxResults") or default, largest)


def _number(pairs: Pairs, name: str) -> int | None:
    value = _one(pairs, name)
    if value is None:
        return None
    if not value.isdecimal() or int(value) < 1:
        raise invalid(name, value)
    return int(value)


def _time(pairs: Pairs, name: str) -> int | None:
    value = _one(pairs, name)
    if value is None:
        return None
    try:
        return round(parse_moment(value).timestamp() * 1000)
    except ValueError as error:
        raise ApiError(400, "badRequest", "Bad Request", location=name) from error
