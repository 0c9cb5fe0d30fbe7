"""A stream of server-sent events: what a reader missed, then what happens."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from db.repositories.process_events import EventRow
from tenantsync.web.live import Hub, Subscription, as_end, as_message

RETRY = b"retry: 1500\n\n"  # milliseconds until a browser comes back by itself
PAGE = 500
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]

Missed = Callable[[int, int], Awaitable[Sequence[EventRow]]]
"""(after, limit): what is in the database after a number."""


class EventStream(Response):
    """Written by hand, for an idle stream is to cost two small tasks and no thread."""

    media_type = "text/event-stream"

    def __init__(self, hub: Hub, subscription: Subscription, missed: Missed) -> None:
        super().__init__()
        self._hub = hub
        self._subscription = subscription
        self._missed = missed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(self._until_gone(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
            await self._send(send, RETRY)
            await self._catch_up(send)
            if self._subscription.until_caught_up:
                self._subscription.end("caught_up")
            await self._follow(send)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._subscription.ended != "slow" or task is None:
                raise
            task.uncancel()  # it did not even take the news that it is let go: the connection is closed
        except OSError:
            return
        finally:
            gone.cancel()
            self._hub.unsubscribe(self._subscription)

    async def _catch_up(self, send: Send) -> None:
        position, until = self._subscription.since, self._subscription.joined_at
        while position < until and self._subscription.ended is None:
            try:
                rows = await self._missed(position, PAGE)
            except SQLAlchemyError:
                self._subscription.end("busy")
                return
            rows = [row for row in rows if row.sequence <= until]
            if not rows:
                return
            position = rows[-1].sequence
            await self._send(send, b"".join(as_message(row) for row in rows))

    async def _follow(self, send: Send) -> None:
        subscription = self._subscription
        while subscription.ended is None:
            data = await subscription.taken()
            if data:
                await self._send(send, data)
        if subscription.ended != "gone":
            await self._send(send, as_end(subscription.ended), more=False)

    @staticmethod
    async def _send(send: Send, data: bytes, *, more: bool = True) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": more})

    async def _until_gone(self, receive: Receive) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while (await receive())["type"] != "http.disconnect":
                pass
            self._subscription.end("gone")
