"""What every request passes first: limits on its body, nothing that no database can hold, and the answer's headers."""

import asyncio
from collections.abc import Iterator
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config.settings import Settings
from tenantsync.web.problems import Problem

LONGEST_BODY = 1_000_000  # bytes
BODY_TIME = 20.0  # seconds for the whole of it
DEEPEST = 64  # levels of JSON
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; manifest-src 'self'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)
TLS_ONLY = (b"strict-transport-security", b"max-age=31536000")
NO_STORE = (b"cache-control", b"no-store")


class Gate:
    """Pure ASGI, so that streams pass through it piece by piece."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        tls = (settings.public_url or "").startswith("https://")
        self._headers = (*HEADERS, TLS_ONLY) if tls else HEADERS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def decorated(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = self._decorated(list(message["headers"]))
            await send(message)

        try:
            _check_address(scope)
            body = await _body(scope, receive)
            _check_json(scope, body)
            _check_form(scope, body)
        except Problem as problem:
            await problem.answer()(scope, receive, decorated)
            return
        except ConnectionError:
            return  # gone before it had said what it wants
        await self._app(scope, _again(body, receive), decorated)

    def _decorated(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        given = {name.lower() for name, _ in headers}
        headers += [header for header in self._headers if header[0] not in given]
        if b"cache-control" not in given:
            headers.append(NO_STORE)
        return headers


def _check_address(scope: Scope) -> None:
    if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
        raise Problem(422, "Invalid request", "The address holds a NUL character.", kind="invalid")


async def _body(scope: Scope, receive: Receive) -> bytes:
    """The whole body. Raises Problem for one that is too long, announced or not, or too slow."""
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if not announced.isdigit() or int(announced) > LONGEST_BODY:
        raise _too_long()
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIME):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ConnectionAbortedError
                part = message.get("body", b"")
                size += len(part)
                if size > LONGEST_BODY:
                    raise _too_long()
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise Problem(408, detail=f"The body did not come within {BODY_TIME:g} s.") from None


def _too_long() -> Problem:
    # what is left of the body is not read: the connection ends with the answer
    return Problem(413, detail=f"A body may have {LONGEST_BODY:,} bytes.", headers={"Connection": "close"})


def _check_json(scope: Scope, body: bytes) -> None:
    """Refuse what Python's parser lets through and neither Postgres nor anybody else takes: NUL characters, lone
    surrogates, NaN, and nesting without end."""
    if not body or b"json" not in _kind(scope):
        return
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _invalid("The body is not JSON in UTF-8, as RFC 8259 has it.") from None
    for one, depth in _within(value):
        if depth > DEEPEST:
            raise _invalid(f"The body is nested more than {DEEPEST} deep.")
        if isinstance(one, str) and "\x00" in one:
            raise _invalid("The body holds a NUL character.")


def _check_form(scope: Scope, body: bytes) -> None:
    kind = _kind(scope)
    if b"form" in kind and (b"\x00" in body or (b"urlencoded" in kind and b"%00" in body)):
        raise _invalid("The form holds a NUL character.")


def _kind(scope: Scope) -> bytes:
    found: bytes = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return found.lower()


def _invalid(detail: str) -> Problem:
    return Problem(422, "Invalid request", detail, kind="invalid")


def _within(value: Any) -> Iterator[tuple[Any, int]]:
    waiting = [(value, 1)]
    while waiting:
        one, depth = waiting.pop()
        yield one, depth
        if depth > DEEPEST:
            continue
        if isinstance(one, dict):
            waiting.extend((part, depth + 1) for pair in one.items() for part in pair)
        elif isinstance(one, list):
            waiting.extend((part, depth + 1) for part in one)


def _again(body: bytes, receive: Receive) -> Receive:
    told = False

    async def once() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once
