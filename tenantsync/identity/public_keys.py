"""The public keys of the Supabase project: fetched from the one address that the operator gave, kept, and looked for
again when a token names a key that is not among them."""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt
import orjson
import structlog

from tenantsync import clock

FRESH_FOR = 600.0  # seconds
NOT_AGAIN_FOR = 10.0  # seconds between two fetches, whatever tokens name and whatever failed
TIMEOUT = 3.0  # seconds for the whole answer
LARGEST = 256 * 1024  # bytes
MOST_KEYS = 50
ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})

log = structlog.get_logger(__name__)


@dataclass
class PublicKeys:
    """Keys by id. While the address does not answer, the keys that are known stay good."""

    url: str
    pace: float = NOT_AGAIN_FOR
    timeout: float = TIMEOUT
    _keys: Mapping[str, jwt.PyJWK] = field(default_factory=dict)
    _fetched_at: float = float("-inf")
    _tried_at: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, kid: str) -> jwt.PyJWK | None:
        """The key of this id, if the project has one. Waits for the network once, if need be."""
        found = self._keys.get(kid)
        if found is not None and clock.monotonic() - self._fetched_at < FRESH_FOR:
            return found
        # whoever holds a key that was good a moment ago does not wait for somebody else's fetch, everybody else does
        if self._lock.acquire(timeout=0 if found is not None else self.timeout):
            try:
                if self._keys.get(kid) is found and clock.monotonic() - self._tried_at >= self.pace:
                    self._fetch()
            finally:
                self._lock.release()
        return self._keys.get(kid)

    def _fetch(self) -> None:
        self._tried_at = clock.monotonic()
        try:
            self._keys = _usable(self._answer())
        except (httpx.HTTPError, ValueError, TypeError, AttributeError) as error:
            log.warning("public_keys_unavailable", error=type(error).__name__)
            return
        self._fetched_at = clock.monotonic()

    def _answer(self) -> object:
        """Redirects are not followed: the address is the operator's word, a redirect would be somebody else's."""
        body = b""
        with (
            httpx.Client(timeout=self.timeout, follow_redirects=False, trust_env=False) as client,
            _cut_off(self.timeout) as trace,
            client.stream(
                "GET", self.url, headers={"Accept": "application/json"}, extensions={"trace": trace}
            ) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise ValueError(f"status {answer.status_code}")
            for part in answer.iter_bytes():
                body += part
                if len(body) > LARGEST:
                    raise ValueError("too large")
        return orjson.loads(body)


@contextmanager
def _cut_off(seconds: float) -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    """Hang up after so many seconds. The client's own limits are for each read: a header that comes byte by byte
    passes them all day, and everybody whose key is not known waits for it."""
    wires: list[socket.socket] = []

    def trace(event: str, info: Mapping[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            wires.append(info["return_value"].get_extra_info("socket"))

    def hang_up() -> None:
        for wire in wires:
            with suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield trace
    finally:
        timer.cancel()


def _usable(document: object) -> dict[str, jwt.PyJWK]:
    """The keys for signatures that we take. Shared secrets and keys for other uses are left out."""
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise TypeError("not a set of keys")
    found: dict[str, jwt.PyJWK] = {}
    for one in listed[:MOST_KEYS]:
        if not isinstance(one, dict) or not isinstance(one.get("kid"), str) or one.get("use", "sig") != "sig":
            continue
        if one.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        try:
            key = jwt.PyJWK.from_dict(one)
        except jwt.PyJWTError:
            continue
        if key.algorithm_name in ALGORITHMS:
            found[one["kid"]] = key
    return found
