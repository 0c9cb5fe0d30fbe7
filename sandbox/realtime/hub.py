"""Who listens to what, and how a broadcast reaches them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from sandbox.realtime import frames
from sandbox.realtime.frames import Message
from sandbox.realtime.policies import Caller

WAITING = 1000  # messages that a socket may leave unread before it is disconnected
PREFIX = "realtime:"


@dataclass(eq=False, slots=True)
class Outlet:
    """The writing side of a socket: messages in order, a bounded number of them."""

    version: str
    key: str
    queue: asyncio.Queue[str | bytes | None] = field(default_factory=lambda: asyncio.Queue(WAITING + 1))
    overrun: bool = False

    def send(self, message: Message) -> None:
        if self.queue.qsize() >= WAITING:
            self.overrun = True
            return
        self.queue.put_nowait(frames.encode(self.version, message))


@dataclass(eq=False, slots=True)
class Channel:
    """A topic that a socket has joined."""

    outlet: Outlet
    topic: str
    """With its prefix, as clients say it."""
    join_ref: str | None
    private: bool
    caller: Caller
    hears_itself: bool = False
    acknowledged: bool = False

    @property
    def name(self) -> str:
        return self.topic.removeprefix(PREFIX)

    def tell(self, event: str, payload: dict[str, Any], *, ref: str | None = None) -> None:
        join_ref = self.join_ref if event not in ("broadcast", "system") else None
        self.outlet.send(Message(self.topic, event, payload, ref, join_ref))

    def system(self, status: str, message: str) -> None:
        told = {"status": status, "message": message, "extension": "system", "channel": self.name}
        self.tell("system", told)


class Hub:
    """Every joined channel of every socket."""

    def __init__(self) -> None:
        self._channels: dict[str, set[Channel]] = defaultdict(set)

    def join(self, channel: Channel) -> None:
        self._channels[channel.name].add(channel)

    def leave(self, channel: Channel) -> None:
        listening = self._channels[channel.name]
        listening.discard(channel)
        if not listening:
            del self._channels[channel.name]

    def broadcast(
        self,
        name: str,
        event: str,
        payload: Any,
        *,
        private: bool,
        message_id: str | None = None,
        sender: Channel | None = None,
    ) -> int:
        """Tell everybody who has joined the topic the same way, private or public; returns how many that are."""
        told: dict[str, Any] = {"type": "broadcast", "event": event, "payload": payload}
        if message_id:
            told["meta"] = {"id": message_id}
        listening = [
            one
            for one in self._channels.get(name, ())
            if one.private == private and (one is not sender or one.hears_itself)
        ]
        for one in listening:
            one.tell("broadcast", told)
        return len(listening)
