"""What a recorded history proves: whether a unit ever ran twice at once, and how long each took to run again.

Pure, and it knows nothing of the product's code: it reads the states, fences and leases that the database
recorded by a trigger of the storm's own (`sandbox/chaos/recorder.py`), and under which role each change came.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

IN_FLIGHT = ("dispatched", "running")


@dataclass(frozen=True, slots=True)
class Step:
    """One change of a unit's state or fence. Moments are seconds since 1970 of the database's clock."""

    at: float
    unit: str
    was: str
    now: str
    old_fence: int
    fence: int
    lease: float | None
    """Until when the unit was held before this change."""
    worker: str | None
    """Who runs it, or ran it."""
    by: str
    """The role that made the change."""
    counted: int
    """By how much the unit's counters of runs grew."""

    @property
    def claims(self) -> bool:
        return self.now == "dispatched"

    @property
    def starts(self) -> bool:
        return self.was == "dispatched" and self.now == "running"

    @property
    def finishes(self) -> bool:
        return self.was == "running" and self.counted > 0

    @property
    def takes_away(self) -> bool:
        """Whether somebody other than the run itself ended a run under way."""
        return self.was == "running" and not self.finishes and self.by_other

    @property
    def by_other(self) -> bool:
        """Whether this comes from another process than the one that runs the unit."""
        return self.worker is not None and self.by != _role(self.worker)


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault. `over` is when the fault ended; of a kill it is the moment itself.

    Of an `outage` nobody can run anything until it is over, so the clocks of its units begin then.
    `victims` are the workers that were struck; none means everybody.
    """

    scenario: str
    at: float
    over: float
    outage: bool = False
    victims: frozenset[str] = frozenset()

    @property
    def instant(self) -> bool:
        return self.over <= self.at


@dataclass(frozen=True, slots=True)
class Affected:
    """A unit that was in flight when a fault struck, and did not come through it."""

    scenario: str
    unit: str
    struck: float
    clock: float
    """From when on its recovery is counted."""
    again: float | None
    """When it ran again; None: never."""
    waited: float | None
    """Seconds from `clock` to `again`, without those in which another outage was under way."""


@dataclass(slots=True)
class Findings:
    """Everything that must not be. Each entry is a sentence."""

    twice: list[str] = field(default_factory=list)
    """Two live runs of a unit at once."""
    stale: list[str] = field(default_factory=list)
    """A run that ended under a fence that was not its own, or twice."""
    fences: list[str] = field(default_factory=list)
    """A fence that did not grow."""

    @property
    def count(self) -> int:
        return len(self.twice) + len(self.stale) + len(self.fences)

    @property
    def sentences(self) -> list[str]:
        return [*self.twice, *self.stale, *self.fences]


class History:
    """All steps, by unit and in the order in which they were made."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self._of: dict[str, list[Step]] = defaultdict(list)
        for step in steps:
            self._of[step.unit].append(step)
        self._moments = {unit: [step.at for step in steps] for unit, steps in self._of.items()}

    @property
    def units(self) -> Mapping[str, Sequence[Step]]:
        return self._of

    def runs(self, since: float, until: float) -> int:
        """Runs that ended in a span of time."""
        return sum(
            step.finishes
            for unit, steps in self._of.items()
            for step in steps[bisect_right(self._moments[unit], since) : bisect_right(self._moments[unit], until)]
        )

    def last_before(self, unit: str, moment: float) -> Step | None:
        index = bisect_right(self._moments[unit], moment)
        return self._of[unit][index - 1] if index else None

    def after(self, unit: str, moment: float) -> Sequence[Step]:
        return self._of[unit][bisect_right(self._moments[unit], moment) :]


def check(history: History) -> Findings:
    """Go through every unit's steps once."""
    found = Findings()
    for unit, steps in history.units.items():
        _check_unit(unit, steps, found)
    return found


def _check_unit(unit: str, steps: Sequence[Step], found: Findings) -> None:
    highest, starter, ended = 0, "", 0
    for step in steps:
        here = f"unit {unit} at {step.at:.3f}, fence {step.fence}"
        if step.fence < max(highest, step.old_fence) or (step.claims and step.fence <= highest):
            found.fences.append(f"{here}: it is not above {highest}")
        highest = max(highest, step.fence)
        lives = step.was in IN_FLIGHT and step.lease is not None and step.lease > step.at
        if lives and (step.claims or (step.takes_away and step.fence == step.old_fence)):
            left = (step.lease or 0.0) - step.at
            found.twice.append(f"{here}: taken from a run whose lease stood for another {left:.2f} s")
        if step.starts:
            starter = step.by
            if step.fence != step.old_fence:
                found.fences.append(f"{here}: started under another fence than it was claimed under")
        if step.finishes:
            if starter and step.by != starter:
                found.stale.append(f"{here}: begun by {starter}, ended by {step.by}")
            if step.fence == ended or step.counted > 1:
                found.stale.append(f"{here}: ended twice")
            ended = step.fence


def affected(history: History, strikes: Sequence[Strike], *, excused: frozenset[str] = frozenset()) -> list[Affected]:
    """Units that the strikes caught and that did not come through, with the time each took to run again.

    A unit that was struck again while it waited, in flight under a newer fence, counts with the later strike.
    `excused` units were paused or removed meanwhile.
    """
    ordered = sorted(strikes, key=lambda strike: strike.at)
    outages = [strike for strike in ordered if strike.outage]
    found = []
    for index, strike in enumerate(ordered):
        for unit in history.units:
            if unit in excused:
                continue
            one = _struck(history, strike, unit, outages)
            if one is not None and not _struck_again(history, one, ordered[index + 1 :]):
                found.append(one)
    return found


def _struck(history: History, strike: Strike, unit: str, outages: Sequence[Strike]) -> Affected | None:
    last = history.last_before(unit, strike.at)
    if last is None or last.now not in IN_FLIGHT:
        return None
    if strike.victims and last.now == "running" and last.worker not in strike.victims:
        return None
    again = None
    for step in history.after(unit, strike.at):
        if step.finishes and step.fence == last.fence:
            if step.at <= strike.over or strike.instant:
                return None  # it came through
            again = step.at
            break
        if step.now == "running" and step.fence == last.fence:
            if not strike.outage:
                return None  # its message arrived; what becomes of the run is another matter
            if step.at > strike.over:
                again = step.at
                break
        if step.now == "running" and step.fence > last.fence:
            again = step.at
            break
        if step.was in IN_FLIGHT and step.now == "idle" and step.fence > last.fence:
            return None  # its account was removed
    clock = strike.over if strike.outage else strike.at
    waited = None if again is None else max(0.0, again - clock - _overlap(clock, again, outages, strike))
    return Affected(strike.scenario, unit, strike.at, clock, again, waited)


def _overlap(since: float, until: float, outages: Sequence[Strike], own: Strike) -> float:
    """Seconds of a span in which any outage but one's own was under way."""
    total, reached = 0.0, since
    for outage in outages:
        if outage is own or outage.over <= reached or outage.at >= until:
            continue
        begins, ends = max(outage.at, reached), min(outage.over, until)
        total += ends - begins
        reached = ends
    return total


def _struck_again(history: History, one: Affected, later: Sequence[Strike]) -> bool:
    ends = float("inf") if one.again is None else one.again
    for strike in later:
        if strike.at >= ends:
            return False
        held = history.last_before(one.unit, strike.at)
        before = history.last_before(one.unit, one.struck)
        if held and before and held.now in IN_FLIGHT and held.fence > before.fence and _reaches(strike, held):
            return True
    return False


def _reaches(strike: Strike, held: Step) -> bool:
    return not strike.victims or held.now == "dispatched" or held.worker in strike.victims


def _role(worker: str) -> str:
    return "chaos_" + worker.partition("@")[0].replace("-", "_")


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value that `share` of them do not exceed; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def jain(served: Sequence[float]) -> float:
    """Jain's fairness index: 1 when everybody got the same, 1/n when one got everything."""
    squares = sum(value * value for value in served)
    return sum(served) ** 2 / (len(served) * squares) if squares else 0.0


def densest(moments: Sequence[float], window: float) -> int:
    """The most moments that lie within any span of `window` seconds."""
    ordered, first, most = sorted(moments), 0, 0
    for last, moment in enumerate(ordered):
        while moment - ordered[first] >= window:
            first += 1
        most = max(most, last - first + 1)
    return most
