"""A proxy in front of a server, which lets requests through at once and keeps answers back for as long as a test likes.

What it holds was answered already: whoever waits for it holds a picture of how things were.
"""

import asyncio
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web
from yarl import URL

from tests.support.waiting import wait_until

_OWN = frozenset({"content-length", "transfer-encoding", "connection", "date", "server", "host"})


class HoldingProxy:
    def __init__(self, target: str) -> None:
        self._target = target.rstrip("/")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="holding-proxy", daemon=True)
        self._opened = asyncio.Event()
        self._opened.set()
        self._skip = 0
        self.held = 0
        """Answers that are being kept back."""
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def hold(self, *, skip: int = 0) -> None:
        """Keep back the answers to all requests but the next `skip` ones, until `release`."""

        async def begin() -> None:
            self._skip = skip
            self._opened.clear()

        self._call(begin())

    def release(self) -> None:
        async def end() -> None:
            self._opened.set()

        self._call(end())

    def wait_until_held(self, count: int = 1) -> None:
        wait_until(lambda: self.held >= count, about=f"the holding of {count} answers")

    def _call(self, work: object) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)  # type: ignore[arg-type]

    async def _open(self) -> None:
        self._session = aiohttp.ClientSession(auto_decompress=False, trust_env=False)
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{tail:.*}", self._pass)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def _close(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _pass(self, request: web.Request) -> web.Response:
        url = URL(self._target + request.raw_path, encoded=True)
        async with self._session.request(
            request.method,
            url,
            headers=_passed_on(request.headers),
            data=await request.read(),
            allow_redirects=False,
            skip_auto_headers=("Accept-Encoding", "User-Agent"),
        ) as response:
            body = await response.read()
        if not self._opened.is_set():
            await self._keep_back()
        return web.Response(status=response.status, headers=_passed_on(response.headers), body=body)

    async def _keep_back(self) -> None:
        if self._skip:
            self._skip -= 1
            return
        self.held += 1
        try:
            await self._opened.wait()
        finally:
            self.held -= 1


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _OWN}
