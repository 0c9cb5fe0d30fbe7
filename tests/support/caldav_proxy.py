"""Stands in front of a real CalDAV server and passes everything on, but for what its quirks change.

A quirk gets a request and a way to have it answered; it may change the request, the answer, or answer by
itself. The first quirk is the outermost.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from xml.etree.ElementTree import ParseError

import aiohttp
from aiohttp import web
from defusedxml.ElementTree import fromstring
from yarl import URL

from tests.support.caldav import CALDAV, DAV

HOST = "127.0.0.1"
_PASSED_ON = frozenset({"authorization", "content-type", "depth", "if-match", "if-none-match", "x-script-name"})
_PASSED_BACK = frozenset({"content-type", "etag", "dav", "allow", "location", "www-authenticate"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def report(self) -> str:
        """What is asked: `sync-collection`, `calendar-multiget`, `propfind`, …; empty without a body."""
        try:
            return str(fromstring(self.body).tag).partition("}")[2]
        except ParseError:
            return ""

    @property
    def token(self) -> str | None:
        """The sync token that was sent; empty when everything is asked for, None in other requests."""
        return (fromstring(self.body).findtext(f"{DAV}sync-token") or "") if self.report == "sync-collection" else None

    @property
    def hrefs(self) -> list[str]:
        return [one.text or "" for one in fromstring(self.body).iter(f"{DAV}href")] if self.body else []

    @property
    def wants_bodies(self) -> bool:
        return f"{CALDAV}calendar-data" in {one.tag for one in fromstring(self.body).iter()} if self.body else False


@dataclass(frozen=True, slots=True)
class Told:
    """An answer. One that is `cut` announces its whole body, sends half of it and hangs up."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "text/xml; charset=utf-8"})
    cut: bool = False


Step = Callable[[Asked], Awaitable[Told]]
Quirk = Callable[[Asked, Step], Awaitable[Told]]


class CaldavProxy:
    """On a thread of its own: `with CaldavProxy(radicale.url) as proxy: …`. Without an upstream it knows nothing."""

    def __init__(self, upstream: str | None) -> None:
        self._upstream = upstream
        self.quirks: list[Quirk] = []
        self.asked: list[Asked] = []
        self.port = 0
        self._ready, self._loop, self._stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="caldav-proxy", daemon=True)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/"

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def behave(self, *quirks: Quirk) -> None:
        """With these quirks, and no others, from now on; what was asked so far is forgotten."""
        self.quirks = list(quirks)
        self.asked.clear()

    def reports(self, name: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.report == name]

    @property
    def tokens(self) -> list[str]:
        """The sync tokens that were sent, in order; empty ones asked for everything."""
        return [asked.token or "" for asked in self.reports("sync-collection")]

    def _main(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            server = web.Server(lambda request: self._handle(request, session), handler_cancellation=True)
            runner = web.ServerRunner(server, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, HOST, 0)
            await site.start()
            self.port = runner.addresses[0][1]
            self._ready.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest, session: aiohttp.ClientSession) -> web.StreamResponse:
        asked = Asked(request.method, request.raw_path, dict(request.headers), await request.read())
        self.asked.append(asked)

        async def upstream(sent: Asked) -> Told:
            return await self._pass_on(sent, session)

        step: Step = upstream
        for quirk in reversed(self.quirks):
            step = _around(quirk, step)
        told = await step(asked)
        return await _answer(request, told)

    async def _pass_on(self, asked: Asked, session: aiohttp.ClientSession) -> Told:
        if self._upstream is None:
            return Told(404, b"<html><body>Nothing here</body></html>", {"Content-Type": "text/html"})
        headers = {name: value for name, value in asked.headers.items() if name.lower() in _PASSED_ON}
        url = URL(self._upstream.rstrip("/") + asked.target, encoded=True)
        async with session.request(
            asked.method, url, headers=headers, data=asked.body, allow_redirects=False
        ) as answer:
            back = {name: value for name, value in answer.headers.items() if name.lower() in _PASSED_BACK}
            return Told(answer.status, await answer.read(), back)


def _around(quirk: Quirk, step: Step) -> Step:
    async def around(asked: Asked) -> Told:
        return await quirk(asked, step)

    return around


async def _answer(request: web.BaseRequest, told: Told) -> web.StreamResponse:
    if not told.cut:
        return web.Response(status=told.status, body=told.body, headers=told.headers)
    response = web.StreamResponse(status=told.status, headers=told.headers)
    response.content_length = len(told.body)
    await response.prepare(request)
    await response.write(told.body[: len(told.body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response
