"""The reservations that a process has and has not used yet, and the runs that wait for some."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

import structlog
from sqlalchemy.exc import SQLAlchemyError

from db.repositories.budgets import Reserved
from tenantsync import clock
from tenantsync.errors import OverBudget
from tenantsync.limits import rules
from tenantsync.limits.rules import Limit, Scope

log = structlog.get_logger(__name__)

ASK_EVERY = 0.1  # seconds; at 135 requests a second a process would else ask for each one by itself
SWEEP_EVERY = 10.0  # seconds

Wants = dict[Scope, tuple[int, Limit]]


@dataclass(frozen=True, slots=True)
class Grants:
    """What was reserved, and the moment before it was asked for: reservations age from there."""

    asked_at: float
    by_scope: Mapping[tuple[str, str], Reserved]
    wants: Wants


Reserve = Callable[[Wants], Awaitable[Grants]]
"""Reserves in Postgres. Raises SQLAlchemyError."""


@dataclass(slots=True, eq=False)
class _Waiter:
    limits: tuple[Limit, ...]
    extra: int
    give_up: float
    served: asyncio.Future[float]


@dataclass(slots=True)
class _Shelf:
    """Reservations of one scope, oldest first: until when they may be used, and how many there are."""

    lots: deque[list[float]] = field(default_factory=deque)

    def any_at(self, now: float) -> bool:
        while self.lots and (self.lots[0][0] <= now or self.lots[0][1] < 1):
            self.lots.popleft()
        return bool(self.lots)

    def take(self) -> float:
        self.lots[0][1] -= 1
        return self.lots[0][0]


class Book:
    """Of one process and one kind of lane; lives in the event loop. Moments are of the monotonic clock."""

    def __init__(self, reserve: Reserve) -> None:
        self._reserve = reserve
        self._shelves: dict[Scope, _Shelf] = {}
        self._dry: dict[Scope, float] = {}
        self._waiting: list[_Waiter] = []
        self._asking: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._swept = 0.0

    def credit(self, grants: Grants) -> None:
        """Put reservations into the book."""
        now = clock.monotonic()
        for scope, (_, limit) in grants.wants.items():
            reserved = grants.by_scope.get(scope)
            if reserved is not None and reserved.granted and limit.pace is not None:
                shelf = self._shelves.setdefault(scope, _Shelf())
                shelf.lots.append([grants.asked_at + limit.pace.send_within, reserved.granted])
        if now > self._swept + SWEEP_EVERY:
            self._swept = now
            self._shelves = {scope: shelf for scope, shelf in self._shelves.items() if shelf.any_at(now)}
            self._dry = {scope: until for scope, until in self._dry.items() if until > now}

    def take(self, limits: Iterable[Limit]) -> float | None:
        """Use one reservation of each scope; returns until when a request may leave, None where one is missing."""
        now, shelves = clock.monotonic(), []
        for limit in limits:
            if limit.pace is None:
                continue
            shelf = self._shelves.get(limit.scope)
            if shelf is None or not shelf.any_at(now):
                return None
            shelves.append(shelf)
        return min((shelf.take() for shelf in shelves), default=float("inf"))

    async def wait(self, limits: tuple[Limit, ...], *, extra: int, give_up: float) -> float:
        """Like `take`, but reserve what is missing, and `extra` for later. Raises OverBudget once it is clear that
        nothing comes before `give_up`."""
        waiter = _Waiter(limits, extra, give_up, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._news.set()
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._ask())
        try:
            return await waiter.served
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask(self) -> None:
        while self._waiting:
            self._news.clear()
            wants = self._wants(clock.monotonic())
            if wants:
                try:
                    self._enter(await self._reserve(wants))
                except SQLAlchemyError as error:
                    log.warning("budget_not_reserved", error=type(error).__name__)
                    self._refuse_all()
                    return
            self._serve()
            await self._pause()

    def _wants(self, now: float) -> Wants:
        """What the waiting need, but for those of whom a scope is known to be dry."""
        wants: Wants = {}
        for waiter in self._waiting:
            if any(self._dry.get(limit.scope, 0.0) > now for limit in waiter.limits):
                continue
            for limit in waiter.limits:
                if limit.pace is not None:
                    before = wants.get(limit.scope, (0, limit))[0]
                    wants[limit.scope] = (before + 1 + (waiter.extra if before == 0 else 0), limit)
        return wants

    def _enter(self, grants: Grants) -> None:
        self.credit(grants)
        now = clock.monotonic()
        for scope, (number, _) in grants.wants.items():
            reserved = grants.by_scope.get(scope)
            if reserved is None or reserved.granted < number:
                # Spread, so that of two processes not always the same one comes first.
                pause = max(ASK_EVERY, 0.0 if reserved is None else reserved.wait)
                self._dry[scope] = now + pause * random.uniform(1.0, 1.5)  # noqa: S311 — guards nothing
            else:
                self._dry.pop(scope, None)

    def _serve(self) -> None:
        """Hand out what there is, first come first served, and send away those who would wait for too long."""
        now, ahead, still = clock.monotonic(), dict[Scope, int](), []
        for waiter in self._waiting:
            if waiter.served.done():
                continue
            expires = self.take(waiter.limits)
            if expires is not None:
                waiter.served.set_result(expires)
                continue
            scope, comes = self._expected(waiter, ahead, now)
            if comes > waiter.give_up:
                waiter.served.set_exception(_over(scope, comes - now))
            else:
                still.append(waiter)
        self._waiting = still

    def _expected(self, waiter: _Waiter, ahead: dict[Scope, int], now: float) -> tuple[Scope, float]:
        """The scope that a waiter waits for, and the earliest moment at which it may have its turn there."""
        latest = (waiter.limits[0].scope, now)
        for limit in waiter.limits:
            dry = self._dry.get(limit.scope)
            if limit.pace is not None and dry is not None:
                comes = max(dry, now) + ahead.get(limit.scope, 0) * limit.pace.interval
                ahead[limit.scope] = ahead.get(limit.scope, 0) + 1
                latest = max(latest, (limit.scope, comes), key=lambda pair: pair[1])
        return latest

    def _refuse_all(self) -> None:
        for waiter in self._waiting:
            if not waiter.served.done():
                error = OverBudget("budget_unknown", "Postgres did not say", retry_after=rules.PAUSE_AT_LEAST)
                waiter.served.set_exception(error)
        self._waiting = []

    async def _pause(self) -> None:
        if not self._waiting:
            return
        now = clock.monotonic()
        moments = [self._dry.get(limit.scope, now) for waiter in self._waiting for limit in waiter.limits]
        rest = max(0.01, min((moment for moment in moments if moment > now), default=now) - now)
        try:
            async with asyncio.timeout(rest):
                await self._news.wait()
        except TimeoutError:
            return


def _over(scope: Scope, wait: float) -> OverBudget:
    return OverBudget(
        f"over_budget_{scope.kind}",
        f"this {scope.kind}'s budget of requests is used up for now",
        retry_after=max(wait, rules.PAUSE_AT_LEAST),
    )
