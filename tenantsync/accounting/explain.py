"""Why a unit is not running, as an ordered chain, and when it will. Pure.

The auditor asks the same function whether a unit that is behind is behind for a reason.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from db.repositories.explaining import CalendarFacts, Closure, Place, UnitFacts
from db.states import AccountState, CalendarState, UnitState

SOON = 1.2
"""Intervals: a unit that is due within them waits for its next turn and for nothing else; delays spread by a tenth."""
LONGEST_REST = timedelta(hours=26)
"""Nothing declares a longer rest: lost calendars and revoked accounts are looked at once a day, spread by a tenth."""
LATE_TURN = timedelta(minutes=1)
"""Beyond the 2 s for which a tenant is put off, a turn that lies behind due work is a wake-up that was lost."""
HINDSIGHT = timedelta(seconds=1)
"""A unit is due with the first of its calendars; both are written by one statement, from one clock."""
TICKS_SILENT = 15.0  # seconds; a tick comes every second, and a dead beat is replaced within 15
NEVER = datetime.max.replace(tzinfo=UTC)
STARTS_WITHIN = timedelta(seconds=1)
"""A due unit is claimed by the next tick."""


@dataclass(frozen=True, slots=True)
class Link:
    """One thing to know about why a unit does not run. `until`: when it ends by itself, where that is known."""

    kind: str
    text: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget at a provider that is used up; `wait` in seconds."""

    scope: str
    scope_id: str
    wait: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """The chain, and what it comes to."""

    links: tuple[Link, ...]
    runs_at: datetime | None
    """An estimate of when the unit runs; None where that is up to somebody."""
    rest: str | None
    """The declared reason for which it sits out its occurrences; None where it is on its way or nothing is declared."""
    lost: bool
    """Nothing declares why it is not on its way: it will not run by itself, and should."""


def explain(
    facts: UnitFacts, *, every: timedelta, place: Place | None = None, budgets: Sequence[Budget] = ()
) -> Explanation:
    """The chain of a unit that is polled `every` so often; without `place`, no further than the unit itself goes."""
    running = _running(facts)
    due = not running and facts.next_due_at <= facts.now
    links = [*_tenant(facts), *_parked(facts), *_accounts(facts), *_cooldowns(facts), *_budgets(facts, budgets)]
    links += _backoff(facts)
    reason, lost = _standing(facts, every, running=running, due=due)
    if running:
        links += _lease(facts)
    elif not due:
        links += _not_due(facts, lost)
    else:
        links += _in_turn(facts, place, lost=lost)
        if place is not None:
            links += _nobody(facts, place)
    runs_at = _estimate(facts, links, budgets, running=running, lost=lost)
    if not links:
        links.append(Link("due", "nothing holds it: it is due and is claimed at the next tick", runs_at))
    return Explanation(tuple(links), runs_at, reason, lost)


def _standing(facts: UnitFacts, every: timedelta, *, running: bool, due: bool) -> tuple[str | None, bool]:
    """(declared reason for resting, whether it is lost)."""
    if running or facts.paused:
        return None, False
    if due:
        return None, facts.turn_paused is not False or (facts.ready_at or NEVER) > facts.now + LATE_TURN
    if facts.state == UnitState.PARKED:
        return "parked", False
    if not facts.calendars:
        return "no_calendars", False
    if facts.next_due_at <= facts.now + SOON * every:
        return None, False
    put_off = facts.rest in ("cooldown", "budget")
    first = min(calendar.due or NEVER for calendar in facts.calendars)
    if facts.next_due_at > first + HINDSIGHT and not put_off:
        return None, True
    reason = facts.rest or _reason_of(min(facts.calendars, key=lambda calendar: calendar.due or NEVER))
    return reason, reason is None or facts.next_due_at > facts.now + LONGEST_REST


def _reason_of(calendar: CalendarFacts) -> str | None:
    if calendar.account_state != AccountState.CONNECTED:
        return calendar.account_state
    if calendar.closed is not None:
        return "cooldown"
    if calendar.state in (CalendarState.LOST, CalendarState.CONFIRMING):
        return calendar.state
    return "backoff" if calendar.failures else None


def _running(facts: UnitFacts) -> bool:
    on_its_way = facts.state in (UnitState.DISPATCHED, UnitState.RUNNING)
    return on_its_way and facts.lease_until is not None and facts.lease_until > facts.now


def _tenant(facts: UnitFacts) -> Iterator[Link]:
    if facts.paused:
        by = f" by {facts.paused_by.rpartition(':')[2]}" if facts.paused_by else ""
        since = f" on {_day(facts.paused_at)}" if facts.paused_at else ""
        yield Link("paused", f"paused{by}{since}: {facts.pause_reason or 'no reason given'}")
    if facts.isolated_until is not None and facts.isolated_until > facts.now:
        until = _until(facts.isolated_until, facts.now)
        yield Link("isolated", f"its tenant runs in isolation {until}: {facts.isolated_reason}", facts.isolated_until)


def _parked(facts: UnitFacts) -> Iterator[Link]:
    if facts.state != UnitState.PARKED:
        return
    why = facts.parked_reason or f"it killed its worker {facts.crashes} times"
    if facts.next_due_at >= NEVER - timedelta(days=1):
        yield Link("parked", f"parked because {why}; `tenantsync parked retry` releases it")
    else:
        canary = _until(facts.next_due_at, facts.now, word="at")
        yield Link("parked", f"parked because {why}; it is tried again {canary}", facts.next_due_at)


def _accounts(facts: UnitFacts) -> Iterator[Link]:
    if not facts.calendars:
        yield Link("no_calendars", "it has no calendars: `tenantsync account add` connects an account")
    broken = {one.account_id: one for one in facts.calendars if one.account_state != AccountState.CONNECTED}
    for one in broken.values():
        need = "cannot work as it is" if one.account_state == AccountState.UNUSABLE else "has to be connected again"
        because = f": {one.account_reason}" if one.account_reason else ""
        yield Link("account", f"account {one.provider} {one.identity} {need}, since {_day(one.account_since)}{because}")


def _cooldowns(facts: UnitFacts) -> Iterator[Link]:
    for closed in _closures(facts).values():
        probe = f"; a probe is out {_until(closed.probe_until, facts.now)}" if closed.probe_until else ""
        text = (
            f"{closed.scope} {closed.scope_id} is closed {_until(closed.until, facts.now)}, because its provider "
            f"answered {closed.reason} at {_day(closed.since)}{probe}"
        )
        yield Link("cooldown", text, closed.until)


def _closures(facts: UnitFacts) -> dict[tuple[str, str], Closure]:
    return {(one.closed.scope, one.closed.scope_id): one.closed for one in facts.calendars if one.closed is not None}


def _budgets(facts: UnitFacts, budgets: Sequence[Budget]) -> Iterator[Link]:
    for budget in budgets:
        until = facts.now + timedelta(seconds=budget.wait)
        text = f"the budget of {budget.scope} {budget.scope_id} is used up; more {_until(until, facts.now, word='at')}"
        yield Link("budget", text, until)


def _backoff(facts: UnitFacts) -> Iterator[Link]:
    resting = [
        one
        for one in facts.calendars
        if one.account_state == AccountState.CONNECTED
        and (one.due or NEVER) > facts.now
        and (one.failures or one.state in (CalendarState.LOST, CalendarState.CONFIRMING))
    ]
    if not resting:
        return
    first = min(resting, key=lambda one: one.due or NEVER)
    kind = first.state if first.state in (CalendarState.LOST, CalendarState.CONFIRMING) else "backoff"
    after = {"lost": "was not found time after time", "confirming": "waits for a second empty listing"}.get(
        kind, f"backs off after {_count(first.failures, 'failure')} in a row"
    )
    of = f"{len(resting)} of {len(facts.calendars)} calendars rest; the first of them" if len(resting) > 1 else (
        "its calendar" if len(facts.calendars) == 1 else f"1 of {len(facts.calendars)} calendars"
    )  # fmt: skip
    last = f" ({first.last_error})" if first.last_error else ""
    yield Link(str(kind), f"{of} {after}{last} {_until(first.due or NEVER, facts.now)}", first.due)


def _lease(facts: UnitFacts) -> Iterator[Link]:
    until = facts.lease_until or facts.now
    if facts.state == UnitState.DISPATCHED:
        text = f"it is on its way to a worker, which may take {_until(until, facts.now)}"
        yield Link("dispatched", text, until)
    else:
        text = f"it is running: worker {facts.worker_id} holds its lease {_until(until, facts.now)}"
        yield Link("running", text, until)


def _not_due(facts: UnitFacts, lost: bool) -> Iterator[Link]:
    if lost:
        text = (
            f"it is not due {_until(facts.next_due_at, facts.now)}, and nothing says why: its wake-up is lost; "
            "`tenantsync sync now` makes it due"
        )
        yield Link("lost", text)
    elif facts.state != UnitState.PARKED and facts.calendars:
        yield Link("not_due", f"it is not due {_until(facts.next_due_at, facts.now)}", facts.next_due_at)


def _in_turn(facts: UnitFacts, place: Place | None, *, lost: bool) -> Iterator[Link]:
    if facts.paused:
        return
    if lost:
        text = (
            "it is due, and its tenant's turn is not: a wake-up is lost; cleanup mends it within the hour, "
            "`tenantsync sync now` at once"
        )
        yield Link("lost", text)
        return
    if facts.lease_until is not None and facts.lease_until <= facts.now and facts.state == UnitState.RUNNING:
        yield Link(
            "lease_ended", f"its worker {facts.worker_id} was lost at {_day(facts.lease_until)}; it is due again"
        )
    if place is None:
        return
    cap = facts.cap or 0
    if place.in_flight >= cap:
        yield Link(
            "at_cap",
            f"its tenant has {_count(place.in_flight, 'unit')} running in this lane, and may have {cap} at once",
        )
    if place.tenants_before or place.own_before:
        text = (
            f"before it in the lane {facts.lane}: {_count(place.tenants_before, 'tenant')} and "
            f"{_count(place.own_before, 'unit')} of its own tenant (weight {facts.weight or 0:g}, debt "
            f"{facts.debt or 0:.1f})"
        )
        yield Link("share", text)


def _nobody(facts: UnitFacts, place: Place) -> Iterator[Link]:
    if not place.workers:
        heard = (
            "none was ever heard of"
            if place.workers_silent is None
            else f"the last was heard of {_lasting(place.workers_silent)} ago"
        )
        yield Link("no_worker", f"no live worker serves the queue {facts.lane}: {heard}; start one")
    elif place.ticks_silent is not None and place.ticks_silent > TICKS_SILENT + 60:
        silent = _lasting(place.ticks_silent)
        yield Link("no_beat", f"no tick has come for {silent}: is a beat running, and does Redis answer?")


UP_TO_SOMEBODY = frozenset({"paused", "no_calendars", "lost", "no_worker", "no_beat"})


def _estimate(
    facts: UnitFacts, links: Sequence[Link], budgets: Sequence[Budget], *, running: bool, lost: bool
) -> datetime | None:
    if running:
        return facts.now
    kinds = {link.kind for link in links}
    working = [one for one in facts.calendars if one.account_state == AccountState.CONNECTED]
    forever = facts.next_due_at >= NEVER - timedelta(days=1)
    if lost or forever or kinds & UP_TO_SOMEBODY or not working:
        return None
    opens = [one.closed.until for one in working if one.closed is not None]
    shut = min(opens) if len(opens) == len(working) else facts.now
    afford = facts.now + timedelta(seconds=max((budget.wait for budget in budgets), default=0.0))
    return max(facts.now, facts.next_due_at, shut, afford) + STARTS_WITHIN


def _day(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if moment is not None else "an unknown time"


def _until(moment: datetime, now: datetime, *, word: str = "until") -> str:
    if moment >= NEVER - timedelta(days=1):
        return "ever"
    left = max(0.0, (moment - now).total_seconds())
    return f"{word} {moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC (in {_lasting(left)})"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _lasting(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size * 2:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
