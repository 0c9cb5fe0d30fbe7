"""The origin: Realtime's paths are answered here, everything else is passed on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from sandbox.realtime import frames, policies
from sandbox.realtime.hub import PREFIX, Hub
from sandbox.realtime.listening import Listener
from sandbox.realtime.policies import Keys, Refused
from sandbox.realtime.sockets import Socket

LARGEST_BODY = 64 * 2**20
HOP_BY_HOP = frozenset({"host", "connection", "keep-alive", "content-length", "transfer-encoding", "upgrade"})
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "authorization, apikey, content-type, x-client-info",
    "Access-Control-Allow-Methods": "POST, OPTIONS",
}


@dataclass(frozen=True, slots=True)
class Project:
    """What stands behind the origin."""

    dsn: str
    upstream: str
    keys: Keys


class Gateway:
    """Handlers of one project's origin."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._hub = Hub()
        self._listener = Listener(project.dsn, self._hub)
        self._upstream: aiohttp.ClientSession

    def app(self) -> web.Application:
        made = web.Application(client_max_size=LARGEST_BODY)
        made.cleanup_ctx.append(self._running)
        made.router.add_get("/realtime/v1/websocket", self._websocket)
        made.router.add_get("/realtime/v1/health", self._health)
        made.router.add_route("OPTIONS", "/realtime/v1/{rest:.*}", self._preflight)
        made.router.add_post("/realtime/v1/api/broadcast", self._broadcast_many)
        made.router.add_post("/realtime/v1/api/broadcast/{topic}/events/{event}", self._broadcast_one)
        made.router.add_route("*", "/{path:.*}", self._pass_on)
        return made

    async def _running(self, _: web.Application) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=64, keepalive_timeout=4)  # lite closes idle ones after 5 s
        self._upstream = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        listening = asyncio.create_task(self._listener.run())
        yield
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening
        await self._upstream.close()

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        key, version = request.query.get("apikey"), request.query.get("vsn", frames.OBJECTS)
        if key is None or not self._project.keys.knows(key):
            return web.json_response({"message": "Invalid API key"}, status=401)
        if version not in frames.VERSIONS:
            return web.json_response({"message": f"no version {version} of the protocol"}, status=400)
        socket = Socket(self._hub, self._project.keys, self._project.dsn, version=version, key=key)
        return await socket.serve(request)

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"listening": self._listener.listening})

    async def _preflight(self, _: web.Request) -> web.Response:
        return web.Response(status=204, headers=CORS)

    async def _broadcast_many(self, request: web.Request) -> web.Response:
        try:
            messages = [
                (one["topic"], one["event"], one.get("payload"), bool(one.get("private")))
                for one in (await request.json())["messages"]
            ]
        except (ValueError, KeyError, TypeError):
            return web.json_response({"message": "messages with topic, event and payload are wanted"}, status=422)
        return await self._broadcast(request, messages)

    async def _broadcast_one(self, request: web.Request) -> web.Response:
        try:
            payload = await request.json()
        except ValueError:
            return web.json_response({"message": "the body is not JSON"}, status=422)
        private = request.query.get("private") == "true"
        about = request.match_info
        return await self._broadcast(request, [(about["topic"], about["event"], payload, private)])

    async def _broadcast(self, request: web.Request, messages: list[tuple[str, str, Any, bool]]) -> web.Response:
        key = request.headers.get("apikey")
        token = request.headers.get("authorization", "").removeprefix("Bearer ").strip() or None
        if not self._project.keys.knows(key):
            return web.json_response({"message": "Invalid API key"}, status=401, headers=CORS)
        try:
            caller = self._project.keys.caller(key=key, token=token)
        except Refused as error:
            return web.json_response({"message": str(error)}, status=401, headers=CORS)
        for topic, event, payload, private in messages:
            name = str(topic).removeprefix(PREFIX)
            if not private or await asyncio.to_thread(policies.may_write, self._project.dsn, caller, name):
                self._hub.broadcast(name, str(event), payload, private=private)
        return web.Response(status=202, headers=CORS)  # as the hosted service answers, whoever was left out

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP]
        url = self._project.upstream + request.raw_path
        body = await request.read() if request.can_read_body else None
        try:
            async with self._upstream.request(
                request.method, URL(url, encoded=True), headers=headers, data=body, allow_redirects=False
            ) as answer:
                content = await answer.read()
                kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP]
                return web.Response(status=answer.status, body=content, headers=CIMultiDict(kept))
        except aiohttp.ClientError as error:
            return web.json_response({"message": f"the project does not answer: {type(error).__name__}"}, status=502)
