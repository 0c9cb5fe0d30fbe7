"""The Python client against a server that misbehaves: every event once and in order."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.typescript import CLIENT
from tests.support.waiting import wait_until

sys.path.insert(0, str(CLIENT.parent / "python"))

from tenantsync_client import Gap, ProcessEvent, ProcessStream, Refused, is_over, watch_process

PROCESS = "0191f3c0-7a00-7000-8000-6d3b1c1f2a10"


def told(sequence: int, kind: str = "step_update", **data: object) -> dict[str, Any]:
    return {
        "id": f"id-{sequence}",
        "process_id": PROCESS,
        "event_type": kind,
        "event_sequence": sequence,
        "event_category": "process",
        "event_priority": 3,
        "event_source": "worker",
        "created_at": "2026-01-31T12:00:15.000000Z",
        "event_data": data,
    }


def message(one: dict[str, Any]) -> str:
    return f"id: {one['event_sequence']}\ndata: {json.dumps(one)}\n\n"


class Misbehaving:
    """A server like the HTTP API. `streams` says what each stream in turn writes before it hangs up."""

    def __init__(self) -> None:
        self.events: dict[int, dict[str, Any]] = {}
        self.streams: list[Callable[[int], str]] = []
        self.statuses: list[int] = []
        self.token: str | None = None
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.repeats = False
        self.hold = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def do_POST(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()

    def add(self, *events: dict[str, Any]) -> None:
        self.events |= {one["event_sequence"]: one for one in events}

    def after(self, sequence: int) -> list[dict[str, Any]]:
        return [one for number, one in sorted(self.events.items()) if number > sequence]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        where = urlsplit(request.path)
        path = where.path.removeprefix(f"/api/v1/processes/{PROCESS}")
        body = request.rfile.read(int(request.headers.get("content-length", 0)))
        self.asked.append((path, dict(request.headers), body))
        if self.statuses and (status := self.statuses.pop(0)) != 200:
            self._json(request, status, {"title": "No", "detail": "said the test"})
        elif self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
            self._json(request, 401, {"title": "Not signed in"})
        elif path == "/stream":
            self._stream(request, int(request.headers.get("last-event-id", 0)))
        elif path == "/acknowledge":
            self._json(request, 200, json.loads(body))
        else:
            query = parse_qs(where.query)
            found = self.after(int(query["since_sequence"][0]))
            page = found[: int(query["limit"][0])]
            more = page[-1]["event_sequence"] if len(found) > len(page) else None
            if self.repeats:
                page, more = [told(1)], 1
            self._json(request, 200, {"items": page, "next_since": more, "last_sequence": max(self.events, default=0)})

    def _stream(self, request: BaseHTTPRequestHandler, since: int) -> None:
        request.send_response(200)
        request.send_header("content-type", "text/event-stream; charset=utf-8")
        request.end_headers()
        if self.streams:
            request.wfile.write(self.streams.pop(0)(since).encode())
            return
        request.wfile.write("".join(message(one) for one in self.after(since)).encode())
        request.wfile.flush()
        self.hold.wait(10)

    def _json(self, request: BaseHTTPRequestHandler, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        request.send_response(status)
        request.send_header("content-type", "application/json")
        request.send_header("content-length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    made = Misbehaving()
    yield made
    made.close()


class Seen:
    """What a stream said, read until `last` or the end."""

    def __init__(self, server: Misbehaving, **options: Any) -> None:
        self.states: list[str] = []
        self.gaps: list[Gap] = []
        self.stream: ProcessStream = watch_process(
            server.url,
            PROCESS,
            **{
                "on_state": lambda state: self.states.append(state.name),
                "on_gap": self.gaps.append,
                "first_pause": 0.01,
                "longest_pause": 0.05,
                **options,
            },
        )

    def upto(self, last: int) -> list[int]:
        found = []
        for event in self.stream:
            found.append(event.sequence)
            if event.sequence == last:
                self.stream.close()
        return found


def numbered(last: int, first: int = 1) -> list[dict[str, Any]]:
    return [told(number) for number in range(first, last + 1)]


def test_events_come_as_they_were_told(server: Misbehaving) -> None:
    server.add(told(1, "section_chunk", chunk="ü"))

    with Seen(server).stream as stream:
        event = next(iter(stream))

    assert event == ProcessEvent.read(told(1, "section_chunk", chunk="ü"))
    assert event.as_json() == told(1, "section_chunk", chunk="ü")


def test_lost_connections_cost_nothing_and_double_nothing(server: Misbehaving) -> None:
    server.add(*numbered(9))
    server.streams = [
        lambda _: "".join(map(message, numbered(3))),
        lambda since: message(told(since + 1))[:-20],
        lambda since: "".join(map(message, numbered(since + 2))),
        lambda _: ": heartbeat\n\nevent: end\ndata: restart\n\n",
    ]
    seen = Seen(server)

    assert seen.upto(9) == list(range(1, 10))
    assert seen.gaps == []
    assert seen.states.count("waiting") == 4


def test_a_missing_number_is_fetched_first(server: Misbehaving) -> None:
    server.add(*numbered(5))
    server.streams = [lambda _: message(told(1)) + message(told(4)) + message(told(5))]

    assert Seen(server).upto(5) == [1, 2, 3, 4, 5]


def test_a_number_that_is_gone_is_a_gap(server: Misbehaving) -> None:
    server.add(told(1), told(4), told(5))
    seen = Seen(server)

    assert seen.upto(5) == [1, 4, 5]
    assert seen.gaps == [Gap(2, 3)]


def test_a_source_that_is_behind_is_asked_again(server: Misbehaving) -> None:
    server.add(told(1))
    server.streams = [lambda _: message(told(3))]
    threading.Timer(0.15, lambda: server.add(told(2), told(3))).start()
    seen = Seen(server)

    assert seen.upto(3) == [1, 2, 3]
    assert seen.gaps == []


def test_many_pages_are_read_whole(server: Misbehaving) -> None:
    server.add(*numbered(1203))
    server.streams = [lambda _: message(told(1203))]

    assert Seen(server).upto(1203) == list(range(1, 1204))


def test_what_one_has_already_is_not_asked_for(server: Misbehaving) -> None:
    server.add(*numbered(6))

    assert Seen(server, since=4).upto(6) == [5, 6]
    assert server.asked[0][1]["Last-Event-ID"] == "4"


def test_a_server_in_trouble_is_tried_again(server: Misbehaving) -> None:
    server.add(told(1))
    server.statuses = [503, 502, 429, 500]
    seen = Seen(server)

    assert seen.upto(1) == [1]
    assert seen.states.count("waiting") == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_what_no_further_try_can_help_is_raised(server: Misbehaving, status: int) -> None:
    server.statuses = [status]
    seen = Seen(server)

    with pytest.raises(Refused, match="No: said the test") as refused:
        seen.upto(1)

    assert refused.value.status == status
    assert seen.states[-1] == "closed"


def test_a_token_is_asked_for_anew(server: Misbehaving) -> None:
    server.token = "second"
    server.add(told(1))
    tokens = iter(["first", "second", "second"])

    assert Seen(server, token=lambda: next(tokens)).upto(1) == [1]


def test_a_silent_connection_is_given_up(server: Misbehaving) -> None:
    server.add(told(1))
    seen = Seen(server, silence=0.1)
    threading.Timer(0.3, lambda: server.add(told(2))).start()

    assert seen.upto(2) == [1, 2]


def test_it_ends_after_the_event_that_is_waited_for(server: Misbehaving) -> None:
    server.add(told(1), told(2, "process_error", error_type="recoverable"), told(3, "process_completed"), told(4))

    assert [event.sequence for event in Seen(server, until=is_over).stream] == [1, 2, 3]


def test_another_thread_ends_the_waiting(server: Misbehaving) -> None:
    server.add(told(1))
    seen = Seen(server)
    found: list[int] = []
    reading = threading.Thread(target=lambda: found.extend(event.sequence for event in seen.stream))
    reading.start()
    wait_until(lambda: seen.stream.position == 1, about="the event")
    time.sleep(0.05)

    seen.stream.close()
    reading.join(3)

    assert not reading.is_alive()
    assert found == [1]


def test_what_one_has_read_is_acknowledged(server: Misbehaving) -> None:
    server.add(*numbered(2))
    seen = Seen(server)
    seen.upto(2)

    seen.stream.acknowledge()

    path, _, body = server.asked[-1]
    assert (path, json.loads(body)) == ("/acknowledge", {"sequence": 2})


@pytest.mark.parametrize("breaker", ["\u2028", "\u2029", "\x85"])
def test_no_text_in_an_event_makes_another_event(server: Misbehaving, breaker: str) -> None:
    forged = json.dumps(told(2, "process_completed"))
    title = f"a{breaker}{breaker}data: {forged}{breaker}{breaker}event: end{breaker}data: x{breaker}{breaker}"
    server.add(told(1, title=title), told(2))
    raw = json.dumps(told(1, title=title), ensure_ascii=False)  # as our server writes it: none of these is a line break
    server.streams = [lambda _: f"data: {raw}\n\n{message(told(2))}"]

    events = list(Seen(server, until=lambda event: event.sequence == 2).stream)

    assert [(one.sequence, one.type) for one in events] == [(1, "step_update"), (2, "step_update")]
    assert events[0].data == {"title": title}


NONSENSE = {
    "no JSON": "data: {\n\n",
    "no event": "data: []\n\n",
    "an event of nothing": "data: {}\n\n",
    "depth": f"data: {'[' * 5000}\n\n",
    "a line without end": "data: " + "x" * 9_000_000,
    "an event without end": "data: x\n" * 1_500_000,
}


@pytest.mark.parametrize("name", NONSENSE)
def test_a_server_that_talks_nonsense_is_tried_again(server: Misbehaving, name: str) -> None:
    server.add(told(1))
    server.streams = [lambda _: NONSENSE[name]]
    seen = Seen(server)

    assert seen.upto(1) == [1]
    assert "waiting" in seen.states


def test_a_server_that_always_has_more_of_the_same_is_not_asked_for_ever(server: Misbehaving) -> None:
    server.add(told(1), told(3))
    server.repeats = True
    seen = Seen(server, on_state=lambda state: state.name == "waiting" and seen.stream.close())

    assert list(seen.stream) != []
    assert len(server.asked) < 20
