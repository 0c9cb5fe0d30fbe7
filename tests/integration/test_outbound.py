"""The way out: where a tenant's address may lead, and how much of an answer is listened to.

Wherever an address is refused, a listening server proves that nothing reached it.
"""

import gzip
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator
from itertools import repeat
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from sandbox.google.control import GoogleControl
from tenantsync.calendars import connecting
from tenantsync.errors import Refused, SyncError, Transient
from tenantsync.outbound import Meter, Network, Transport, destination_allowed
from tests.support.fleet import Fleet
from tests.support.raw_server import RawServer, Script, answer, self_signed
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
ONE_HOST = (ipaddress.ip_network("127.0.0.1/32"),)
LIMIT = 64 * 1024
SECRET = "Basic c2VjcmV0OnNlY3JldA=="
NAME = "calendar.example.test"

PRIVATE = [
    "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",  # noqa: S104
    "169.254.169.254", "169.254.0.1", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:169.254.169.254", "::ffff:10.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::1",
    "::127.0.0.1", "::169.254.169.254", "fec0::1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "142.250.185.78", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
SPELLINGS = [
    "127.0.0.1", "2130706433", "0x7f000001", "0x7f.0x0.0x0.0x1", "0177.0.0.1", "017700000001", "127.1", "127.0.1",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "localhost", "LOCALHOST", "localhost.", "0.0.0.0", "0",  # noqa: S104
]  # fmt: skip


class ScriptedResolver(AbstractResolver):
    """A name server in the tests' hands: every question gets the next answer."""

    def __init__(self, *answers: tuple[str, ...]) -> None:
        self._answers = iter(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in next(self._answers)
        ]

    async def close(self) -> None:
        """Nothing is held."""


class Doors:
    """Transports that are closed when the test ends."""

    def __init__(self) -> None:
        self._opened: list[Transport] = []

    def guarded(self, allowed: tuple[Network, ...], resolver: AbstractResolver | None = None) -> Transport:
        """The tenants' door; a resolver of the test's own replaces the system's in it."""
        transport = Transport.open_guarded(allowed)
        self._opened.append(transport)
        for session in transport._sessions.values() if resolver is not None else ():
            session.connector._resolver = resolver  # type: ignore[union-attr]
        return transport

    def trusted(self) -> Transport:
        self._opened.append(Transport.open())
        return self._opened[-1]

    async def close(self) -> None:
        for transport in self._opened:
            await transport.close()


@pytest_asyncio.fixture
async def doors() -> AsyncIterator[Doors]:
    opened = Doors()
    yield opened
    await opened.close()


@pytest.fixture
def server() -> Iterator[RawServer]:
    """Answers politely, on every address of this machine."""
    with RawServer(answer(b"reached"), host="") as listening:
        yield listening


class TestAddresses:
    @pytest.mark.parametrize("address", PRIVATE)
    @pytest.mark.parametrize("encrypted", [True, False])
    def test_an_address_off_the_public_internet_is_refused(self, address: str, encrypted: bool) -> None:
        assert not destination_allowed(address, encrypted=encrypted, allowed=())

    @pytest.mark.parametrize("address", PUBLIC)
    def test_a_public_address_is_allowed_with_tls_alone(self, address: str) -> None:
        assert destination_allowed(address, encrypted=True, allowed=())
        assert not destination_allowed(address, encrypted=False, allowed=())

    @pytest.mark.parametrize(
        ("address", "network"),
        [("10.1.2.3", "10.0.0.0/8"), ("fd00::7", "fd00::/8"), ("::ffff:10.1.2.3", "10.0.0.0/8")],
    )
    def test_a_network_that_the_operator_names_is_allowed_and_no_other(self, address: str, network: str) -> None:
        allowed = (ipaddress.ip_network(network),)

        assert destination_allowed(address, encrypted=False, allowed=allowed)
        assert not destination_allowed("169.254.169.254", encrypted=True, allowed=allowed)


class TestTheGuardedDoor:
    @pytest.mark.parametrize("host", SPELLINGS)
    async def test_no_spelling_of_a_private_address_is_connected_to(
        self, doors: Doors, server: RawServer, host: str
    ) -> None:
        url = URL(f"http://{host}:{server.port}/", encoded=True)

        with pytest.raises(SyncError):
            await doors.guarded(()).request("GET", url, headers={"Authorization": SECRET})

        assert server.connections == 0

    @pytest.mark.parametrize("scheme", ["http", "https"])
    @pytest.mark.parametrize(
        "place", ["127.0.0.1", "169.254.169.254", "[::1]", "[::ffff:169.254.169.254]", "example.test@127.0.0.1"]
    )
    async def test_a_refusal_says_so_and_names_the_setting(
        self, doors: Doors, server: RawServer, scheme: str, place: str
    ) -> None:
        url = URL(f"{scheme}://{place}:{server.port}/")

        with pytest.raises(Refused) as refusal:
            await doors.guarded(()).request("GET", url, headers={})

        assert refusal.value.reason == "destination_refused"
        assert "OUTBOUND_ALLOWED_NETWORKS" in refusal.value.detail
        assert server.connections == 0

    @pytest.mark.parametrize("addresses", [("127.0.0.1",), ("::1",), ("::1", "127.0.0.1"), ("169.254.169.254",)])
    async def test_a_name_is_judged_by_where_it_leads(
        self, doors: Doors, server: RawServer, addresses: tuple[str, ...]
    ) -> None:
        door = doors.guarded((), ScriptedResolver(addresses))

        with pytest.raises(Refused, match="destination_refused"):
            await door.request("GET", URL(f"http://{NAME}:{server.port}/"), headers={})

        assert server.connections == 0

    async def test_a_name_that_leads_elsewhere_the_second_time_gains_nothing(
        self, doors: Doors, server: RawServer
    ) -> None:
        resolver = ScriptedResolver(("127.0.0.1",), ("127.0.0.2",))
        door, url = doors.guarded(ONE_HOST, resolver), URL(f"http://{NAME}:{server.port}/")
        first = await door.request("GET", url, headers={})
        door._sessions["http"].connector.clear_dns_cache()  # type: ignore[union-attr]

        with pytest.raises(Refused, match="destination_refused"):
            await door.request("GET", url, headers={})

        assert first.body == b"reached"
        assert (resolver.asked, server.connections) == (2, 1)

    async def test_of_several_addresses_only_an_allowed_one_is_connected_to(
        self, doors: Doors, server: RawServer
    ) -> None:
        door = doors.guarded(ONE_HOST, ScriptedResolver(("127.0.0.2", "169.254.169.254", "127.0.0.1")))

        reached = await door.request("GET", URL(f"http://{NAME}:{server.port}/"), headers={})

        assert reached.body == b"reached"
        assert server.connections == 1

    @pytest.mark.parametrize("scheme", ["file", "ftp", "gopher", "unix", ""])
    async def test_only_http_is_spoken(self, doors: Doors, scheme: str) -> None:
        with pytest.raises(Refused):
            await doors.guarded(LOOPBACK).request("GET", URL(f"{scheme}://host/etc/passwd"), headers={})

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_no_redirect_is_followed_by_either_door(self, doors: Doors, server: RawServer, status: int) -> None:
        redirect = answer(b"", f"Location: {server.base_url}/elsewhere", status=f"{status} Moved")

        with RawServer(redirect) as portal:
            for door in (doors.guarded(LOOPBACK), doors.trusted()):
                got = await door.request("GET", URL(portal.base_url), headers={"Authorization": SECRET})
                assert got.status == status

        assert server.connections == 0

    async def test_an_environment_proxy_is_not_used(
        self, doors: Doors, server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", server.base_url)

        with RawServer(answer(b"direct")) as wanted:
            got = await doors.guarded(LOOPBACK).request("GET", URL(wanted.base_url), headers={})

        assert got.body == b"direct"
        assert server.connections == 0


class TestAccounts:
    """The same through the front: what happens when a tenant types such an address."""

    @pytest.mark.parametrize(
        "address",
        [
            "http://169.254.169.254/latest/meta-data/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://[fd00:ec2::254]/",
            "http://0x7f000002:{port}/",
            "http://2130706434:{port}/",
            "http://127.0.0.1@127.0.0.2:{port}/",
            "http://127.0.0.1:80@127.0.0.2:{port}/",
            "http://127.0.0.1#@127.0.0.2:{port}/",
            "http://127.0.0.1%2523@127.0.0.2:{port}/",
            "http:\\\\127.0.0.1@127.0.0.2:{port}/",
            "http://127.0.0.2:{port}\\@127.0.0.1/",
            "file:///etc/passwd",
            "//127.0.0.2:{port}/",
            "http://",
            "http://127.0.0.2:{port}:80/",
            "http://127.0.0.2:99999/",
            "http://exa mple:{port}/",
            "\r\nhttp://127.0.0.2:{port}/",
        ],
    )
    def test_an_account_at_a_forbidden_address_is_refused_and_nothing_is_stored(
        self, make_fleet: type[Fleet], server: RawServer, address: str
    ) -> None:
        fleet = make_fleet(outbound_allowed_networks="127.0.0.1/32")
        acme = fleet.tenant()

        with pytest.raises(SyncError):
            connecting.connect(
                fleet.database,
                fleet.settings,
                tenant_id=acme.tenant_id,
                workspace_id=acme.workspace_id,
                provider="caldav",
                address=address.format(port=server.port),
                credentials='{"username": "ann", "password": "secret"}',
            )

        assert server.connections == 0
        assert fleet.rows("select 1 from sync.accounts") == []

    @pytest.mark.parametrize(
        "target", ["http://127.0.0.2:{port}/", "http://169.254.169.254/", "//127.0.0.2:{port}/dav"]
    )
    def test_a_server_that_redirects_to_a_forbidden_address_is_not_followed(
        self, make_fleet: type[Fleet], server: RawServer, target: str
    ) -> None:
        fleet = make_fleet(outbound_allowed_networks="127.0.0.1/32")
        acme = fleet.tenant()
        redirect = answer(b"", f"Location: {target.format(port=server.port)}", status="302 Found")

        with RawServer(redirect) as portal, pytest.raises(SyncError):
            connecting.connect(
                fleet.database,
                fleet.settings,
                tenant_id=acme.tenant_id,
                workspace_id=acme.workspace_id,
                provider="caldav",
                address=portal.base_url,
                credentials='{"username": "ann", "password": "secret"}',
            )

        assert portal.connections > 0
        assert server.connections == 0

    def test_a_password_does_not_follow_a_redirect_to_another_origin(self, fleet: Fleet, server: RawServer) -> None:
        acme = fleet.tenant()
        redirect = answer(b"", f"Location: {server.base_url}/dav/", status="307 Temporary Redirect")

        with RawServer(redirect) as portal, pytest.raises(SyncError):
            connecting.connect(
                fleet.database,
                fleet.settings,
                tenant_id=acme.tenant_id,
                workspace_id=acme.workspace_id,
                provider="caldav",
                address=portal.base_url,
                credentials='{"username": "ann", "password": "secret"}',
            )

        assert server.connections == 0

    def test_an_operators_own_addresses_are_not_guarded(self, make_fleet: type[Fleet], google: GoogleControl) -> None:
        fleet = make_fleet(outbound_allowed_networks="")
        acme = fleet.tenant()
        fleet.google(acme, google)

        fleet.run()

        assert fleet.calendar(acme)["state"] == "synced"


BOMB = gzip.compress(b"x" * 50 * LIMIT)
NESTED_LENGTH = 10**13


def endless_body() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    yield from repeat(b"x" * 65536)


def endless_header() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nX: "
    yield from repeat(b"x" * 65536)


def endless_headers() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    yield from repeat(b"X-Again: and again\r\n" * 1000)


class TestAnswers:
    @pytest.mark.parametrize(
        ("script", "reason"),
        [
            pytest.param(answer(b"x" * (LIMIT + 1)), "body_too_large", id="larger than the limit"),
            pytest.param(answer(b"x", length=NESTED_LENGTH), "body_too_large", id="announces terabytes"),
            pytest.param(endless_body, "body_too_large", id="endless"),
            pytest.param(answer(BOMB, "Content-Encoding: gzip"), "body_too_large", id="gzip bomb"),
            pytest.param(answer(BOMB[:-20], "Content-Encoding: gzip"), "body_too_large", id="cut gzip bomb"),
            pytest.param(answer(b"half", length=1000), "body_cut", id="ends early"),
            pytest.param(
                answer(gzip.compress(b"x" * 500)[:-9], "Content-Encoding: gzip"), "body_cut", id="gzip ends early"
            ),
            pytest.param(answer(b"not packed at all", "Content-Encoding: gzip"), "body_cut", id="gzip is none"),
            pytest.param(answer(b"", "Content-Encoding: gzip"), "body_cut", id="gzip of nothing"),
            pytest.param(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "body_cut", id="chunk ends early"
            ),
            pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "not_http", id="bad chunk"),
            pytest.param(b"SSH-2.0-OpenSSH_9.9\r\n", "not_http", id="another protocol"),
            pytest.param(b"\x16\x03\x01\x02\x00", "not_http", id="TLS where plain text was expected"),
            pytest.param(endless_header, "not_http", id="a header without end"),
            pytest.param(endless_headers, "not_http", id="headers without end"),
            pytest.param(b"", "connection_lost", id="nothing at all"),
            pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", "connection_lost", id="head ends early"),
        ],
    )
    async def test_g63_an_answer_that_is_none_is_a_named_failure_that_passes(
        self, doors: Doors, script: Script | bytes, reason: str
    ) -> None:
        with RawServer(script) as odd, pytest.raises(Transient) as failure:
            await doors.trusted().request("GET", URL(odd.base_url), headers={}, limit=LIMIT)

        assert failure.value.reason == reason

    @pytest.mark.parametrize("packed", [False, True])
    async def test_an_answer_up_to_the_limit_is_read_and_counted_as_it_travelled(
        self, doors: Doors, packed: bool
    ) -> None:
        body, meter = b"y" * LIMIT, Meter()
        plain, zipped = answer(body), answer(gzip.compress(body), "Content-Encoding: gzip")

        with RawServer((plain, zipped)[packed]) as polite:
            got = await doors.trusted().request("GET", URL(polite.base_url), headers={}, limit=LIMIT, meter=meter)

        assert got.body == body
        assert (meter.calls, meter.bytes) == (1, (LIMIT, len(gzip.compress(body)))[packed])

    async def test_a_server_that_is_not_there_is_a_failure_that_passes(self, doors: Doors) -> None:
        with RawServer(b"") as gone:
            url = URL(gone.base_url)

        with pytest.raises(Transient, match="connect_failed"):
            await doors.trusted().request("GET", url, headers={})

    async def test_a_name_that_does_not_exist_is_a_failure_that_passes(self, doors: Doors) -> None:
        with pytest.raises(Transient, match="connect_failed"):
            await doors.guarded(LOOPBACK).request("GET", URL("http://nowhere.invalid/"), headers={})

    async def test_a_certificate_that_nobody_vouches_for_ends_it_before_a_password_is_sent(
        self, doors: Doors, tmp_path: Path
    ) -> None:
        door = doors.guarded(LOOPBACK, ScriptedResolver(("127.0.0.1",)))

        with RawServer(answer(b""), tls=self_signed(tmp_path, NAME)) as impostor, pytest.raises(Transient) as failure:
            await door.request("GET", URL(f"https://{NAME}:{impostor.port}/"), headers={"Authorization": SECRET})

        assert failure.value.reason == "certificate"
        assert impostor.requests == []

    @pytest.mark.parametrize("header", ["X: a\r\nEvil: b", "X: a\nEvil: b"])
    async def test_a_header_that_holds_two_is_not_sent(self, doors: Doors, server: RawServer, header: str) -> None:
        with pytest.raises(SyncError):
            await doors.trusted().request("GET", URL(server.base_url), headers={"Depth": header})

        assert not any(b"Evil" in request for request in server.requests)
