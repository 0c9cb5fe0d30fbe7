"""Which occurrences an entry owes, and what becomes of those that were missed. Pure.

Ticks are the multiples of the entry's interval since 1970 in UTC, so neither a daylight-saving change nor the moment
at which somebody was started moves them. `last_tick` only grows: a clock that was stepped back owes nothing twice.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from config.timetable import POLICIES, Entry, Policy

SHORTEST = timedelta(seconds=1)
"""Wake-ups come once a second; what is owed more often than that could never be in time."""
LONGEST = timedelta(days=366)
FRESH = timedelta(seconds=10)
"""How late an occurrence of the policy `skip` may begin: three times what a healthy tick takes, and a restart."""
OPEN_AT_ONCE = 50
"""Occurrences of an entry of the policy `all` that wait as rows; the rest of an outage waits in `last_tick`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")

MISSED = "missed: nobody was there to begin it in time"
OUTDATED = "missed: a later one stands for it"


@dataclass(frozen=True, slots=True)
class Rule:
    """What an entry promises."""

    every: timedelta
    policy: Policy


@dataclass(frozen=True, slots=True)
class Standing:
    """How far an entry has been followed: everything up to `last_tick` is recorded.

    `earlier` is how many occurrences the entry's former rules promised until `since`.
    """

    rule: Rule
    since: datetime
    last_tick: datetime
    earlier: int

    @property
    def expected(self) -> int:
        """Occurrences promised up to `last_tick`, from the rule and its history alone."""
        every = self.rule.every
        return self.earlier + tick_number(self.last_tick, every) - tick_number(self.since, every)


@dataclass(frozen=True, slots=True)
class Span:
    """Ticks that are skipped together: one row, however long the outage was."""

    ticks: int
    first: datetime
    last: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write down: occurrences that begin to wait, those skipped, and how things stand then."""

    due: tuple[datetime, ...]
    skipped: Span | None
    after: Standing

    @property
    def newest(self) -> datetime | None:
        """The last tick that this plan accounts for."""
        if self.due:
            return self.due[-1]
        return None if self.skipped is None else self.skipped.last


def tick_number(moment: datetime, every: timedelta) -> int:
    """How many ticks lie between 1970 and a moment, that moment included."""
    return ((moment - _EPOCH) // _MICROSECOND) // (every // _MICROSECOND)


def tick_at(number: int, every: timedelta) -> datetime:
    """The moment of a tick."""
    return _EPOCH + number * every


def plan(standing: Standing, *, rule: Rule, now: datetime, room: int = OPEN_AT_ONCE) -> Plan:
    """What is owed in (last_tick, now]. `room`: how many more occurrences may wait.

    The rule in force until now decides about the past; `rule` takes its place once nothing of the past is left.
    """
    every = standing.rule.every
    first, last = tick_number(standing.last_tick, every) + 1, tick_number(now, every)
    if first > last:
        return Plan((), None, _switched(standing, rule, now))
    if standing.rule.policy == "all":
        last = min(last, first + max(0, room) - 1)
        due = tuple(tick_at(number, every) for number in range(first, last + 1))
        after = replace(standing, last_tick=due[-1]) if due else standing
        return Plan(due, None, after)
    newest = tick_at(last, every)
    late = standing.rule.policy == "skip" and now - newest > min(FRESH, every)
    reason = OUTDATED if standing.rule.policy == "latest" else MISSED
    skipped = _span(first, last if late else last - 1, every, reason)
    return Plan(() if late else (newest,), skipped, _switched(replace(standing, last_tick=newest), rule, now))


def _span(first: int, last: int, every: timedelta, reason: str) -> Span | None:
    if first > last:
        return None
    return Span(last - first + 1, tick_at(first, every), tick_at(last, every), reason)


def _switched(standing: Standing, rule: Rule, now: datetime) -> Standing:
    """The standing under a new rule, which promises from now on."""
    if rule == standing.rule:
        return standing
    moment = max(now, standing.last_tick)
    earlier = replace(standing, last_tick=moment).expected
    return Standing(rule=rule, since=moment, last_tick=moment, earlier=earlier)


def refusals(
    wake_ups: Mapping[str, Mapping[str, Any]], occurrences: Mapping[str, Entry], tasks: Collection[str]
) -> list[str]:
    """What is wrong with a timetable, a sentence an entry, with what to do. `tasks`: every task that exists."""
    known = ", ".join(sorted(tasks))
    found: list[str] = []
    owners: dict[str, str] = {}
    for name, task in [
        *((name, str(entry.get("task") or "")) for name, entry in wake_ups.items()),
        *((name, entry.task) for name, entry in occurrences.items()),
    ]:
        where = f"entry {name!r} of beat_schedule.py"
        if not task:
            found.append(f"{where} names no task: give it one of {known}")
        elif task not in tasks:
            found.append(f"{where} names the task {task!r}, which does not exist: it should be one of {known}")
        elif task in owners:
            found.append(f"{where} names the task {task!r} as entry {owners[task]!r} does: a task has one entry")
        owners.setdefault(task, name)
    both = sorted(wake_ups.keys() & occurrences.keys())
    found += [f"entry {name!r} of beat_schedule.py is a wake-up and an occurrence: rename one of them" for name in both]
    for name, entry in occurrences.items():
        found += [f"entry {name!r} of beat_schedule.py {wrong}" for wrong in _wrong(name, entry)]
    return found


def _wrong(name: str, entry: Entry) -> list[str]:
    found = []
    if not _NAME.fullmatch(name):
        found.append("has an unusable name: small letters, digits and hyphens, at most 63, a letter first")
    if not isinstance(entry.every, timedelta) or not SHORTEST <= entry.every <= LONGEST:
        found.append(f"comes every {entry.every}: it should be a timedelta between one second and 366 days")
    if entry.policy not in POLICIES:
        found.append(f"has the policy {entry.policy!r}: it should be one of {', '.join(POLICIES)}")
    return found
