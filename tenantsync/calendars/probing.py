"""How a scope that was closed opens again: one run tries, the others wait a few seconds more. Pure.

A scope is (kind, id) as in sync.cooldowns. A run that holds a scope's probe asks one calendar at a time, so that one
refusal ends it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from db.repositories.units import DueCalendar, StartedUnit

CooledScope = tuple[str, str]

HOLD = timedelta(seconds=10)
"""How long a probe is held unheard of: a crash of its worker, or a listing that takes longer, lets another run try."""
OTHERS_WAIT = 2.0  # seconds, and up to as much again


def half_open(calendar: DueCalendar) -> set[CooledScope]:
    """The scopes whose probe a calendar needs; none where it is not asked anyway."""
    if not calendar.half_open or calendar.cooldown is not None:
        return set()
    ids = {"account": str(calendar.account_id), "tenant": str(calendar.tenant_id)}
    return {(kind, ids.get(kind, calendar.provider)) for kind in calendar.half_open}


def candidates(units: Iterable[StartedUnit]) -> dict[UUID, set[CooledScope]]:
    """Which units of a batch should try for which probes: no scope twice, and no unit that would lack one."""
    chosen: dict[UUID, set[CooledScope]] = {}
    taken: set[CooledScope] = set()
    for unit in units:
        needed = set().union(*(half_open(calendar) for calendar in unit.calendars))
        if needed and not needed & taken:
            chosen[unit.unit_id] = needed
            taken |= needed
    return chosen


def allotted(
    chosen: Mapping[UUID, set[CooledScope]], granted: set[CooledScope]
) -> tuple[dict[UUID, frozenset[CooledScope]], set[CooledScope]]:
    """(the probes of each unit that got all it needs, probes that were granted and are of no use)."""
    held = {unit: frozenset(needed) for unit, needed in chosen.items() if needed <= granted}
    return held, granted - set().union(*held.values())


def hold_back(unit: StartedUnit, probes: frozenset[CooledScope], chance: float) -> StartedUnit:
    """The unit with calendars that lack a probe put off; `chance` in [0, 1) spreads them."""
    if not any(calendar.half_open for calendar in unit.calendars):
        return unit
    wait = OTHERS_WAIT * (1 + chance)
    return replace(
        unit,
        calendars=tuple(
            calendar if half_open(calendar) <= probes else replace(calendar, cooldown=wait)
            for calendar in unit.calendars
        ),
    )
