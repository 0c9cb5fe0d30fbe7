"""A server between the product and the Google stand-in: it notes what passes, rewrites pages, holds them, or lies."""

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web
from yarl import URL

JsonDict = dict[str, Any]
Rewrite = Callable[[int, JsonDict], JsonDict]
"""Given a page's number (1 for the first of an answer) and its body, the body to pass on."""

HELD_WITHIN = 20.0  # seconds until a page that nobody asks for fails its test
_PASSED_ON = ("Authorization", "If-None-Match", "User-Agent")


def adding(extra: Mapping[int, Sequence[JsonDict]]) -> Rewrite:
    """Items to append to pages, by the page's number."""
    return lambda number, page: page | {"items": [*page.get("items", []), *extra.get(number, [])]}


def repeating(places: Sequence[int]) -> Rewrite:
    """Every page names some of its own items again, those at these places (modulo its length)."""

    def repeat(_: int, page: JsonDict) -> JsonDict:
        items = page.get("items") or []
        return page | {"items": [*items, *(items[place % len(items)] for place in places if items)]}

    return repeat


def mapping(change: Callable[[JsonDict], JsonDict]) -> Rewrite:
    """Every item as `change` makes it."""
    return lambda _, page: page | {"items": [change(item) for item in page.get("items", [])]}


def without(unwanted: Callable[[JsonDict], bool]) -> Rewrite:
    """Pages that do not name the unwanted items."""
    return lambda _, page: page | {"items": [item for item in page.get("items", []) if not unwanted(item)]}


def replacing(**fields: Any) -> Rewrite:
    """The last page with other fields."""
    return lambda _, page: page if "nextPageToken" in page else page | fields


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer made up on the spot."""

    status: int
    body: bytes
    content_type: str = "application/json; charset=UTF-8"


class Wiretap:
    """`with Wiretap(upstream) as tap:` and send the product to `tap.url`. Only lists of events are touched."""

    def __init__(self, upstream: str) -> None:
        self.pages: list[JsonDict] = []
        """Bodies of the lists' pages, as they were passed on."""
        self.raw_paths: list[str] = []
        """Paths with their queries, byte for byte as they were asked for."""
        self.rewrite: Rewrite | None = None
        self.replies: deque[Reply] = deque()
        """Answers to the next lists, instead of the stand-in's."""
        self._upstream = upstream
        self._numbers: dict[str, int] = {}
        self._held_page: int | None = None
        self._reached = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="wiretap", daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(HELD_WITHIN)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def hold(self, page: int) -> None:
        """Keep the next answer that is this page, until `release`."""
        self._held_page = page

    def wait_until_held(self) -> None:
        assert self._reached.wait(HELD_WITHIN), "the page was never asked for"

    def release(self) -> None:
        self._loop.call_soon_threadsafe(self._released.set)

    async def _serve(self) -> None:
        self._loop, self._stop, self._released = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, max_line_size=256 * 1024)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession(skip_auto_headers=("Accept-Encoding",)) as self._session:
            self._ready.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        self.raw_paths.append(request.raw_path)
        listing = request.path.endswith("/events")
        if listing and self.replies:
            lie = self.replies.popleft()
            return web.Response(status=lie.status, body=lie.body, headers={"Content-Type": lie.content_type})
        url = URL(self._upstream + request.raw_path, encoded=True)
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        async with self._session.request(request.method, url, headers=headers, allow_redirects=False) as answer:
            body = await answer.read()
        if listing and answer.status == 200:
            body = await self._passed_on(self._numbers.get(request.query.get("pageToken", ""), 1), json.loads(body))
        return web.Response(status=answer.status, body=body, headers={"Content-Type": answer.content_type})

    async def _passed_on(self, number: int, page: JsonDict) -> bytes:
        if "nextPageToken" in page:
            self._numbers[page["nextPageToken"]] = number + 1
        if self.rewrite is not None:
            page = self.rewrite(number, page)
        self.pages.append(page)
        if self._held_page == number:
            self._held_page = None
            self._reached.set()
            await self._released.wait()
        return json.dumps(page).encode()
