"""A proxy in front of Supabase that fails on command, and remembers what it was asked."""

import asyncio
import json
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
from aiohttp import web

from sandbox.servers.process import wait_until

T = TypeVar("T")

LARGEST_BODY = 64 * 2**20
HOP_BY_HOP = frozenset({"host", "connection", "content-length", "transfer-encoding", "content-encoding"})
HTML = "<!DOCTYPE html><html><body>Bad gateway</body></html>"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What happens to calls that it meets. With nothing set a call passes, which leaves `hold` and `delay`.

    `hold` keeps a call before Supabase sees it, until `release`. `lose_answer` lets Supabase do the work, then
    hangs up; `withhold_answer` does the work and says nothing until the client leaves. `largest` meets only calls
    with a larger body.
    """

    status: int | None = None
    body: str = '{"message": "injected"}'
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    reset: bool = False
    hold: bool = False
    lose_answer: bool = False
    withhold_answer: bool = False
    largest: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A call that arrived, whether or not it went through."""

    path: str
    body: bytes

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of a call of mirror_apply; none of any other."""
        payload = json.loads(self.body) if self.path.endswith("/rpc/mirror_apply") else {}
        found: list[dict[str, Any]] = payload.get("rows", [])
        return found


class SupabaseProxy:
    """On a thread of its own: `with SupabaseProxy(lite.url) as proxy: create_client(proxy.url, …)`."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="supabase-proxy", daemon=True)
        self._troubles: list[tuple[Trouble, int | None]] = []
        self._released = asyncio.Event()
        self._leaving = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.calls: list[Call] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._open()).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._shut()).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # What a test says

    def trouble(self, trouble: Trouble, *, times: int | None = None) -> None:
        """From now on, for so many calls (None: until `clear`). A call meets the first that is not used up."""
        self._troubles.append((trouble, times))

    def clear(self) -> None:
        """All troubles are over, and calls that are held go on."""
        self._troubles.clear()
        self.release()

    def reset(self) -> None:
        """As new: no troubles, no calls."""
        self.clear()
        self.calls.clear()

    def release(self) -> None:
        """Let the calls go on that are held now."""
        self._do(self._let_go()).result(10)

    def down(self) -> None:
        """Connections are refused from now on."""
        self._do(self._shut()).result(10)

    def up(self) -> None:
        """On the port it had."""
        self._do(self._open()).result(10)

    # What a test sees

    def sent(self) -> list[dict[str, Any]]:
        """Every row that ever arrived, in the order of arrival."""
        return [row for call in self.calls for row in call.rows]

    def wait_for_calls(self, number: int) -> None:
        wait_until(lambda: len(self.calls) >= number, timeout=20, what=f"call {number} to Supabase")

    # The server

    def _do(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _open(self) -> None:
        self._leaving.clear()
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def _shut(self) -> None:
        self._leaving.set()
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = None

    async def _let_go(self) -> None:
        self._released.set()
        self._released = asyncio.Event()

    def _next_trouble(self, size: int) -> Trouble:
        for place, (trouble, times) in enumerate(self._troubles):
            if trouble.largest is not None and size <= trouble.largest:
                continue
            if times is not None:
                self._troubles[place : place + 1] = [(trouble, times - 1)] if times > 1 else []
            return trouble
        return Trouble()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        trouble, released = self._next_trouble(len(body)), self._released
        self.calls.append(Call(request.path, body))
        if trouble.hold:
            await released.wait()
        await asyncio.sleep(trouble.delay)
        if trouble.reset:
            return _hang_up(request)
        if trouble.status is not None:
            return web.Response(
                status=trouble.status,
                text=trouble.body,
                content_type=trouble.content_type,
                headers=trouble.headers,
            )
        answer = await self._forward(request, body)
        if trouble.lose_answer:
            return _hang_up(request)
        if trouble.withhold_answer:
            await self._leaving.wait()
        return answer

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        async with (
            aiohttp.ClientSession(auto_decompress=True, trust_env=False) as session,
            session.request(request.method, self._target + request.path_qs, headers=headers, data=body) as answer,
        ):
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)


def _hang_up(request: web.Request) -> web.Response:
    with suppress(AttributeError):  # the client may have left first
        request.transport.abort()  # type: ignore[union-attr]
    return web.Response()
