"""What a process may send, to whom and when. `Transport.request` asks here before every request to a provider.

Budgets and holds are rows (docs/decisions/0013-limits-are-rows.md); this is the book that a process keeps of what it
has reserved, so that a poll costs no statement of its own and a listing one for a handful of pages.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from sqlalchemy import Connection
from yarl import URL

from config.settings import Settings
from db.repositories import budgets, holds
from db.session import Database
from tenantsync import clock
from tenantsync.limits import rules
from tenantsync.limits.book import Book, Grants, Wants
from tenantsync.limits.holds import Holds
from tenantsync.limits.rules import Limit

T = TypeVar("T")


def server_of(url: URL) -> str:
    """The id of a server's scope: its host, with the port where that is not the scheme's own."""
    return url.host_port_subcomponent or ""


class Permit:
    """Leave to send one request. `spend` is called with the connection in hand, `end` when all is over."""

    __slots__ = ("_allowance", "_expires", "_held", "_limits", "_spent")

    def __init__(self, allowance: "Allowance", limits: tuple[Limit, ...], held: list[Limit], expires: float) -> None:
        self._allowance = allowance
        self._limits = limits
        self._held = held
        self._expires = expires
        self._spent = False

    async def spend(self) -> None:
        """Use the reservation; a new one where it has aged meanwhile, or where the library sends again by itself."""
        if self._spent or clock.monotonic() >= self._expires:
            await self._allowance.take(self._limits)
        self._spent = True

    def end(self) -> None:
        for limit in self._held:
            self._allowance.allowances.holds.end(limit)
        self._held = []


class Allowance:
    """What one calendar's run may send. Raises OverBudget where that cannot be soon enough."""

    __slots__ = ("_book", "_deadline", "_identity", "_limits", "_patience", "_provider", "_waits", "allowances", "sent")

    def __init__(
        self,
        allowances: "Allowances",
        *,
        provider: str,
        identity: str | None,
        bulk: bool,
        deadline: float,
        patience: float,
    ) -> None:
        self.allowances = allowances
        self.sent = 0
        self._provider = provider
        self._identity = identity
        self._book = allowances.bulk if bulk else allowances.polls
        self._deadline = deadline
        self._patience = patience
        self._waits = 0
        self._limits = allowances.limits(provider=provider, identity=identity, host=None)

    async def permit(self, url: URL) -> Permit:
        """Leave to send a request to this address; waits for it if that is worth it."""
        limits = self._limits or self.allowances.limits(
            provider=self._provider, identity=self._identity, host=server_of(url)
        )
        held: list[Limit] = []
        try:
            for limit in limits:
                if limit.at_once is not None:
                    await self.allowances.holds.begin(limit, give_up=self._give_up())
                    held.append(limit)
            expires = await self.take(limits)
        except BaseException:
            for limit in held:
                self.allowances.holds.end(limit)
            raise
        self.sent += 1
        return Permit(self, limits, held, expires)

    async def take(self, limits: tuple[Limit, ...]) -> float:
        """One reservation of each scope; returns until when it may be used."""
        expires = self._book.take(limits)
        if expires is not None:
            return expires
        extra = min(self._waits, rules.LARGEST_CHUNK)
        self._waits += 1
        return await self._book.wait(limits, extra=extra, give_up=self._give_up())

    def _give_up(self) -> float:
        if self.sent:  # what has been fetched already would have to be fetched again
            return self._deadline
        return min(clock.monotonic() + self._patience, self._deadline)


@dataclass(frozen=True, slots=True)
class Expected:
    """A request that a batch is about to send: `host` where the provider's limits are its server's."""

    provider: str
    identity: str
    host: str | None


class Limits(Protocol):
    """Which limits a request meets: tenantsync.limits.rules.limits_of over the settings, but for tests."""

    def __call__(self, *, provider: str, identity: str | None, host: str | None) -> tuple[Limit, ...]: ...


class Allowances:
    """Of one process; made and closed in its event loop."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        holder: str,
        run: Callable[[Callable[[], Any]], Awaitable[Any]],
        limits: Limits | None = None,
    ) -> None:
        self.limits: Limits = limits or partial(rules.limits_of, settings)
        self._database = database
        self._run = run
        self.polls = Book(lambda wants: self._reserve_now(wants, rules.POLLS))
        self.bulk = Book(lambda wants: self._reserve_now(wants, rules.BULK))
        self.holds = Holds(database, run, holder=f"{holder}/{os.getpid()}/{uuid4().hex[:6]}", lease=settings.sync_lease)

    def of(
        self,
        *,
        provider: str,
        identity: str | None,
        bulk: bool,
        deadline: float,
        patience: float = rules.FIRST_PATIENCE,
    ) -> Allowance:
        """What a run of this account may send; `deadline` is a moment of the monotonic clock."""
        return Allowance(self, provider=provider, identity=identity, bulk=bulk, deadline=deadline, patience=patience)

    def expect(self, connection: Connection, expected: Iterable[Expected], *, bulk: bool) -> Grants:
        """Reserve one request for each of these, in one statement; `credit` puts them into the book."""
        wants: Wants = {}
        for one in expected:
            for limit in self.limits(provider=one.provider, identity=one.identity, host=one.host):
                if limit.pace is not None:
                    wants[limit.scope] = (wants[limit.scope][0] + 1 if limit.scope in wants else 1, limit)
        return reserve(connection, wants, rules.BULK if bulk else rules.POLLS)

    def charge(self, connection: Connection, *, provider: str, identity: str, sent: int) -> None:
        """Charge an account for requests that went out before anybody knew whose it is."""
        for limit in self.limits(provider=provider, identity=identity, host=None):
            if limit.scope.kind == "account" and limit.pace is not None and sent:
                cost = timedelta(seconds=sent * limit.pace.interval)
                budgets.charge(connection, scope=limit.scope.kind, scope_id=limit.scope.id, cost=cost)

    def credit(self, grants: Grants, *, bulk: bool) -> None:
        (self.bulk if bulk else self.polls).credit(grants)

    async def close(self) -> None:
        await self.polls.close()
        await self.bulk.close()
        await self.holds.close()

    async def _reserve_now(self, wants: Wants, share: float) -> Grants:
        def work() -> Grants:
            with self._database.statement() as connection:
                return reserve(connection, wants, share)

        grants: Grants = await self._run(work)
        return grants


def reserve(connection: Connection, wants: Wants, share: float) -> Grants:
    """Reserve what is wanted, using no more than a share of each burst."""
    asked_at = clock.monotonic()
    if not wants:
        return Grants(asked_at, {}, {})
    rows = [
        {
            "scope": scope.kind,
            "scope_id": scope.id,
            "n": number,
            "pace": limit.pace.interval,
            "room": limit.pace.room(share),
        }
        for scope, (number, limit) in wants.items()
        if limit.pace is not None
    ]
    return Grants(asked_at, budgets.reserve(connection, rows), wants)


@dataclass(frozen=True, slots=True)
class Reading:
    """How far a scope's limit is used: `used` is the share of its burst, `next_in` the seconds until a request fits,
    `held` how many at a time the worker processes hold."""

    scope: rules.Scope
    used: float
    next_in: float
    at_once: int | None
    held: int


def readings(
    connection: Connection, settings: Settings, *, provider: str, identity: str | None, endpoint: str | None
) -> list[Reading]:
    """The limits of an account and how full they are, for `why` and `status`."""
    host = None if endpoint is None else server_of(URL(endpoint, encoded=True))
    return [
        _reading(connection, limit)
        for limit in rules.limits_of(settings, provider=provider, identity=identity, host=host)
    ]


def _reading(connection: Connection, limit: Limit) -> Reading:
    kind, name = limit.scope
    used = next_in = 0.0
    if limit.pace is not None:
        ahead, room = budgets.ahead(connection, scope=kind, scope_id=name), limit.pace.room(rules.POLLS)
        used, next_in = min(1.0, ahead / room), max(0.0, ahead + limit.pace.interval - room)
    held = 0 if limit.at_once is None else holds.held(connection, scope=kind, scope_id=name)
    return Reading(limit.scope, used, next_in, limit.at_once, held)


class AloneAllowances:
    """Allowances of a process that is no worker: a command that discovers or audits. `async with` it."""

    def __init__(self, settings: Settings, database: Database, *, purpose: str) -> None:
        self._threads = ThreadPoolExecutor(2, thread_name_prefix=purpose)
        self._allowances = Allowances(settings, database, holder=purpose, run=self._in_thread)
        self._lease = settings.sync_lease.total_seconds()
        self._beating: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Allowances:
        self._beating = asyncio.ensure_future(self._beat())
        return self._allowances

    async def __aexit__(self, *_: object) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        await self._allowances.close()
        self._threads.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._lease / 3)
            await self._in_thread(lambda: self._allowances.holds.renew(loop))
