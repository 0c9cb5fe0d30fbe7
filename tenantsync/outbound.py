"""The way out: every request to a provider goes through here.

Two doors. `Transport.open()` serves addresses that the operator configured (Google, Microsoft).
`Transport.open_guarded()` serves addresses that a tenant typed: it connects only to addresses of the
public internet, plus what OUTBOUND_ALLOWED_NETWORKS names, and without TLS only to the latter. The
check sits where the socket is made, after the name was resolved for that very connection, so that a name
which resolves to something else the second time gains nothing. Neither door follows redirects.
"""

import asyncio
import ipaddress
import socket
import zlib
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, Self

import aiohttp
from yarl import URL

from tenantsync.errors import Refused, SyncError, Transient

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

CONNECTIONS = 256
CONNECT_TIMEOUT = 10.0  # seconds
READ_TIMEOUT = 20.0  # seconds without a byte
REQUEST_TIMEOUT = 60.0  # seconds in all; a run's own deadline is usually nearer
BODY_LIMIT = 64 * 2**20  # bytes after decompression; a page of 2,500 large events has about 10 MB
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_IPV6_INTERNET = ipaddress.ip_network("2000::/3")
"""All that IANA has given out of IPv6; the rest holds local NAT64, site-local and IPv4-compatible addresses, which
Python's `is_global` lets pass."""


class DestinationRefused(OSError):
    """An address that a tenant's URL may not lead to."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `wire_bytes` counts the body as it travelled, before decompression."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    wire_bytes: int


class Permit(Protocol):
    """Leave to send one request (tenantsync/limits/service.py)."""

    async def spend(self) -> None:
        """Called with the connection in hand, each time that the request is about to be sent."""
        ...

    def end(self) -> None:
        """Called when the request is over, whatever became of it."""
        ...


class Allowance(Protocol):
    """What a run may send."""

    async def permit(self, url: URL) -> Permit:
        """Leave to send one request; waits for it, or raises OverBudget."""
        ...


class Meter:
    """Requests sent and body bytes received, for one calendar's run, and what the run may send; None: anything."""

    __slots__ = ("allowance", "bytes", "calls")

    def __init__(self, allowance: Allowance | None = None) -> None:
        self.allowance = allowance
        self.calls = 0
        self.bytes = 0


def embedded_address(address: Address) -> Address:
    """The IPv4 address that an IPv6 one carries (mapped, 6to4, NAT64), which is where packets end up."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address.sixtofour:
            return address.sixtofour
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def destination_allowed(host: str, *, encrypted: bool, allowed: Sequence[Network]) -> bool:
    """Whether a tenant's URL may lead to this numeric address."""
    address = embedded_address(ipaddress.ip_address(host.partition("%")[0]))
    if any(address in network for network in allowed if network.version == address.version):
        return True
    if isinstance(address, ipaddress.IPv6Address) and address not in _IPV6_INTERNET:
        return False
    return encrypted and address.is_global and not address.is_multicast


_tried: ContextVar[dict[str, bool]] = ContextVar("_tried")
"""Where the present request tried to connect to, and whether it may. The library that races addresses against each
other tells of several failures in one text, from which a refusal cannot be told."""


_permit: ContextVar[Permit | None] = ContextVar("_permit", default=None)
"""Leave to send the present request."""


class _Connector(aiohttp.TCPConnector):
    """Spends the permit when the connection is there: what was waited for it, and that the library sends a request
    again whose connection turned out to be closed, must not be missing in anybody's budget."""

    async def connect(self, req: Any, traces: Any, timeout: Any) -> aiohttp.connector.Connection:  # noqa: ASYNC109
        connection = await super().connect(req, traces, timeout)
        permit = _permit.get()
        if permit is not None:
            try:
                await permit.spend()
            except BaseException:
                connection.release()
                raise
        return connection


def _guard(*, encrypted: bool, allowed: Sequence[Network]) -> Any:
    def make_socket(info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        _tried.get()[address[0]] = may = destination_allowed(address[0], encrypted=encrypted, allowed=allowed)
        if not may:
            raise DestinationRefused(address[0])
        return socket.socket(family, kind, protocol)

    return make_socket


class Transport:
    """Sends requests, reads bounded answers, and turns every failure of the network into a SyncError."""

    def __init__(self, sessions: Mapping[str, aiohttp.ClientSession]) -> None:
        self._sessions = sessions

    @classmethod
    def open(cls) -> Self:
        """For addresses that the operator chose."""
        session = _session(None)
        return cls({"http": session, "https": session})

    @classmethod
    def open_guarded(cls, allowed: Sequence[Network]) -> Self:
        """For addresses that a tenant typed."""
        return cls(
            {scheme: _session(_guard(encrypted=scheme == "https", allowed=allowed)) for scheme in ("http", "https")}
        )

    async def close(self) -> None:
        for session in set(self._sessions.values()):
            await session.close()

    async def request(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str],
        data: bytes | None = None,
        meter: Meter | None = None,
        limit: int = BODY_LIMIT,
        budgeted: bool = True,
    ) -> Answer:
        """Send one request and read its whole answer, at most `limit` bytes of it.

        The meter's allowance is asked first, unless the request is not `budgeted`: then no quota counts it. Raises
        Transient for whatever the network did, Refused for an address that may not be asked, OverBudget for what
        may not be sent now. Redirects come back as they are: whoever follows one decides what goes with it.
        """
        session = self._sessions.get(url.scheme)
        if session is None or not url.host:
            raise Refused("address_malformed", "an address should begin with https:// and name a host")
        if meter is None or meter.allowance is None or not budgeted:
            _permit.set(None)
            return await self._send(session, method, url, headers, data, meter, limit)
        permit = await meter.allowance.permit(url)
        _permit.set(permit)
        try:
            return await self._send(session, method, url, headers, data, meter, limit)
        finally:
            permit.end()

    async def _send(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        data: bytes | None,
        meter: Meter | None,
        limit: int,
    ) -> Answer:
        if meter is not None:
            meter.calls += 1
        tried: dict[str, bool] = {}
        _tried.set(tried)
        try:
            async with session.request(method, url, headers=headers, data=data, allow_redirects=False) as response:
                wire = await _read(response, limit)
                body = wire if response.headers.get("Content-Encoding", "") != "gzip" else _gunzip(wire, limit)
                if meter is not None:
                    meter.bytes += len(wire)
                return Answer(response.status, response.headers, body, len(wire))
        except SyncError:
            raise
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            if tried and not any(tried.values()):
                raise _refusal(", ".join(tried)) from None
            raise explain(error) from None


def _refusal(places: str) -> Refused:
    return Refused(
        "destination_refused",
        f"{places} is not a place that a tenant's address may lead to; an operator can allow its network in "
        "OUTBOUND_ALLOWED_NETWORKS",
    )


def _session(socket_factory: Any) -> aiohttp.ClientSession:
    connector = _Connector(limit=CONNECTIONS, socket_factory=socket_factory, ttl_dns_cache=10, keepalive_timeout=30)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        headers={"Accept-Encoding": "gzip", "User-Agent": "Tenantsync (gzip)"},
    )


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    length = response.content_length
    if length is not None and length <= limit:
        return await response.read()
    if length is not None:
        raise Transient("body_too_large", f"the server announced {length} bytes")
    parts: list[bytes] = []
    total = 0
    async for part in response.content.iter_chunked(2**16):
        total += len(part)
        if total > limit:
            raise Transient("body_too_large", f"the answer did not end within {limit} bytes")
        parts.append(part)
    return b"".join(parts)


def _gunzip(wire: bytes, limit: int) -> bytes:
    inflater = zlib.decompressobj(31)
    try:
        body = inflater.decompress(wire, limit)
    except zlib.error:
        raise Transient("body_cut", "the compressed answer is damaged") from None
    if inflater.unconsumed_tail:
        raise Transient("body_too_large", f"the answer unpacks to more than {limit} bytes")
    if not inflater.eof:
        raise Transient("body_cut", "the compressed answer ends early")
    return body


def explain(error: BaseException) -> SyncError:
    """The SyncError for a failure below HTTP. Texts of the libraries stay out: they may quote addresses."""
    match error:
        case aiohttp.InvalidURL():
            return Refused("address_malformed", "an address should begin with https:// and name a host")
        case asyncio.TimeoutError():
            return Transient("timeout", "the server did not answer in time")
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return Transient("certificate", "the server's certificate is not valid for its name")
        case aiohttp.ClientConnectorError():
            return Transient("connect_failed", "the server could not be reached")
        case aiohttp.ClientPayloadError():
            return Transient("body_cut", "the connection ended before the answer did")
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | ConnectionError():
            return Transient("connection_lost", "the server closed the connection")
        case _:
            return Transient("not_http", f"the answer is not HTTP ({type(error).__name__})")
