"""Server-sent events, read as a browser reads them."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

import httpx


@dataclass(frozen=True)
class Message:
    """One message of a stream; comments are none."""

    event: str
    data: str
    id: str


def messages(lines: Iterator[str]) -> Iterator[Message]:
    """What a stream's lines say (HTML, 9.2.6)."""
    event, data, last = "message", [], ""
    for line in lines:
        if not line:
            if data:
                yield Message(event, "\n".join(data), last)
            event, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            last = value


@contextmanager
def listen(
    client: httpx.Client,
    process_id: UUID,
    *,
    since: int | None = None,
    last_event_id: str | None = None,
    follow: bool = True,
) -> Iterator[list[Message]]:
    """A growing list of what a process' stream brings."""
    heard: list[Message] = []
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    query = {"follow": str(follow).lower()} | ({} if since is None else {"since_sequence": str(since)})
    path = f"/api/v1/processes/{process_id}/stream"
    with client.stream("GET", path, params=query, headers=headers) as answer:
        answer.raise_for_status()

        def read() -> None:
            try:
                for message in messages(answer.iter_lines()):
                    heard.append(message)  # noqa: PERF402 — others look at it while it grows
            except httpx.HTTPError:
                pass  # the test closed it

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        yield heard
        if follow:
            _hang_up(answer)
        thread.join(5)


def _hang_up(answer: httpx.Response) -> None:
    """End the reading thread's wait: closing alone would leave it in recv."""
    stream = answer.extensions["network_stream"]
    with suppress(OSError):  # the server may have ended it already
        stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
