"""So many at a time, across all worker processes: each holds some of a scope's number in Postgres, under a lease."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError

from db.repositories import holds
from db.session import Database
from tenantsync import clock
from tenantsync.errors import OverBudget
from tenantsync.limits import rules
from tenantsync.limits.rules import Limit, Scope

log = structlog.get_logger(__name__)

T = TypeVar("T")
Run = Callable[[Callable[[], T]], Awaitable[T]]
"""Runs database work in a thread."""

ASK_EVERY = 0.25  # seconds between two tries for more, while somebody waits


@dataclass(slots=True, eq=False)
class _Held:
    """One scope as this process sees it. `may` is how many it may begin, `until` the end of its lease (monotonic)."""

    limit: Limit
    held: int = 0
    may: int = 0
    until: float = 0.0
    in_use: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    change: asyncio.Lock = field(default_factory=asyncio.Lock)
    asking: asyncio.Task[None] | None = None

    @property
    def free(self) -> bool:
        return self.in_use < min(self.held, self.may) and clock.monotonic() < self.until


class Holds:
    """Of one process; lives in the event loop, but for `renew`, which the heartbeat's thread calls."""

    def __init__(self, database: Database, run: Run[None], *, holder: str, lease: timedelta) -> None:
        self._database = database
        self._run = run
        self._holder = holder
        self._lease = lease
        self._scopes: dict[Scope, _Held] = {}
        self._tidying: set[asyncio.Task[None]] = set()

    async def begin(self, limit: Limit, *, give_up: float) -> None:
        """Take one of the scope's number, waiting for it if need be; raises OverBudget at `give_up` (monotonic)."""
        one = self._scopes.setdefault(limit.scope, _Held(limit))
        if one.free and not one.waiting:
            one.in_use += 1
            return
        turn = asyncio.get_running_loop().create_future()
        one.waiting.append(turn)
        if one.asking is None or one.asking.done():
            one.asking = asyncio.ensure_future(self._ask(one))
        try:
            async with asyncio.timeout(max(0.0, give_up - clock.monotonic())):
                await turn
        except BaseException as error:
            if turn in one.waiting:
                one.waiting.remove(turn)
            elif turn.done() and not turn.cancelled():
                self.end(limit)  # it came at the same moment
            if isinstance(error, TimeoutError):
                raise OverBudget(
                    f"busy_{limit.scope.kind}",
                    f"as many requests as this {limit.scope.kind} may get are under way",
                    retry_after=rules.PAUSE_AT_LEAST,
                ) from None
            raise

    def end(self, limit: Limit) -> None:
        """Give one back: to who waits in this process, if it may have it."""
        one = self._scopes[limit.scope]
        one.in_use -= 1
        self._serve(one)

    def renew(self, loop: asyncio.AbstractEventLoop) -> None:
        """Extend the leases of what this process holds. Raises SQLAlchemyError; the leases then end."""
        held = [(scope.kind, scope.id) for scope, one in list(self._scopes.items()) if one.held]
        if not held:
            return
        asked_at = clock.monotonic()
        with self._database.statement() as connection:
            others = holds.renew(connection, scopes=held, holder=self._holder, lease=self._lease)
        loop.call_soon_threadsafe(self._renewed, held, asked_at, others)

    async def close(self) -> None:
        """Give everything back."""
        for one in list(self._scopes.values()):
            if one.asking is not None:
                one.asking.cancel()
            if one.held:
                await self._give_back(one)

    def _serve(self, one: _Held) -> None:
        while one.waiting and one.free:
            turn = one.waiting.popleft()
            if not turn.done():
                one.in_use += 1
                turn.set_result(None)

    async def _ask(self, one: _Held) -> None:
        while one.waiting:
            try:
                async with one.change:
                    await self._run(lambda: self._change(one, one.in_use + len(one.waiting)))
            except SQLAlchemyError as error:
                log.warning("holds_not_changed", error=type(error).__name__)
            self._serve(one)
            if one.waiting:
                await asyncio.sleep(ASK_EVERY * random.uniform(0.5, 1.5))  # noqa: S311 — spreads, guards nothing

    def _change(self, one: _Held, wanted: int) -> None:
        """Hold what is wanted, as far as it is free and fair. Called in a thread, one at a time for a scope."""
        limit, asked_at = one.limit.at_once or 0, clock.monotonic()
        kind, name = one.limit.scope
        with self._database.transaction() as connection:
            others = holds.lock(connection, scope=kind, scope_id=name, holder=self._holder)
            held = rules.holds_granted(
                limit=limit,
                held_by_others=others.held,
                in_use=one.in_use,
                wanted=wanted,
                interested=others.holders + 1,
            )
            holds.put(connection, scope=kind, scope_id=name, holder=self._holder, held=held, lease=self._lease)
        one.held, one.may = held, rules.ceiling(limit=limit, interested=others.holders + 1)
        one.until = asked_at + self._lease.total_seconds()

    def _renewed(self, asked: list[tuple[str, str]], asked_at: float, others: dict[tuple[str, str], int]) -> None:
        for scope in asked:
            one = self._scopes.get(Scope(*scope))
            if one is None:
                continue
            found = others.get(one.limit.scope)
            if found is None:
                one.held = 0  # the lease had ended: others may have it
                continue
            one.may = rules.ceiling(limit=one.limit.at_once or 0, interested=found + 1)
            one.until = max(one.until, asked_at + self._lease.total_seconds())
            surplus = one.held > max(one.in_use, one.may)
            if not one.waiting and (one.in_use == 0 or surplus):
                task = asyncio.ensure_future(self._give_back(one))
                self._tidying.add(task)
                task.add_done_callback(self._tidying.discard)
            else:
                self._serve(one)

    async def _give_back(self, one: _Held) -> None:
        """Give back what is not in use."""
        kind, name = one.limit.scope
        try:
            async with one.change:
                if one.in_use:
                    await self._run(lambda: self._change(one, one.in_use))
                    return
                one.held = 0
                await self._run(lambda: self._delete(kind, name))
        except SQLAlchemyError as error:
            log.warning("holds_not_changed", error=type(error).__name__)

    def _delete(self, kind: str, name: str) -> None:
        with self._database.statement() as connection:
            holds.give_back(connection, scope=kind, scope_id=name, holder=self._holder)
