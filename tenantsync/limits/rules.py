"""The arithmetic of limits: from "so many a minute" to a GCRA that no window can exceed. Pure.

A limit of L in a window W is held by a bucket of `burst` requests that refills at `rate`. A request arrives up to
VALID seconds after it was reserved, so a window of W holds reservations of W + VALID seconds, of which a GCRA
grants at most burst + rate * (W + VALID): that sum is the limit. The usual counter of a sliding window keeps no
such promise, as tests/unit/test_limit_rules.py shows.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor
from typing import NamedTuple

from config.settings import Settings

WINDOW = 60.0  # seconds, unless a limit says otherwise
VALID_FOR = 6  # a reservation is valid for a sixth of the window: it costs an eighth of the rate
ON_ITS_WAY = 0.2  # of that time is kept for the way from the connection to the provider's counter
BURST_SHARE = 20  # a burst is a twentieth of the limit: a larger one would be paid for by the rate

POLLS, BULK = 1.0, 0.5
"""Shares of the burst that a lane may use up: what first syncs leave is there for polls, always."""

FIRST_PATIENCE = 3.0  # seconds that a run waits for its first request; later, what it has fetched is worth more
PAUSE_AT_LEAST = 5.0  # seconds that a calendar is put off when its budget is used up
LARGEST_CHUNK = 4
"""Requests that a run that pages reserves beyond the next one; what is unused in time is lost."""

LEARNED_FROM_ACCOUNTS, LEARNED_FROM_TENANTS, LEARNED_WITHIN = 5, 2, 60.0  # seconds
QUOTA_REASONS = ("http_429", "rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "dailyLimitExceeded")
WITH_PROJECT = frozenset({"google"})
"""Providers whose quota belongs to a project of the operator's."""


class Scope(NamedTuple):
    """What a limit is held for. Kinds: account, project, server."""

    kind: str
    id: str


@dataclass(frozen=True, slots=True)
class Pace:
    """A GCRA: `burst` requests at once, then one every `interval` seconds; each sent `send_within` seconds after it
    was reserved."""

    burst: int
    interval: float
    send_within: float

    def room(self, share: float) -> float:
        """Seconds that reservations may run ahead of the clock, for a lane's share of the burst."""
        return max(1, floor(self.burst * share)) * self.interval


@dataclass(frozen=True, slots=True)
class Limit:
    """How much of a scope may be used: at a pace, and so many at a time. None: as much as one likes."""

    scope: Scope
    pace: Pace | None = None
    at_once: int | None = None


@lru_cache(maxsize=64)
def pace(limit: int, *, window: float = WINDOW) -> Pace:
    """The fastest pace that never exceeds `limit` requests in any `window` seconds. The limit is 2 or more.

    The interval is a whole number of microseconds, as moments are in Postgres: what is rounded down adds up.
    """
    burst, valid = max(1, limit // BURST_SHARE), window / VALID_FOR
    return Pace(burst, ceil((window + valid) / (limit - burst) * 1e6) / 1e6, valid * (1 - ON_ITS_WAY))


@dataclass(frozen=True, slots=True)
class Decision:
    """Requests granted, the arrival time that follows, and the seconds after which one more would be granted."""

    granted: int
    arrival: float
    wait: float


def decide(*, arrival: float | None, now: float, wanted: int, interval: float, room: float) -> Decision:
    """What RESERVE (db/repositories/budgets.py) does to one row. Moments are seconds on one clock."""
    base = now if arrival is None else max(arrival, now)
    granted = max(0, min(wanted, floor((now + room - base) / interval + 1e-9)))
    after = base + granted * interval
    return Decision(granted, after, max(0.0, after + interval - now - room))


def limits_of(settings: Settings, *, provider: str, identity: str | None, host: str | None) -> tuple[Limit, ...]:
    """The limits that a request of an account meets. `identity` None: nobody knows yet whose account it is."""
    if provider == "google":
        project = Limit(Scope("project", provider), pace(settings.google_quota_per_minute))
        if identity is None:
            return (project,)
        account = Limit(Scope("account", f"{provider}/{identity}"), pace(settings.google_user_quota_per_minute))
        return (account, project)
    if provider == "caldav" and host is not None:
        quota = pace(settings.caldav_server_quota_per_minute)
        return (Limit(Scope("server", host), quota, settings.caldav_server_concurrency),)
    return ()


def ceiling(*, limit: int, interested: int) -> int:
    """How many a process may begin: all of them while nobody else is interested, else its share."""
    return limit if interested <= 1 else max(1, limit // interested)


def holds_granted(*, limit: int, held_by_others: int, in_use: int, wanted: int, interested: int) -> int:
    """How many a process holds from now on, that uses `in_use` and wants `wanted` in all; never more than are free.

    What is in use stays, even beyond the share: it is given back as it ends.
    """
    free = max(0, limit - held_by_others)
    return min(free, max(in_use, min(wanted, ceiling(limit=limit, interested=interested))))


def concerns_project(*, accounts: int, tenants: int) -> bool:
    """Whether so many accounts of so many tenants, refused within LEARNED_WITHIN, mean the project they share."""
    return accounts >= LEARNED_FROM_ACCOUNTS and tenants >= LEARNED_FROM_TENANTS
