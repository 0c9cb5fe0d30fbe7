"""The auditor, which goes round all units and periodic jobs, and `why`, which explains one.

A round of a small fleet is one occurrence of the audit; of a large one, several: each goes on where the one
before ended, for `BUDGET` seconds, and the last whole round stands as the result until the next is whole. What
is found in a round under way is told at once.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import Connection

from config.queues import Lane
from config.settings import Settings
from db.repositories import accounting, budgets, explaining, schedules
from db.repositories.accounting import Books
from db.repositories.explaining import UnitFacts
from db.session import Database
from db.states import UnitState
from tenantsync import clock
from tenantsync.accounting import explain, rules
from tenantsync.accounting.explain import Budget, Explanation
from tenantsync.accounting.rules import Policies, Span, Tally
from tenantsync.limits.rules import POLLS, Scope, limits_of

PORTION = 5_000
"""Units a statement."""
FACTS_AT_ONCE = 500
BUDGET = 5.0  # seconds an occurrence; it comes every 15
STUCK_AFTER = timedelta(minutes=2)
"""An entry whose ticks are not even written down for this long, while the audit itself is, has stopped."""
FIRST = UUID(int=0)


@dataclass(frozen=True, slots=True)
class _Rules:
    policies: Policies
    pauses: Mapping[UUID, Sequence[Span]]
    every: timedelta


def reckon(
    database: Database,
    settings: Settings,
    *,
    entries: Collection[str] = (),
    step: Callable[[], None] = lambda: None,
    portion: int = PORTION,
    budget: float = BUDGET,
) -> dict[str, Any]:
    """Go on with the round of the last audit; returns what stands in the ledger as this one's result.

    `missing` and `doubled` are occurrences, `names` up to twenty of them, and `checked` units, in the last whole
    round; `entries` are those of the timetable that are followed. The policy follows SYNC_INTERVAL here and
    nowhere else, so that a rolling deploy of two intervals does not move it back and forth.
    """
    with database.statement() as connection:
        accounting.declare_policy(connection, every=settings.sync_interval)
        before = accounting.last_result(connection)
    earlier = before[0] if before is not None else {}
    round_ = earlier.get("round") or {}
    tally = Tally(**round_["tally"]) if round_ else Tally()
    after, ends = UUID(round_["after"]) if round_ else FIRST, clock.monotonic() + budget
    while True:
        step()
        last = _portion(database, settings, tally, after=after, limit=portion)
        if last is None:  # that was the last portion
            _jobs(database, tally, entries)
            return asdict(tally) | {"checked": tally.units, "round": None}
        after = last
        if clock.monotonic() >= ends:
            whole = {name: earlier.get(name, default) for name, default in asdict(Tally()).items()}
            found = {
                "missing": max(whole["missing"], tally.missing),
                "doubled": max(whole["doubled"], tally.doubled),
                "names": tally.names or whole["names"],
            }
            under_way = {"after": str(after), "tally": asdict(tally)}
            return whole | found | {"checked": earlier.get("checked", 0), "round": under_way}


def _portion(database: Database, settings: Settings, tally: Tally, *, after: UUID, limit: int) -> UUID | None:
    """Reckon one portion of units; the last of them, None when none are left after it."""
    with database.statement() as connection:
        books = accounting.books(connection, after=after, limit=limit)
        policies = accounting.policies(connection)
        paused = accounting.pauses(connection, {one.tenant_id for one in books})
    pauses = {tenant: rules.spans(found) for tenant, found in paused.items()}
    ruled = _Rules(policies, pauses, settings.sync_interval)
    behind: dict[UUID, tuple[Books, int]] = {}
    for one in books:
        owed = _closed(one, ruled, tally)
        if owed and not _on_its_way(one, ruled.every):
            behind[one.unit_id] = (one, owed)
        else:
            tally.in_flight += owed
            tally.accounted += owed
    _explain_away(database, behind, ruled, tally)
    return books[-1].unit_id if len(books) == limit else None


def _closed(one: Books, ruled: _Rules, tally: Tally) -> int:
    """Hold a unit's counters against what was expected until then; returns what is expected of it since."""
    pauses = ruled.pauses.get(one.tenant_id, ())
    until_then = rules.expected(one.created_at, one.accounted_to, ruled.policies, pauses)
    since = rules.expected(max(one.created_at, one.accounted_to), one.now, ruled.policies, pauses)
    tally.units += 1
    tally.expected += until_then + since
    tally.accounted += one.accounted
    about = _about(one, one.accounted_to, "its counters do not add up to what was expected until this moment")
    tally.name(count=until_then - one.accounted, about=about)
    return since


def _on_its_way(one: Books, every: timedelta) -> bool:
    """What can be seen without further facts: in flight, due and in turn, or soon due."""
    if one.paused or (one.lease_until is not None and one.lease_until > one.now):
        return True
    if one.next_due_at <= one.now:
        in_turn = one.ready_at is not None and one.ready_at <= one.now + explain.LATE_TURN
        return in_turn and one.turn_paused is False
    return one.state != UnitState.PARKED and one.next_due_at <= one.now + explain.SOON * every


def _explain_away(database: Database, behind: Mapping[UUID, tuple[Books, int]], ruled: _Rules, tally: Tally) -> None:
    """Of units that are behind, account for those that rest for a reason, and name those that do not."""
    units = list(behind)
    resting: list[tuple[UUID, datetime]] = []
    for start in range(0, len(units), FACTS_AT_ONCE):
        with database.statement() as connection:
            facts = {one.unit_id: one for one in explaining.facts(connection, units[start : start + FACTS_AT_ONCE])}
        for unit_id in units[start : start + FACTS_AT_ONCE]:
            one, owed = behind[unit_id]
            known = facts.get(unit_id)
            reason = _lost(known, one, ruled)
            if reason is not None:
                tick = rules.first_tick(one.accounted_to, one.now, ruled.policies, ruled.pauses.get(one.tenant_id, ()))
                tally.name(count=owed, about=_about(one, tick, reason))
                continue
            tally.accounted += owed
            tally.in_flight += owed
            if known is not None and explain.explain(known, every=ruled.every).rest is not None:
                resting.append((unit_id, one.accounted_to))
    with database.statement() as connection:
        tally.swept += accounting.sweep(connection, resting) if resting else 0


def _lost(known: UnitFacts | None, one: Books, ruled: _Rules) -> str | None:
    """Why a unit counts as lost; None if it is gone, has moved on meanwhile, or rests for a reason."""
    if known is None or known.accounted_to != one.accounted_to:
        return None
    explanation = explain.explain(known, every=ruled.every)
    return explanation.links[-1].text if explanation.lost else None


def _about(one: Books, tick: datetime | None, reason: str) -> dict[str, object]:
    moment = tick.isoformat() if tick is not None else None
    return {"tenant": str(one.tenant_id), "unit": str(one.unit_id), "tick": moment, "why": reason}


def _jobs(database: Database, tally: Tally, entries: Collection[str]) -> None:
    """The same for the timetable's entries: every tick since it is followed has become a row."""
    with database.statement() as connection:
        readings = schedules.standings(connection)
    for one in readings:
        tally.jobs += 1
        policy = [(one.since, one.every)]
        promised = one.earlier + rules.ticks(one.since, one.last_tick, policy)
        tally.expected += promised
        tally.accounted += one.accounted
        tally.in_flight += one.open
        about: dict[str, object] = {"entry": one.entry, "tick": one.last_tick.isoformat()}
        off = "its counters do not add up to what was expected until this moment"
        tally.name(count=promised - one.accounted, about={**about, "why": off})
        late = rules.ticks(one.last_tick, one.now, policy)
        tally.expected += late if one.entry in entries else 0
        if one.entry in entries and one.now - one.last_tick > STUCK_AFTER + one.every:
            tally.name(count=late, about={**about, "why": "no tick after this one was written down"})
        elif one.entry in entries:
            tally.accounted += late
            tally.in_flight += late


def why(database: Database, settings: Settings, *, unit_id: UUID) -> tuple[UnitFacts, Explanation] | None:
    """Why a unit is not running; None if there is none of this id."""
    with database.reading() as connection:
        found = explaining.facts(connection, [unit_id])
        if not found:
            return None
        facts = found[0]
        queue = Lane(facts.lane).queue.value
        place = explaining.place(connection, tenant_id=facts.tenant_id, unit_id=unit_id, queue=queue)
        spent = _spent(connection, settings, facts)
    return facts, explain.explain(facts, every=settings.sync_interval, place=place, budgets=spent)


def _spent(connection: Connection, settings: Settings, facts: UnitFacts) -> list[Budget]:
    """The budgets that a unit's requests need and that are used up."""
    found: dict[Scope, float] = {}
    for one in facts.calendars:
        host = urlsplit(one.endpoint).hostname if one.endpoint else None
        for limit in limits_of(settings, provider=one.provider, identity=one.identity, host=host):
            if limit.pace is not None and limit.scope not in found:
                ahead = budgets.ahead(connection, scope=limit.scope.kind, scope_id=limit.scope.id)
                found[limit.scope] = ahead + limit.pace.interval - limit.pace.room(POLLS)
    return [Budget(scope.kind, scope.id, wait) for scope, wait in found.items() if wait > 0]
