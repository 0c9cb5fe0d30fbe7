"""The HTTP API: server-sent events, and what was missed by asking for it."""

import json
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote

import httpx

from tenantsync_client import sending
from tenantsync_client.sending import Token
from tenantsync_client.values import Opened, ProcessEvent, Ring, Unavailable

PAGE = 500
SILENCE = 45.0
"""Seconds without a word, after which a connection counts as lost: three heartbeats of the server."""
LARGEST = 4 * 2**20
"""Bytes of one message; the server's have 256 kB."""
_BREAK = re.compile(rb"\r\n|\n|\r(?!\Z)")


class HttpFeed:
    """One process at one server."""

    def __init__(
        self,
        base_url: str,
        process_id: str,
        *,
        token: Token = None,
        headers: Mapping[str, str] | None = None,
        silence: float = SILENCE,
    ) -> None:
        self._root = f"{base_url.rstrip('/')}/api/v1/processes/{quote(str(process_id), safe='')}"
        self._token = token
        self._headers = dict(headers or {})
        self._silence = silence
        self._http = httpx.Client(timeout=httpx.Timeout(10, read=30), follow_redirects=False)
        self._stream: httpx.Response | None = None

    def after(self, sequence: int) -> tuple[list[ProcessEvent], bool]:
        """Events after a number, and whether there are more."""
        answer = self._ask("GET", "/events", params={"since_sequence": sequence, "limit": PAGE})
        page = sending.json_of(answer)
        if not isinstance(page, dict) or not isinstance(page.get("items"), list):
            raise Unavailable("the server answered with something else than events")
        return [ProcessEvent.read(one) for one in page["items"]], page.get("next_since") is not None

    def acknowledge(self, sequence: int) -> None:
        """Say up to where one has read."""
        self._ask("POST", "/acknowledge", json={"sequence": sequence})

    def listen(self, sequence: int) -> Iterator[ProcessEvent | Opened | Ring]:
        """Everything after a number, as it comes."""
        headers = self._authorized() | {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if sequence:
            headers["Last-Event-ID"] = str(sequence)
        timeout = httpx.Timeout(10, read=self._silence)
        try:
            with self._http.stream("GET", self._root + "/stream", headers=headers, timeout=timeout) as answer:
                self._stream = answer
                sending.checked(answer, renewable=callable(self._token))
                kind = answer.headers.get("content-type", "")
                if not kind.startswith("text/event-stream"):
                    raise Unavailable(f"the server answered with {kind or 'nothing'} instead of a stream")
                yield Opened()
                yield from _events(_lines(answer.iter_bytes()))
        except httpx.HTTPError as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from None
        finally:
            self._stream = None
        raise Unavailable("the connection ended")

    def hang_up(self) -> None:
        """End `listen`, from any thread."""
        if (answer := self._stream) is not None:
            sending.hang_up(answer)

    def _ask(self, method: str, path: str, **options: object) -> httpx.Response:
        try:
            answer = self._http.request(method, self._root + path, headers=self._authorized(), **options)  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from None
        return sending.checked(answer, renewable=callable(self._token))

    def _authorized(self) -> dict[str, str]:
        token = sending.token_of(self._token)
        return self._headers | ({"Authorization": f"Bearer {token}"} if token else {})


def _lines(pieces: Iterator[bytes]) -> Iterator[str]:
    """Lines end at CR, LF or both, and nowhere else: what else Python takes for an end may stand in an event's text."""
    rest = b""
    for piece in pieces:
        *lines, rest = _BREAK.split(rest + piece)
        if len(rest) > LARGEST:
            raise Unavailable(f"the server sent a line of more than {LARGEST} bytes")
        for line in lines:
            yield line.decode("utf-8", "replace")


def _events(lines: Iterator[str]) -> Iterator[ProcessEvent]:
    """What a stream's lines say (HTML, 9.2.6). Raises Unavailable where the server ends it, or talks nonsense."""
    event, size = "", 0
    data: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data and event in ("", "message"):
                yield _read("\n".join(data))
            elif data and event == "end":
                raise Unavailable(f"the server ended the stream ({' '.join(data)})")
            event, data, size = "", [], 0
        elif name == "event":
            event = value
        elif name == "data":
            data.append(value)
            size += len(value) + 1
            if size > LARGEST:
                raise Unavailable(f"the server sent a message of more than {LARGEST} bytes")


def _read(data: str) -> ProcessEvent:
    try:
        return ProcessEvent.read(json.loads(data))
    except (ValueError, RecursionError):
        raise Unavailable("the server sent an event that is no JSON") from None
