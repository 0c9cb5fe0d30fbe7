"""The hub: looks for new events of everything that is watched, and hands each to whoever watches it.

One task and one thread of a web process ask the database for all streams together, and only while there are any: how
far each watched process is, and then the events that are new. No stream holds a connection. What a reader does not
take waits in a bounded queue; one that takes too little for too long is let go, and comes back with Last-Event-ID.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
import structlog
from sqlalchemy.exc import SQLAlchemyError

from db.repositories import identity, process_events
from db.repositories.process_events import EventRow
from db.session import Database
from tenantsync import clock
from tenantsync.web.fields import utc

LOOK_EVERY = 0.025  # seconds
OF_THE_TIME = 0.3  # at most this much of it is spent on looking, however many processes are watched
EVENTS_A_LOOK = 2000
HEARTBEAT = b": heartbeat\n\n"
HEARTBEATS_EVERY = 15  # seconds; proxies cut connections on which a minute long nothing passes
SESSIONS_EVERY = 10  # seconds until somebody who was shut out stops seeing
LONGEST_QUEUE = 1000  # events that wait for one reader
LARGEST_QUEUE = 1_000_000  # bytes
LET_GO = 3.0  # seconds in which a slow reader may still read why it is let go
MOST_STREAMS = 20_000  # of one web process
OF_A_TENANT = MOST_STREAMS // 2  # of them, so that one tenant leaves room for the others

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Subscription:
    """One reader of one process. Everything happens in the event loop."""

    process_id: UUID
    session_id: UUID | None
    expires_at: float
    since: int
    """What the reader has already."""
    joined_at: int
    """The hub has handed out everything up to this number; later events come through the queue."""
    task: "asyncio.Task[Any]"
    tenant_id: UUID | None = None
    """Whose reader it is; None for an operator."""
    until_caught_up: bool = False
    """The reader wants what is there, and nothing more."""
    ended: str | None = None
    _queue: deque[bytes] = field(default_factory=deque)
    _size: int = 0
    _waiting: "asyncio.Future[None] | None" = None

    def push(self, data: bytes) -> None:
        """Hand something to the reader."""
        if self.ended is not None:
            return
        if len(self._queue) >= LONGEST_QUEUE or self._size + len(data) > LARGEST_QUEUE:
            self.end("slow")
            return
        self._queue.append(data)
        self._size += len(data)
        self._wake()

    def end(self, reason: str) -> None:
        """Let the reader go. Whatever waits for it is still sent, but to a slow one."""
        if self.ended is not None:
            return
        self.ended = reason
        if reason == "slow":
            self._queue.clear()
            asyncio.get_running_loop().call_later(LET_GO, self._cancel)
        self._wake()

    async def taken(self) -> bytes:
        """Everything that waits, as soon as anything does; nothing once it has ended."""
        while not self._queue and self.ended is None:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        data = b"".join(self._queue)
        self._queue.clear()
        self._size = 0
        return data

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _cancel(self) -> None:
        if not self.task.done():
            self.task.cancel()


class TooManyStreams(Exception):
    """This web process holds as many streams as it may."""


class Hub:
    """All streams of a web process."""

    def __init__(self, database: Database, *, of_a_tenant: int = OF_A_TENANT) -> None:
        self._database, self._of_a_tenant = database, of_a_tenant
        self._tenants: Counter[UUID] = Counter()
        self._watched: dict[UUID, set[Subscription]] = {}
        self._positions: dict[UUID, int] = {}
        self._all: dict[Subscription, int] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="live")
        self._somebody = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._second = 0
        self._closed = False

    @property
    def streams(self) -> int:
        """How many there are."""
        return len(self._all)

    def start(self) -> None:
        """Begin; called in the event loop that the streams live in."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._look_again_and_again()), loop.create_task(self._keep())]

    async def stop(self) -> None:
        """End every stream, then the looking."""
        self.end_all("restart")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.shutdown(wait=True)

    def end_all(self, reason: str) -> None:
        """End every stream, and take no more."""
        self._closed = True
        for subscription in list(self._all):
            subscription.end(reason)

    def subscribe(
        self,
        process_id: UUID,
        *,
        since: int,
        head: int,
        session_id: UUID | None,
        expires_at: float,
        tenant_id: UUID | None = None,
    ) -> Subscription:
        """Watch a process, of which `head` is the last number. Raises TooManyStreams.

        Up to `joined_at` the reader reads from the database by itself.
        """
        if self._closed or len(self._all) >= MOST_STREAMS:
            raise TooManyStreams
        if tenant_id is not None and self._tenants[tenant_id] >= self._of_a_tenant:
            raise TooManyStreams
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 — the hub lives in the loop
        joined_at = self._positions.setdefault(process_id, head)
        subscription = Subscription(process_id, session_id, expires_at, since, joined_at, task, tenant_id)
        self._watched.setdefault(process_id, set()).add(subscription)
        self._all[subscription] = len(self._all) % HEARTBEATS_EVERY
        if tenant_id is not None:
            self._tenants[tenant_id] += 1
        self._somebody.set()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop watching."""
        if self._all.pop(subscription, None) is not None and subscription.tenant_id is not None:
            self._tenants[subscription.tenant_id] -= 1
            if not self._tenants[subscription.tenant_id]:
                del self._tenants[subscription.tenant_id]
        others = self._watched.get(subscription.process_id)
        if others is not None:
            others.discard(subscription)
            if not others:
                del self._watched[subscription.process_id]
                self._positions.pop(subscription.process_id, None)
        if not self._all:
            self._somebody.clear()

    async def _look_again_and_again(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._somebody.wait()
            began = clock.monotonic()
            since = dict(self._positions)
            try:
                found = await loop.run_in_executor(self._thread, self._look, since)
            except SQLAlchemyError as error:
                log.warning("live_database_away", error=type(error).__name__)
                await asyncio.sleep(1.0)
                continue
            self._hand_out(found)
            took = clock.monotonic() - began
            if len(found) < EVENTS_A_LOOK:
                await asyncio.sleep(max(LOOK_EVERY - took, took * (1 / OF_THE_TIME - 1) if took > LOOK_EVERY else 0.0))

    def _look(self, since: dict[UUID, int]) -> list[tuple[UUID, int, bytes | None]]:
        """In the thread: the new events of all watched processes, ready to send."""
        with self._database.statement() as connection:
            heads = process_events.heads(connection, process_ids=since)
            news = {process: position for process, position in since.items() if heads.get(process, 0) > position}
            if not news:
                return []
            rows = process_events.after_many(connection, since=news, limit=EVENTS_A_LOOK)
        return [(row.process_id, row.sequence, _written(row)) for row in rows]

    def _hand_out(self, found: Iterable[tuple[UUID, int, bytes | None]]) -> None:
        for process_id, sequence, message in found:
            # somebody may have left and come back while the thread looked: their position is newer than its answer
            if sequence <= self._positions.get(process_id, sequence):
                continue
            self._positions[process_id] = sequence
            for subscription in tuple(self._watched.get(process_id, ())):
                if message is None:
                    subscription.end("broken")
                elif sequence > subscription.since:
                    subscription.push(message)

    async def _keep(self) -> None:
        """Once a second: heartbeats for a fifteenth of the streams, and an end to those whose time is over."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1.0)
            self._second += 1
            now = clock.now().timestamp()
            for subscription, turn in list(self._all.items()):
                if subscription.expires_at <= now:
                    subscription.end("expired")
                elif turn == self._second % HEARTBEATS_EVERY:
                    subscription.push(HEARTBEAT)
            if self._second % SESSIONS_EVERY == 0 and self._all:
                sessions = {one.session_id for one in self._all if one.session_id is not None}
                try:
                    live = await loop.run_in_executor(self._thread, self._live, sessions)
                except SQLAlchemyError:
                    continue  # the other task says so
                for subscription in list(self._all):
                    if subscription.session_id in sessions - live:
                        subscription.end("signed_out")

    def _live(self, sessions: set[UUID]) -> set[UUID]:
        with self._database.statement() as connection:
            return identity.live_among(connection, session_ids=sessions)


def shown(row: EventRow) -> dict[str, Any]:
    """An event in the structure that browsers know, wherever they read it."""
    return {
        "id": str(row.event_id),
        "process_id": str(row.process_id),
        "event_type": row.event_type,
        "event_sequence": row.sequence,
        "event_category": row.category,
        "event_priority": row.priority,
        "event_source": row.source,
        "created_at": utc(row.created_at),
        "event_data": row.data,
    }


def as_message(row: EventRow) -> bytes:
    """An event on the wire. JSON holds no line break, so one `data:` line is enough."""
    return b"id: %d\ndata: %b\n\n" % (row.sequence, orjson.dumps(shown(row)))


def as_end(reason: str) -> bytes:
    """The last message of a stream."""
    return b"event: end\ndata: %b\n\n" % orjson.dumps({"reason": reason})


def _written(row: EventRow) -> bytes | None:
    """An event on the wire; None where it has no form as JSON, which is to end its own streams and no others."""
    try:
        return as_message(row)
    except (TypeError, ValueError) as error:
        log.warning("live_event_unwritable", process_id=str(row.process_id), error=type(error).__name__)
        return None
