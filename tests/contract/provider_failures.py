"""What an adapter makes of servers that fail, each in a way of its own. Each adapter's own file subclasses this."""

from collections.abc import Callable, Mapping

import pytest

from sandbox.servers.ports import free_port
from tenantsync.errors import RateLimited, SyncError, Transient
from tests.contract.provider_parts import CALLS, Call, Door, Held
from tests.support.canned_server import ECHO, CannedServer

HEAD = b"HTTP/1.1 %s\r\nConnection: close\r\n"
ECHOED = b"an echo of {authorization} and of PROVIDERTEXT"
PROVIDER_TEXT = "PROVIDERTEXT"


def said(status: bytes, body: bytes = b"", *headers: bytes, length: int | None = None) -> bytes:
    """An answer. One that holds an echo ends where the connection does; a `length` beyond the body cuts it."""
    sized = (
        [] if length is None and ECHO in body else [b"Content-Length: %d" % (len(body) if length is None else length)]
    )
    return HEAD % status + b"".join(line + b"\r\n" for line in (*headers, *sized)) + b"\r\n" + body


HTML = b"<!DOCTYPE html><html><body>Please log in. " + ECHOED * 3 + b"</body></html>"
NEVER_AN_ANSWER: Mapping[str, bytes] = {
    "html with 200": said(b"200 OK", HTML, b"Content-Type: text/html"),
    "html with 207": said(b"207 Multi-Status", HTML, b"Content-Type: text/html"),
    "empty 200": said(b"200 OK"),
    "empty 207": said(b"207 Multi-Status"),
    "204": HEAD % b"204 No Content" + b"\r\n",
    "plain text with 200": said(b"200 OK", ECHOED),
    "json of another kind": said(b"200 OK", b"[]", b"Content-Type: application/json"),
    "json null": said(b"200 OK", b"null", b"Content-Type: application/json"),
    "empty json object": said(b"200 OK", b"{}", b"Content-Type: application/json"),
    "xml of another kind": said(b"207 Multi-Status", b"<rss><channel/></rss>", b"Content-Type: text/xml"),
    "cut json": said(b"200 OK", b'{"items": [], "nextSyn', b"Content-Type: application/json", length=900),
    "half of a json": said(b"200 OK", b'{"items": [], "nextSyn', b"Content-Type: application/json"),
    "cut xml": said(b"207 Multi-Status", b'<multistatus xmlns="DAV:"><sync-tok', length=900),
    "half of an xml": said(b"207 Multi-Status", b'<multistatus xmlns="DAV:"><sync-tok'),
    "damaged gzip": said(b"200 OK", b"not gzip at all", b"Content-Encoding: gzip"),
    "unknown encoding": said(b"200 OK", b"\x01\x02\x03", b"Content-Encoding: br"),
    "invalid utf-8": said(b"207 Multi-Status", b"\xff\xfe\xfa\xc3(", b"Content-Type: text/xml; charset=utf-8"),
    "redirect in a circle": said(b"302 Found", b"", b"Location: /portal"),
    "redirect without a place": said(b"301 Moved Permanently"),
    "400": said(b"400 Bad Request", ECHOED),
    "402": said(b"402 Payment Required", ECHOED),
    "403": said(b"403 Forbidden", ECHOED),
    "404": said(b"404 Not Found", ECHOED),
    "405": said(b"405 Method Not Allowed", ECHOED),
    "409": said(b"409 Conflict", ECHOED),
    "418": said(b"418 I'm a teapot", ECHOED),
    "451": said(b"451 Unavailable For Legal Reasons", ECHOED),
    "501": said(b"501 Not Implemented", ECHOED),
    "507": said(b"507 Insufficient Storage", ECHOED),
}
FROM_BELOW: Mapping[str, bytes] = {
    "hangs up at once": b"",
    "hangs up within the head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "is not http": b"SSH-2.0-OpenSSH_9.6\r\n",
    "500": said(b"500 Internal Server Error", ECHOED),
    "502 in html": said(b"502 Bad Gateway", HTML),
    "503": said(b"503 Service Unavailable"),
    "504": said(b"504 Gateway Timeout"),
}

At = Callable[[str], Door]


class ProviderFailures:
    """Needs the fixtures `past` (what a listing of the real provider left, its cursor above all), `at` (the same
    calendar, as if its provider lived at an address) and `secret` (what is sent to authorize requests).
    """

    @pytest.mark.parametrize("call", CALLS)
    async def test_a_server_that_cannot_be_reached_is_expected_back(
        self, at: At, past: Held, secret: str, call: Call
    ) -> None:
        with pytest.raises(Transient):
            await call(at(f"http://127.0.0.1:{free_port()}"), past)

    @pytest.mark.parametrize("call", CALLS)
    @pytest.mark.parametrize("answer", NEVER_AN_ANSWER)
    async def test_what_is_no_answer_is_a_failure_with_a_name(
        self, at: At, past: Held, secret: str, call: Call, answer: str
    ) -> None:
        with CannedServer(NEVER_AN_ANSWER[answer]) as server, pytest.raises(SyncError) as caught:
            await call(at(server.url), past)

        assert caught.value.reason
        assert secret not in str(caught.value)
        assert PROVIDER_TEXT not in str(caught.value)

    @pytest.mark.parametrize("call", CALLS)
    @pytest.mark.parametrize("answer", FROM_BELOW)
    async def test_trouble_of_the_server_or_the_network_is_expected_to_pass(
        self, at: At, past: Held, secret: str, call: Call, answer: str
    ) -> None:
        with CannedServer(FROM_BELOW[answer]) as server, pytest.raises(Transient) as caught:
            await call(at(server.url), past)

        assert secret not in str(caught.value)
        assert PROVIDER_TEXT not in str(caught.value)

    @pytest.mark.parametrize("call", CALLS)
    async def test_too_many_requests_means_the_pause_that_was_asked_for(
        self, at: At, past: Held, secret: str, call: Call
    ) -> None:
        answer = said(b"429 Too Many Requests", b"{}", b"Retry-After: 47")

        with CannedServer(answer) as server, pytest.raises(RateLimited) as caught:
            await call(at(server.url), past)

        assert caught.value.retry_after == 47

    @pytest.mark.parametrize("call", CALLS)
    async def test_a_redirect_to_another_place_takes_no_credentials_along(
        self, at: At, past: Held, secret: str, call: Call
    ) -> None:
        with CannedServer(said(b"200 OK", b"{authorization}")) as portal:
            answer = said(b"302 Found", b"", b"Location: " + portal.url.encode())
            with CannedServer(answer) as server, pytest.raises(SyncError):
                await call(at(server.url), past)

        assert portal.authorizations in ([], [b""])
