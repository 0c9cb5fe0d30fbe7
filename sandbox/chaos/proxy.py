"""A TCP proxy that misbehaves on command: one process, a listener for every connection that can be disturbed.

It is told what to do in JSON lines on standard input and answers each on standard output; when the input
ends, so does it. `sandbox/chaos/network.py` is the other end.
"""

from __future__ import annotations

import asyncio
import fnmatch
import json
import random
import signal
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, with a reset
HELD_BACK = 256 * 1024  # bytes of a slowed connection, until its sender is made to wait
READY = b"Z\x00\x00\x00\x05"  # how every answer of Postgres ends, followed by the state of the transaction
IDLE = b"I"
QUERY = 5  # bytes before the text of a simple query
WHOLE = (b"with", b"update", b"insert", b"delete", b"\nwith", b"\nupdate", b"\ninsert", b"\ndelete")
APPLY = b"POST /rest/v1/rpc/mirror_apply"

Kind = Literal["pass", "cut", "freeze", "slow", "swallow", "answer"]
Speaks = Literal["postgres", "http", "redis"]


@dataclass(frozen=True, slots=True)
class Mode:
    """How a listener treats its connections.

    `cut` resets all and refuses new ones; `freeze` keeps them open and forwards nothing; `slow` delays each
    piece by `latency` seconds and lets `bandwidth` bytes a second through; `swallow` lets the server do what
    it was asked, and of a `share` of the writes drops the answer and hangs up; `answer` speaks HTTP itself.
    """

    kind: Kind = "pass"
    latency: float = 0.0
    bandwidth: float = float("inf")
    share: float = 1.0
    status: int = 503
    body: str = ""
    content_type: str = "application/json"
    retry_after: int | None = None


PASS = Mode()


@dataclass(slots=True)
class Listener:
    """One address that leads to one server."""

    name: str
    target: tuple[str, int]
    speaks: Speaks
    rng: random.Random
    mode: Mode = PASS
    links: set[Link] = field(default_factory=set)
    swallowed: int = 0

    def set(self, mode: Mode) -> int:
        """Change the mode; returns how many connections were reset by it."""
        self.mode = mode
        links = list(self.links)
        for link in links:
            link.mode_changed()
        return len(links) if mode.kind == "cut" else 0


class _End(asyncio.Protocol):
    """One end of a link: what arrives here goes to the other."""

    def __init__(self, arrived: Callable[[bytes], None], gone: Callable[[], None]) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None
        self._arrived = arrived
        self._gone = gone
        self._due = 0.0
        self._queued = 0
        self._paused = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        connected: socket.socket = transport.get_extra_info("socket")
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._paused:
            self.transport.pause_reading()  # type: ignore[union-attr]

    def data_received(self, data: bytes) -> None:
        self._arrived(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone()

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.hold()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.let_go()

    def hold(self) -> None:
        """Read nothing more; as often as it is called, `let_go` has to be."""
        self._paused += 1
        if self._paused == 1 and self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def let_go(self) -> None:
        self._paused -= 1
        if self._paused == 0 and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def send(self, data: bytes, mode: Mode) -> None:
        """Write, at once or as slowly as the mode says; pieces never overtake each other."""
        loop = asyncio.get_running_loop()
        if mode.kind != "slow" and self._queued == 0:
            self._write(data)
            return
        slowed = mode if mode.kind == "slow" else PASS
        self._due = max(loop.time() + slowed.latency, self._due) + len(data) / slowed.bandwidth
        self._queued += len(data)
        if self.other is not None and self._queued > HELD_BACK:
            self.other.hold()
            loop.call_at(self._due, self.other.let_go)
        loop.call_at(self._due, self._write_late, data)

    def _write_late(self, data: bytes) -> None:
        self._queued -= len(data)
        self._write(data)

    def _write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def close(self, *, reset: bool) -> None:
        if self.transport is None:
            return
        if reset:
            connected: socket.socket = self.transport.get_extra_info("socket")
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.transport.abort()
        else:
            self.transport.close()


class Link:
    """A client's connection, and ours to the server for it."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.client = _End(self._from_client, self._client_gone)
        self.server = _End(self._from_server, self._server_gone)
        self.client.other, self.server.other = self.server, self.client
        self._connecting: asyncio.Task[None] | None = None
        self._frozen = False
        self._early = b""
        self._request = b""
        self._swallowing = False
        self._status = b""
        self._sent = 0
        self._ended = False

    def begin(self) -> None:
        """A client has connected."""
        self._listener.links.add(self)
        kind = self._listener.mode.kind
        if kind == "cut":
            self.end(reset=True)
        elif kind == "freeze":
            self._freeze()
        elif kind != "answer":
            self._connect()

    def mode_changed(self) -> None:
        kind = self._listener.mode.kind
        if self._frozen and kind != "freeze":
            self._thaw()
        if kind == "cut":
            self.end(reset=True)
        elif kind == "freeze" and not self._frozen:
            self._freeze()

    def end(self, *, reset: bool) -> None:
        if self._ended:
            return
        self._ended = True
        self._listener.links.discard(self)
        if self._connecting is not None:
            self._connecting.cancel()
        self.client.close(reset=reset)
        self.server.close(reset=reset)

    def _freeze(self) -> None:
        self._frozen = True
        self.client.hold()
        self.server.hold()

    def _thaw(self) -> None:
        self._frozen = False
        self.client.let_go()
        self.server.let_go()

    def _connect(self) -> None:
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._reach())

    async def _reach(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self.server, *self._listener.target)
        except OSError:
            self.end(reset=True)
            return
        if self._early:
            self.server.send(self._early, self._listener.mode)
            self._early = b""

    def _from_client(self, data: bytes) -> None:
        mode = self._listener.mode
        if mode.kind == "answer":
            self._answer(data, mode)
            return
        self._connect()
        if mode.kind == "swallow" and self._is_write(data) and self._listener.rng.random() < mode.share:
            self._swallowing = True
        if self.server.transport is None:
            self._early += data
        else:
            self.server.send(data, mode)

    def _from_server(self, data: bytes) -> None:
        if data[-6:-1] == READY:
            self._status = data[-1:]
        if self._swallowing:
            self._listener.swallowed += 1
            self.end(reset=True)
            return
        self._sent += len(data)
        self.client.send(data, self._listener.mode)

    def _is_write(self, data: bytes) -> bool:
        """Whether this is a commit, a statement that commits itself, or a call that applies rows at Supabase."""
        if self._listener.speaks == "http":
            return data.startswith(APPLY)
        if self._listener.speaks != "postgres" or data[:1] != b"Q":
            return False
        text = data[QUERY : QUERY + 40].lower()
        return text.startswith(b"commit") or (self._status == IDLE and text.startswith(WHOLE))

    def _answer(self, data: bytes, mode: Mode) -> None:
        """Take the whole request, say what we were told to say, and hang up."""
        self._request += data
        head, found, body = self._request.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        content = mode.body.encode()
        lines = [f"HTTP/1.1 {mode.status} Injected", f"Content-Type: {mode.content_type}", "Connection: close"]
        if mode.retry_after is not None:
            lines.append(f"Retry-After: {mode.retry_after}")
        lines.append(f"Content-Length: {len(content)}")
        self._listener.swallowed += 1
        if self.client.transport is not None:
            self.client.transport.write("\r\n".join([*lines, "", ""]).encode() + content)
        self.end(reset=False)

    def _client_gone(self) -> None:
        self.end(reset=False)

    def _server_gone(self) -> None:
        self.end(reset=False)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


class Proxy:
    """All listeners, and the commands."""

    def __init__(self, seed: int) -> None:
        self._listeners: dict[str, Listener] = {}
        self._servers: list[asyncio.Server] = []
        self._seed = seed

    async def do(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command; its answer."""
        if command["do"] == "listen":
            return {"port": await self._listen(command)}
        chosen = [one for name, one in self._listeners.items() if fnmatch.fnmatch(name, command["names"])]
        if command["do"] == "mode":
            return {"reset": sum(one.set(Mode(**command["mode"])) for one in chosen)}
        if command["do"] == "reset":
            return {"reset": _reset(chosen, command["most"], self._seed)}
        if command["do"] == "counts":
            return {"links": sum(len(one.links) for one in chosen), "swallowed": sum(one.swallowed for one in chosen)}
        raise ValueError(f"no command {command['do']!r}")

    async def _listen(self, command: dict[str, Any]) -> int:
        name = command["name"]
        rng = random.Random(f"{self._seed}/{name}")
        listener = Listener(name, (command["host"], command["port"]), command["speaks"], rng)

        def accept() -> _End:
            link = Link(listener)
            end = link.client
            made = end.connection_made

            def begin(transport: asyncio.BaseTransport) -> None:
                made(transport)
                link.begin()

            end.connection_made = begin  # type: ignore[method-assign]
            return end

        server = await asyncio.get_running_loop().create_server(accept, command["host"], command["listen"], backlog=512)
        self._listeners[name] = listener
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port


def _reset(listeners: list[Listener], most: int, seed: int) -> int:
    links = [link for listener in listeners for link in listener.links]
    random.Random(seed + len(links)).shuffle(links)
    for link in links[:most]:
        link.end(reset=True)
    return len(links[:most])


async def _serve(seed: int) -> None:
    loop = asyncio.get_running_loop()
    proxy, reader = Proxy(seed), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        try:
            answer = await proxy.do(json.loads(line))
        except (OSError, KeyError, TypeError, ValueError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us ends us
    asyncio.run(_serve(int(sys.argv[1])))
