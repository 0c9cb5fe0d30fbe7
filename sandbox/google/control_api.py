"""The control API's commands. Each is a plain function of the store; its parameters are the JSON it takes."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pydantic import ConfigDict, validate_call

from sandbox.google.codec import JsonDict, encode, iso_ms
from sandbox.google.model import Calendar, Profile
from sandbox.google.params import ListQuery, read_event_query
from sandbox.google.seeding import Churner, Seeder, poison, seed_bodies
from sandbox.google.specs import AccessRole, Behaviour, Edit, Fault, FleetSpec, Poison, SeedSpec
from sandbox.google.store import Store
from sandbox.google.views import View

COMMANDS: dict[str, Callable[..., Any]] = {}
# What belongs to the calendar or its ACL is read-only in the list, so a change of it makes no delta there.
_ENTRY_FIELDS = frozenset({"selected", "hidden", "summary_override", "color_id"})


class Raw(bytes):
    """An answer that is JSON already."""

    __slots__ = ()


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    checked = validate_call(config=ConfigDict(arbitrary_types_allowed=True))(function)
    COMMANDS[function.__name__] = checked
    return function


@command
def reset(store: Store, *, seed: int | None = None) -> None:
    store.reset(seed=seed)


@command
def behaviour(store: Store) -> JsonDict:
    return store.behaviour.model_dump()


@command
def configure(store: Store, *, changes: dict[str, Any]) -> JsonDict:
    store.configure(Behaviour.model_validate(store.behaviour.model_dump() | changes))
    return store.behaviour.model_dump()


@command
def create_account(store: Store, *, email: str, refresh_token: str | None = None) -> JsonDict:
    return store.info(store.create_account(email, refresh_token=refresh_token)).model_dump()


@command
def create_calendar(
    store: Store,
    *,
    account: str,
    calendar: str,
    summary: str | None = None,
    time_zone: str = "Europe/Berlin",
    access_role: AccessRole = "owner",
    hidden: bool = False,
    selected: bool = True,
    reports_deletions: bool = True,
) -> None:
    profile = Profile(
        summary=calendar if summary is None else summary,
        time_zone=time_zone,
        access_role=access_role,
        hidden=hidden,
        selected=selected,
        reports_deletions=reports_deletions,
    )
    store.create_calendar(store.account(account), calendar, profile)


@command
def update_calendar(
    store: Store,
    *,
    account: str,
    calendar: str,
    changes: dict[str, Any],
) -> None:
    found = store.calendar(account, calendar)
    allowed = set(Profile.__slots__) - {"deleted", "primary"}
    if unknown := changes.keys() - allowed:
        raise ValueError(f"no such calendar field: {', '.join(sorted(unknown))}; there are {sorted(allowed)}")
    for name, value in changes.items():
        setattr(found.profile, name, value)
    found.forget_head()
    if _ENTRY_FIELDS & changes.keys():
        store.account(account).touch(found, store.clock.stamp())


@command
def remove_calendar(store: Store, *, account: str, calendar: str) -> None:
    found = store.calendar(account, calendar)
    found.profile.deleted = True
    store.account(account).touch(found, store.clock.stamp())


@command
def restore_calendar(store: Store, *, account: str, calendar: str) -> None:
    """Subscribed again: the same calendar with its events, and a changed entry in the list."""
    owner = store.account(account)
    found = owner.calendars[calendar]
    found.profile.deleted = False
    owner.touch(found, store.clock.stamp())


@command
def seed(store: Store, *, account: str, calendar: str, spec: SeedSpec) -> int:
    return Seeder(store, spec).run(store.calendar(account, calendar))


@command
def seed_events(
    store: Store, *, account: str, calendar: str, events: list[dict[str, Any]], raw: bool = False
) -> list[str]:
    return seed_bodies(store, store.calendar(account, calendar), events, raw=raw)


@command
def seed_fleet(store: Store, *, spec: FleetSpec) -> list[JsonDict]:
    made = []
    for number in range(spec.first, spec.first + spec.accounts):
        account = store.create_account(spec.email.format(n=number))
        for index in range(1, spec.calendars):
            name = f"c{index}.{account.email}"
            store.create_calendar(account, name, Profile(summary=f"Calendar {index}"))
        for calendar in account.calendars.values():
            Seeder(store, spec.seed).run(calendar)
        made.append(store.info(account).model_dump())
    return made


@command
def apply(store: Store, *, edits: list[Edit]) -> list[JsonDict | None]:
    return [_apply(store, edit) for edit in edits]


@command
def churn(store: Store, *, edits: int, account: str | None = None, calendar: str | None = None) -> int:
    return Churner(store).run(_calendars(store, account, calendar), edits)


@command
def add_poison(store: Store, *, account: str, calendar: str, kind: Poison) -> str:
    return poison(store, store.calendar(account, calendar), kind)


@command
def add_fault(store: Store, *, fault: Fault) -> int:
    return store.faults.add(fault)


@command
def clear_faults(store: Store, *, number: int | None = None, account: str | None = None) -> int:
    return store.faults.clear(number=number, account=account)


@command
def faults(store: Store) -> list[JsonDict]:
    return [
        {"number": number, "left": left, "fault": fault.model_dump()} for number, fault, left in store.faults.pending()
    ]


@command
def revoke_grant(store: Store, *, account: str) -> None:
    store.account(account).revoked = True


@command
def restore_grant(store: Store, *, account: str) -> None:
    store.account(account).revoked = False


@command
def issue_access_token(store: Store, *, account: str, ttl_s: float = 3600.0) -> str:
    return store.grant(store.account(account), ttl_s)


@command
def expire_access_tokens(store: Store, *, account: str | None = None) -> int:
    return store.expire_grants(store.account(account) if account is not None else None)


@command
def expire_sync_tokens(store: Store, *, account: str | None = None, calendar: str | None = None) -> int:
    """Of the events of one, some or all calendars; calendar lists keep theirs."""
    found = _calendars(store, account, calendar)
    for each in found:
        store.desk.expire_all(each)
    return len(found)


@command
def expire_calendar_list_tokens(store: Store, *, account: str) -> None:
    store.desk.expire_all(store.account(account))


@command
def forget_sync_token(store: Store, *, token: str) -> bool:
    return store.desk.forget(token)


@command
def requests(
    store: Store,
    *,
    since: int = 0,
    account: str | None = None,
    calendar: str | None = None,
    endpoint: str | None = None,
    limit: int | None = None,
) -> list[JsonDict]:
    found = [
        entry.model_dump()
        for entry in store.log
        if entry.seq > since
        and account in (None, entry.account)
        and calendar in (None, entry.calendar)
        and endpoint in (None, entry.endpoint)
    ]
    return found if limit is None else found[-limit:]


@command
def clear_requests(store: Store) -> None:
    """The counters too; requests under way are still counted as in flight."""
    store.log.clear()
    for tally in (store.counters.total, *store.counters.accounts.values()):
        tally.requests = tally.bytes_sent = 0
        tally.peak = tally.in_flight
        tally.by_endpoint, tally.by_status = {}, {}


@command
def counters(store: Store) -> JsonDict:
    return store.counters.model_dump()


@command
def truth(store: Store, *, account: str, calendar: str, show_deleted: bool = False) -> Raw:
    """What an unpaged full list with singleEvents=false would hold, whatever faults are set."""
    found = store.calendar(account, calendar)
    view = View(found, _plain_query(show_deleted), store.behaviour, now_ms=store.clock.now_ms())
    return Raw(b"[" + b",".join(item for row in found.from_ordinal(0) for item in view.render(row)) + b"]")


@command
def clock(store: Store) -> JsonDict:
    return {"now": iso_ms(store.clock.now_ms()), "now_ms": store.clock.now_ms()}


@command
def hold_clock(store: Store, *, at: datetime | None = None) -> JsonDict:
    moment = store.clock.now_ms() if at is None else round(_aware(at).timestamp() * 1000)
    store.clock.hold(moment)
    return {"now": iso_ms(moment), "now_ms": moment}


@command
def release_clock(store: Store) -> None:
    store.clock.release()


@command
def advance_clock(store: Store, *, seconds: float) -> JsonDict:
    store.clock.advance(round(seconds * 1000))
    return {"now": iso_ms(store.clock.now_ms()), "now_ms": store.clock.now_ms()}


def run(store: Store, name: str, payload: JsonDict) -> bytes:
    if name not in COMMANDS:
        raise LookupError(f"no command {name!r}; there are {', '.join(sorted(COMMANDS))}")
    result = COMMANDS[name](store, **payload)
    return bytes(result) if isinstance(result, Raw) else encode(result)


def _apply(store: Store, edit: Edit) -> JsonDict | None:
    calendar, editor = store.calendar(edit.account, edit.calendar), store.editor
    event, start = edit.event or "", edit.original_start or ""
    match edit.kind:
        case "insert":
            return editor.insert(calendar, edit.body)
        case "patch":
            return editor.patch(calendar, event, edit.body)
        case "update":
            return editor.update(calendar, event, edit.body)
        case "restore":
            return editor.restore(calendar, event)
        case "move":
            return editor.move(calendar, event, store.calendar(edit.account, edit.destination or ""))
        case "override_instance":
            return editor.override_instance(calendar, event, start, edit.body)
        case "split":
            return editor.split(calendar, event, start, edit.body)
        case "cancel_instance":
            editor.cancel_instance(calendar, event, start)
        case "delete":
            editor.delete(calendar, event)
    return None


def _calendars(store: Store, account: str | None, calendar: str | None) -> list[Calendar]:
    accounts = list(store.accounts.values()) if account is None else [store.account(account)]
    found = [each for owner in accounts for each in owner.calendars.values() if not each.profile.deleted]
    found = [each for each in found if calendar in (None, each.id)]
    if not found:
        raise LookupError("no calendar matches")
    return found


def _plain_query(show_deleted: bool) -> ListQuery:
    return read_event_query({"showDeleted": ["true" if show_deleted else "false"]}, Behaviour())


def _aware(at: datetime) -> datetime:
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
