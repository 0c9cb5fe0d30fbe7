"""What was expected, reckoned from policy, creation and pauses, and never from what anybody counted. Pure.

The database counts the same by `sync.expected`, in SQL, when a run ends; that the two agree is what the auditor
sees. Moments are whole microseconds, so nothing is rounded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FOREVER = datetime.max.replace(tzinfo=UTC)

Span = tuple[datetime, datetime]
Policies = Sequence[tuple[datetime, timedelta]]
"""(since, every), in order; each holds until the next."""


def tick_number(moment: datetime, every: timedelta) -> int:
    """How many multiples of `every` since 1970 lie at or before a moment."""
    return ((moment - _EPOCH) // _MICROSECOND) // (every // _MICROSECOND)


def ticks(begin: datetime, end: datetime, policies: Policies) -> int:
    """Occurrences in (begin, end], under each policy for as long as it held."""
    total = 0
    for position, (since, every) in enumerate(policies):
        until = policies[position + 1][0] if position + 1 < len(policies) else _FOREVER
        first, last = max(begin, since), min(end, until)
        if first < last:
            total += tick_number(last, every) - tick_number(first, every)
    return total


def expected(begin: datetime, end: datetime, policies: Policies, pauses: Sequence[Span]) -> int:
    """Occurrences that a unit owes in (begin, end]: without those in its tenant's pauses, which never overlap."""
    paused = sum(ticks(max(begin, first), min(end, last), policies) for first, last in pauses if first < last)
    return ticks(begin, end, policies) - paused if begin < end else 0


def spans(pauses: Sequence[tuple[datetime, datetime | None]]) -> list[Span]:
    """Pauses with an end: one that is not over ends never."""
    return [(begin, end or _FOREVER) for begin, end in pauses]


def first_tick(begin: datetime, end: datetime, policies: Policies, pauses: Sequence[Span]) -> datetime | None:
    """The first occurrence in (begin, end]; None where there is none. Halves the time until one is left in it."""
    if expected(begin, end, policies, pauses) < 1:
        return None
    low, high = begin, end
    while high - low > _MICROSECOND:
        middle = low + (high - low) // _MICROSECOND // 2 * _MICROSECOND
        if expected(begin, middle, policies, pauses) < 1:
            low = middle
        else:
            high = middle
    return high


@dataclass(slots=True)
class Tally:
    """What an audit has found so far. `expected` less `accounted` is `missing` less `doubled`."""

    units: int = 0
    jobs: int = 0
    expected: int = 0
    accounted: int = 0
    """Done, failed, skipped, superseded and in flight."""
    in_flight: int = 0
    """Of those: expected, and on their way or held for a declared reason."""
    swept: int = 0
    """Skipped occurrences of resting units that this audit itself accounted for."""
    missing: int = 0
    doubled: int = 0
    names: list[dict[str, object]] = field(default_factory=list)
    """Up to NAMED of those that are missing or doubled."""

    def name(self, *, count: int, about: dict[str, object]) -> None:
        """Note `count` missing occurrences of something, or doubled ones where it is negative."""
        if count == 0:
            return
        self.missing += max(0, count)
        self.doubled += max(0, -count)
        if len(self.names) < NAMED:
            self.names.append({**about, "missing": max(0, count), "doubled": max(0, -count)})


NAMED = 20
