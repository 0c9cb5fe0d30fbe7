"""The CalDAV adapter against a real server."""

import asyncio
import base64
import ipaddress
from collections.abc import AsyncIterator, Mapping
from itertools import count

import pytest

from sandbox.servers.radicale import Radicale
from tenantsync.calendars.caldav import Caldav
from tenantsync.calendars.grants import BasicLogin, CaldavCredentials
from tenantsync.errors import SyncError
from tenantsync.outbound import Transport
from tests.contract.provider_contract import ProviderContract
from tests.contract.provider_failures import At, ProviderFailures, said
from tests.contract.provider_parts import Call, Door, Held, There, changes, further_changes
from tests.support.caldav import Shelf, calendar, text_value, vevent
from tests.support.canned_server import CannedServer

PASSWORD = "a-password-of-theirs"
SYNC_ABILITY = """\
<response><href>/ann/team/</href><propstat><prop><supported-report-set><supported-report><report><sync-collection/>
</report></supported-report></supported-report-set></prop><status>HTTP/1.1 200 OK</status></propstat></response>
"""
_numbers = count(1)
_LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


class AtRadicale(There):
    def __init__(self, radicale: Radicale, transport: Transport) -> None:
        self._server, self._transport = radicale, transport
        self._user = f"contract{next(_numbers)}"
        self._shelves = tuple(Shelf(radicale, self._user, name).create() for name in ("team", "home"))
        radicale.add_user(self._user, PASSWORD)
        first, second = (self._door(shelf.path) for shelf in self._shelves)
        self.doors = (first, second)

    def put(
        self, name: str, title: str = "Stand-up", *, second: bool = False, description: str = "", zone: str = "UTC"
    ) -> None:
        lines = [*_times(zone), *([f"DESCRIPTION:{text_value(description)}"] if description else [])]
        self._shelves[second].put(name, calendar(vevent(name, title, *lines)))

    def fill(self, titles: Mapping[str, str], *, second: bool = False) -> None:
        self._shelves[second].fill(titles)

    def delete(self, *names: str) -> None:
        self._shelves[0].delete(*names)

    def poison(self) -> str:
        lines = ["DTSTART:20261201T090000Z", "DTEND:20261130T090000Z"]
        return self._shelves[0].put("poison", calendar(vevent("poison", "Ends before it starts", *lines)))

    def void_cursors(self) -> None:
        self._shelves[0].forget_tokens()

    def remove_calendar(self) -> None:
        self._shelves[0].remove()

    def titles(self, *, second: bool = False) -> dict[str, str]:
        return {
            path: line.removeprefix("SUMMARY:")
            for path, lines in self._shelves[second].truth().items()
            for line in lines
            if line.startswith("SUMMARY:")
        }

    def stranger(self) -> Door:
        return self._door(self._shelves[0].path, password="of-nobody")

    def small_pages(self) -> int:
        return 250

    def fresh(self) -> Door:
        return self._door(self._shelves[0].path)

    def _door(self, path: str, *, password: str = PASSWORD) -> Door:
        return _door(self._transport, self._server.url.rstrip("/"), path, self._user, password)


def _door(transport: Transport, endpoint: str, path: str, user: str, password: str) -> Door:
    login = BasicLogin(CaldavCredentials(username=user, password=password))
    return Door(Caldav(transport), login, endpoint, path)


def _times(zone: str) -> list[str]:
    if zone == "UTC":
        return ["DTSTART:20261201T090000Z", "DTEND:20261201T100000Z"]
    return [f"DTSTART;TZID={zone}:20261201T090000", f"DTEND;TZID={zone}:20261201T100000"]


class TestCaldavProvider(ProviderContract):
    @pytest.fixture
    async def there(self, radicale: Radicale) -> AsyncIterator[AtRadicale]:
        transport = Transport.open_guarded([_LOOPBACK])
        yield AtRadicale(radicale, transport)
        await transport.close()


@pytest.fixture(scope="module")
def past(radicale: Radicale) -> Held:
    async def listed() -> Held:
        held, transport = Held(), Transport.open_guarded([_LOOPBACK])
        there = AtRadicale(radicale, transport)
        there.put("event01")
        await held.take(there.door)
        await transport.close()
        return held

    return asyncio.run(listed())


@pytest.fixture(scope="module")
def secret() -> str:
    """What Basic authentication makes of name and password."""
    return base64.b64encode(f"ann:{PASSWORD}".encode()).decode()


@pytest.fixture
async def at() -> AsyncIterator[At]:
    transport = Transport.open_guarded([_LOOPBACK])
    yield lambda base: _door(transport, base, "/ann/team/", "ann", PASSWORD)
    await transport.close()


class TestCaldavProviderFailures(ProviderFailures):
    @pytest.mark.parametrize("call", [changes, further_changes])
    @pytest.mark.parametrize("token", ["", "<sync-token/>", "<sync-token> </sync-token>"])
    async def test_a_sync_answer_without_a_token_is_a_failure_with_a_name(
        self, at: At, past: Held, call: Call, token: str
    ) -> None:
        answer = f'<multistatus xmlns="DAV:">{SYNC_ABILITY}{token}</multistatus>'.encode()

        with CannedServer(said(b"207 Multi-Status", answer)) as server, pytest.raises(SyncError):
            await call(at(server.url), past)
