"""The last step: bytes on the socket, whole or spoiled as the fault says."""

import asyncio
import contextlib
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from aiohttp import web

from sandbox.google.api import JSON_TYPE, Reply
from sandbox.google.errors import ApiError, html_page
from sandbox.google.oauth import scripted
from sandbox.google.quota import retry_after
from sandbox.google.specs import Fault

_HTML = "text/html; charset=UTF-8"
_CHUNK = 64 * 1024
_DRIPS = 20
_HUGE_HEAD = b'{"kind":"calendar#events","items":[],"nextSyncToken":"huge","description":"'
_ENDLESS_HEAD = b'{"kind":"calendar#events","items":['
_ENDLESS_ITEM = b'{"kind":"calendar#event","id":"endless","status":"confirmed"},'


@dataclass(slots=True)
class Sent:
    status: int | None = None
    bytes: int = 0


def scripted_reply(fault: Fault, endpoint: str, now_ms: int) -> Reply | None:
    """The reply of a fault that stands in for the API's own, if this one does."""
    match fault.kind:
        case "always_410":
            return Reply(410, ApiError(410, "fullSyncRequired").envelope())
        case "status":
            return _status_reply(fault, endpoint, now_ms)
        case "html_200":
            return Reply(200, html_page(200, "Sign in to the network"), _HTML)
        case "not_json":
            return Reply(200, b")]}'\nthis is not JSON", JSON_TYPE)
        case "redirect":
            return Reply(302, html_page(302, "Moved"), _HTML, {"Location": fault.url})
        case _:
            return None


def _status_reply(fault: Fault, endpoint: str, now_ms: int) -> Reply:
    headers = {}
    if fault.retry_after is not None:
        by_date = fault.retry_after_form == "date"
        headers["Retry-After"] = retry_after(fault.retry_after, now_ms, as_date=by_date)
    if fault.html:
        return Reply(fault.status, html_page(fault.status, "That’s an error."), _HTML, headers)
    if endpoint == "token":
        reply = scripted(fault)
        reply.headers |= headers
        return reply
    return Reply(fault.status, ApiError(fault.status, fault.reason, fault.message).envelope(), headers=headers)


async def send(
    request: web.Request, reply: Reply, fault: Fault | None, sent: Sent, *, gzip: bool
) -> web.StreamResponse:
    kind = fault.kind if fault is not None else None
    accepts = gzip and "gzip" in request.headers.get("Accept-Encoding", "")
    if fault is not None and kind in {"endless_body", "huge_body"}:
        return await _stream(request, fault, sent, gzip=accepts and kind == "huge_body")
    body = reply.body
    if kind == "truncated_json":
        body = body[: len(body) * 2 // 3]
    headers = {"Content-Type": reply.content_type, **reply.headers}
    if accepts and body:
        body = await _zipped(body)
        headers |= {"Content-Encoding": "gzip", "Vary": "Origin, X-Origin, Accept-Encoding"}
    if kind == "cut_gzip":
        body = body[: len(body) * 2 // 3]
    sent.status = reply.status
    if fault is not None and kind in {"reset", "drip"}:
        return await _slowly(request, reply.status, headers, body, fault, sent)
    sent.bytes = len(body)
    if reply.status in {204, 304}:
        del headers["Content-Type"]
    return web.Response(status=reply.status, body=body, headers=headers)


async def _slowly(
    request: web.Request, status: int, headers: dict[str, str], body: bytes, fault: Fault, sent: Sent
) -> web.StreamResponse:
    """A body that comes in drips, or breaks off in its middle with a connection reset."""
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = len(body)
    await response.prepare(request)
    if fault.kind == "reset":
        await response.write(body[: len(body) // 2])
        sent.bytes = len(body) // 2
        _reset(request)
        return response
    step = -(-len(body) // _DRIPS) or 1
    for start in range(0, len(body), step):
        await asyncio.sleep(fault.seconds / _DRIPS)
        await response.write(body[start : start + step])
        sent.bytes += len(body[start : start + step])
    return response


def _reset(request: web.Request) -> None:
    """A zero linger makes the kernel answer with RST instead of an orderly end."""
    transport = request.transport
    if transport is None:
        return
    with contextlib.suppress(OSError):
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def _stream(request: web.Request, fault: Fault, sent: Sent, *, gzip: bool) -> web.StreamResponse:
    headers = {"Content-Type": JSON_TYPE} | ({"Content-Encoding": "gzip"} if gzip else {})
    response = web.StreamResponse(headers=headers)
    response.enable_chunked_encoding()
    sent.status = 200
    await response.prepare(request)
    pieces = _endless() if fault.kind == "endless_body" else _huge(fault.size)
    packer = zlib.compressobj(6, zlib.DEFLATED, 31) if gzip else None
    async for piece in _paced(pieces):
        data = packer.compress(piece) if packer else piece
        if data:
            await response.write(data)
            sent.bytes += len(data)
    if packer:
        await response.write(packer.flush())
    return response


def _endless() -> Iterator[bytes]:
    yield _ENDLESS_HEAD
    while True:
        yield _ENDLESS_ITEM * (_CHUNK // len(_ENDLESS_ITEM))


def _huge(size: int) -> Iterator[bytes]:
    yield _HUGE_HEAD
    for start in range(0, size, _CHUNK):
        yield b"x" * min(_CHUNK, size - start)
    yield b'"}'


async def _paced(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Lets the other connections have their turn between two pieces."""
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


async def _zipped(body: bytes) -> bytes:
    """A large body is packed beside the loop; zlib lets go of the interpreter meanwhile."""
    if len(body) < 4 * _CHUNK:
        return _pack(body)
    return await asyncio.to_thread(_pack, body)


def _pack(body: bytes) -> bytes:
    return zlib.compress(body, 1, 31)
