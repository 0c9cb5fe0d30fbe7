"""One WebSocket: joins, leaves, tokens, heartbeats and broadcasts of a client."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from aiohttp import WSMsgType, web

from sandbox.realtime import policies
from sandbox.realtime.frames import BadFrame, Message, decode
from sandbox.realtime.hub import PREFIX, Channel, Hub, Outlet
from sandbox.realtime.policies import Caller, Keys, Refused

IDLE = 60.0  # seconds without a word, heartbeats included, after which the hosted service hangs up
LOOK = 0.2  # seconds between two looks at who has expired
PHOENIX = "phoenix"


class Socket:
    """A client's connection and the channels that it has joined."""

    def __init__(self, hub: Hub, keys: Keys, dsn: str, *, version: str, key: str) -> None:
        self._hub, self._keys, self._dsn = hub, keys, dsn
        self._version, self._key = version, key
        self._outlet = Outlet(version, key)
        self._channels: dict[str, Channel] = {}

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Until either side hangs up."""
        wire = web.WebSocketResponse(max_msg_size=4 * 2**20)
        await wire.prepare(request)
        helpers = [asyncio.create_task(self._write(wire)), asyncio.create_task(self._expire(wire))]
        try:
            while not wire.closed:
                said = await wire.receive(timeout=IDLE)
                if said.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    break
                await self._hear(said.data)
        except (TimeoutError, BadFrame):
            await wire.close(code=1002)
        finally:
            for channel in list(self._channels.values()):
                self._leave(channel)
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
        return wire

    async def _write(self, wire: web.WebSocketResponse) -> None:
        with suppress(ConnectionError):
            while (data := await self._outlet.queue.get()) is not None:
                await (wire.send_bytes(data) if isinstance(data, bytes) else wire.send_str(data))

    async def _expire(self, wire: web.WebSocketResponse) -> None:
        """Close the channels whose token is no longer good, and the socket of a client that does not read."""
        while True:
            await asyncio.sleep(LOOK)
            for channel in list(self._channels.values()):
                expiry = channel.caller.expires_at
                if expiry is not None and expiry <= time.time():
                    self._shut(channel, f"Token has expired {int(time.time() - expiry)} seconds ago")
            if self._outlet.overrun:
                await wire.close(code=1008)

    async def _hear(self, data: str | bytes) -> None:
        message = decode(self._version, data)
        channel = self._channels.get(message.topic)
        if message.topic == PHOENIX:
            self._reply(message, "ok", {})
        elif message.event == "phx_join":
            await self._join(message)
        elif channel is None:
            self._reply(message, "error", {"reason": "unmatched topic"})
        elif message.event == "phx_leave":
            self._leave(channel)
            self._reply(message, "ok", {})
            channel.tell("phx_close", {})
        elif message.event == "access_token":
            await self._renew(channel, message.payload.get("access_token"))
        elif message.event == "broadcast":
            await self._broadcast(channel, message)
        else:  # presence
            self._reply(message, "ok", {})

    def _reply(self, message: Message, status: str, response: dict[str, Any]) -> None:
        payload = {"status": status, "response": response}
        self._outlet.send(Message(message.topic, "phx_reply", payload, message.ref, message.join_ref))

    async def _join(self, message: Message) -> None:
        config = message.payload.get("config") or {}
        try:
            channel = self._asked(message, config)
            await self._check(channel)
        except Refused as error:
            self._reply(message, "error", {"reason": str(error)})
            return
        if earlier := self._channels.get(message.topic):  # a client that joins again has lost the first one
            self._leave(earlier)
            earlier.tell("phx_close", {}, ref=earlier.join_ref)
        self._channels[message.topic] = channel
        self._hub.join(channel)
        self._reply(message, "ok", {"postgres_changes": []})
        channel.system("ok", "Subscribed to Realtime")

    def _asked(self, message: Message, config: dict[str, Any]) -> Channel:
        if not message.topic.startswith(PREFIX) or message.topic == PREFIX:
            raise Refused("TopicNameRequired: You must provide a topic name")
        if config.get("postgres_changes"):
            raise Refused("this stand-in has no postgres_changes: broadcast from the database instead")
        broadcast = config.get("broadcast") or {}
        return Channel(
            self._outlet,
            message.topic,
            message.join_ref or message.ref,
            private=bool(config.get("private")),
            caller=self._keys.caller(key=self._key, token=message.payload.get("access_token")),
            hears_itself=bool(broadcast.get("self")),
            acknowledged=bool(broadcast.get("ack")),
        )

    async def _check(self, channel: Channel) -> None:
        if channel.private and not await asyncio.to_thread(policies.may_read, self._dsn, channel.caller, channel.name):
            raise Refused(f"Unauthorized: You do not have permissions to read from this Channel topic: {channel.name}")

    async def _renew(self, channel: Channel, token: Any) -> None:
        """A new token decides anew; one of the project's own keys changes nothing."""
        if not isinstance(token, str) or token.startswith("sb_"):
            return
        before: Caller = channel.caller
        try:
            channel.caller = self._keys.caller(key=self._key, token=token)
            if channel.caller != before:
                await self._check(channel)
        except Refused as error:
            self._shut(channel, str(error))

    async def _broadcast(self, channel: Channel, message: Message) -> None:
        allowed = not channel.private or await asyncio.to_thread(
            policies.may_write, self._dsn, channel.caller, channel.name
        )
        if allowed:
            event, payload = str(message.payload.get("event", "")), message.payload.get("payload")
            self._hub.broadcast(channel.name, event, payload, private=channel.private, sender=channel)
        if channel.acknowledged and message.ref is not None:
            self._reply(message, "ok" if allowed else "error", {})

    def _shut(self, channel: Channel, why: str) -> None:
        channel.system("error", why)
        self._leave(channel)
        channel.tell("phx_close", {}, ref=channel.join_ref)

    def _leave(self, channel: Channel) -> None:
        if self._channels.get(channel.topic) is channel:
            del self._channels[channel.topic]
        self._hub.leave(channel)
