"""The web application, and two ways to run it: awaited on a loop, or on a thread beside a test."""

import asyncio
import ipaddress
import threading
from types import TracebackType

from aiohttp import web
from pydantic import ValidationError

from sandbox.google import control_api
from sandbox.google.api import ROUTES
from sandbox.google.codec import decode, encode
from sandbox.google.errors import ApiError
from sandbox.google.gate import Gate, Handler
from sandbox.google.store import Store

API_ROOT = "/calendar/v3"
_LARGEST_BODY = 512 * 1024 * 1024
_LONGEST_LINE = 256 * 1024  # the longest sync token stands in the URL
_LEAVING_S = 1.0


def make_app(store: Store) -> web.Application:
    app = web.Application(client_max_size=_LARGEST_BODY)
    stopping = asyncio.Event()
    gate = Gate(store, stopping)
    for method, path, endpoint, operation in ROUTES:
        app.router.add_route(method, API_ROOT + path, gate.api(endpoint, operation))
    app.router.add_post("/token", gate.token)
    app.router.add_post("/__control/{command}", _control(store))
    app.router.add_route("*", "/{tail:.*}", gate.other)

    async def let_go(_: web.Application) -> None:
        stopping.set()

    app.on_shutdown.append(let_go)
    return app


async def start(store: Store, *, host: str = "127.0.0.1", port: int = 0) -> tuple[web.AppRunner, int]:
    """Listening when it returns; `await runner.cleanup()` ends it."""
    runner = web.AppRunner(
        make_app(store),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=_LEAVING_S,
        max_line_size=_LONGEST_LINE,
    )
    await runner.setup()
    site = web.TCPSite(runner, host, port, backlog=1024)
    await site.start()
    return runner, runner.addresses[0][1]


class ThreadedServer:
    """A stand-in on a thread of its own: `with ThreadedServer() as server: GoogleControl(server.base_url)`.

    The store lives on that thread; talk to it through the control API.
    """

    def __init__(self, store: Store | None = None, *, port: int = 0) -> None:
        self._store = store or Store()
        self._asked_port = port
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._main, name="google-stand-in", daemon=True)
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "ThreadedServer":
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except OSError as error:
            self._failure = error
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        runner, self.port = await start(self._store, port=self._asked_port)
        self._ready.set()
        try:
            await self._stop.wait()
        finally:
            await runner.cleanup()


def _control(store: Store) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        if not is_loopback(request.remote):
            return _said(403, "the control API answers on loopback only")
        try:
            payload = decode(await request.read() or b"{}")
            body = control_api.run(store, request.match_info["command"], payload)
        except ApiError as error:
            return _said(error.status, f"{error.reason}: {error.message or ''}")
        except LookupError as error:
            return _said(404, str(error.args[0]))
        except (ValidationError, ValueError, TypeError) as error:
            return _said(400, str(error))
        return web.Response(body=body, content_type="application/json")

    return handle


def _said(status: int, text: str) -> web.Response:
    return web.Response(status=status, body=encode({"error": text}), content_type="application/json")


def is_loopback(remote: str | None) -> bool:
    try:
        return remote is not None and ipaddress.ip_address(remote).is_loopback
    except ValueError:
        return False
