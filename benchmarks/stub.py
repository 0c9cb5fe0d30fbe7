"""A provider that costs next to nothing: answers encoded beforehand, sent a fixed time after the question.

    python -m benchmarks.stub --port PORT --latency 0.05 --listings 10000,100000 --ready-file FILE

It speaks enough HTTP/1.1 for clients that send whole requests and wait for the answer. One timer serves
all answers that wait: they leave in the order in which they were asked for.
"""

import argparse
import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import orjson

from benchmarks import bodies

END_OF_HEAD = b"\r\n\r\n"
Encoded = tuple[bytes, bytes]
"""An answer as it stands on the wire: plain, and gzipped."""


def on_the_wire(body: bytes, *, zipped: bool) -> bytes:
    encoding = "Content-Encoding: gzip\r\n" if zipped else ""
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=UTF-8\r\nVary: Origin, X-Origin, Referer\r\n"
        "Cache-Control: private, max-age=0, must-revalidate\r\nServer: ESF\r\n"
        f"{encoding}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def both(body: bytes) -> Encoded:
    return on_the_wire(body, zipped=False), on_the_wire(bodies.zipped(body), zipped=True)


class Answers:
    """Every answer there is, and how often each was given."""

    def __init__(self, listings: tuple[int, ...]) -> None:
        self.quiet = both(bodies.quiet_answer())
        self.token = both(bodies.token_answer())
        self.listings = {count: [on_the_wire(page, zipped=True) for page in bodies.pages(count)] for count in listings}
        self.given = 0

    def answer(self, request: bytes) -> bytes:
        """What to send, by the request line."""
        line = request[: request.index(b"\r\n")]
        accepts = b"gzip" in request
        self.given += 1
        if b"syncToken=" in line:
            return self.quiet[accepts]
        if line.startswith(b"POST"):
            return self.token[accepts]
        return self._page(line.decode())

    def _page(self, line: str) -> bytes:
        url = urlsplit(line.split(" ")[1])
        count = int(url.path.split("/calendars/")[1].split("%40")[0].split("@")[0].removeprefix("large-"))
        number = int(parse_qs(url.query).get("pageToken", ["0"])[0])
        return self.listings[count][number]


class Later:
    """Sends answers when their time has come, with one timer for all of them."""

    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, asyncio.Transport, bytes]] = deque()

    def send(self, transport: asyncio.Transport, answer: bytes) -> None:
        if not self._waiting:
            self._loop.call_later(self._latency, self._flush)
        self._waiting.append((self._loop.time() + self._latency, transport, answer))

    def _flush(self) -> None:
        now = self._loop.time()
        while self._waiting and self._waiting[0][0] <= now:
            _, transport, answer = self._waiting.popleft()
            if not transport.is_closing():
                transport.write(answer)
        if self._waiting:
            self._loop.call_at(self._waiting[0][0], self._flush)


class Connection(asyncio.Protocol):
    """A client's connection."""

    def __init__(self, answers: Answers, later: Later) -> None:
        self._answers = answers
        self._later = later
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 — narrows the type
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._held + data
        end = data.find(END_OF_HEAD)
        if end < 0 or len(data) < end + 4 + _length(data[:end]):
            self._held = data
            return
        self._held = b""
        if data.startswith(b"GET /given"):
            self._transport.write(on_the_wire(orjson.dumps(self._answers.given), zipped=False))
        else:
            self._later.send(self._transport, self._answers.answer(data))


def _length(head: bytes) -> int:
    if head.startswith(b"GET"):
        return 0
    found = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return int(found[0].split(b":")[1]) if found else 0


async def serve(port: int, latency: float, answers: Answers, ready: Callable[[], object]) -> None:
    later = Later(latency)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(answers, later), "127.0.0.1", port, backlog=1024
    )
    ready()
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency", type=float, required=True)
    parser.add_argument("--listings", default="")
    parser.add_argument("--ready-file", type=Path, required=True)
    given = parser.parse_args()
    listings = tuple(int(part) for part in given.listings.split(",") if part)
    answers = Answers(listings)
    asyncio.run(serve(given.port, given.latency, answers, lambda: given.ready_file.write_text(str(given.port))))


if __name__ == "__main__":
    main()
