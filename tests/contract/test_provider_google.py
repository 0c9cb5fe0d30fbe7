"""The Google adapter against the stand-in."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from sandbox.google.control import GoogleControl
from sandbox.google.server import ThreadedServer
from sandbox.google.specs import Fault
from tenantsync import clock
from tenantsync.calendars.google import GoogleCalendar
from tenantsync.calendars.grants import GoogleCredentials, GoogleGrant, OAuthClient
from tenantsync.errors import SyncError
from tenantsync.outbound import Transport
from tests.contract.provider_contract import ProviderContract
from tests.contract.provider_failures import At, ProviderFailures
from tests.contract.provider_parts import Door, Held, There

ANN = "ann@example.test"
KEYS = ("team/1#a@group.calendar.example.test", "second@group.calendar.example.test")


class AtGoogle(There):
    def __init__(self, google: GoogleControl, transport: Transport) -> None:
        self._google, self._transport = google, transport
        self._account = google.create_account(ANN)
        for key in KEYS:
            google.create_calendar(ANN, key, summary=key, time_zone="UTC")
        first, second = (self._door(key, self._grant()) for key in KEYS)
        self.doors = (first, second)

    def put(
        self, name: str, title: str = "Stand-up", *, second: bool = False, description: str = "", zone: str = "UTC"
    ) -> None:
        key, body = KEYS[second], _body(title, description, zone)
        if name in {event["id"] for event in self._google.truth(ANN, key)}:
            self._google.patch(ANN, key, name, body)
        else:
            self._google.insert(ANN, key, {"id": name, **body})

    def fill(self, titles: Mapping[str, str], *, second: bool = False) -> None:
        bodies = [{"id": name, **_body(title, "", "UTC")} for name, title in titles.items()]
        self._google.seed_events(ANN, KEYS[second], bodies)

    def delete(self, *names: str) -> None:
        for name in names:
            self._google.delete(ANN, KEYS[0], name)

    def poison(self) -> str:
        return self._google.add_poison(ANN, KEYS[0], "missing_start")

    def void_cursors(self) -> None:
        self._google.expire_sync_tokens()

    def remove_calendar(self) -> None:
        self._google.remove_calendar(ANN, KEYS[0])

    def titles(self, *, second: bool = False) -> dict[str, str]:
        truth = self._google.truth(ANN, KEYS[second])
        return {event["id"]: event.get("summary", "") for event in truth if event["status"] != "cancelled"}

    def stranger(self) -> Door:
        grant = _grant(self._transport, self._google.token_uri, "of-nobody", "of-nobody-either")
        return self._door(KEYS[0], grant)

    def small_pages(self) -> int:
        self._google.configure(page_size=5)
        return 15

    def fresh(self) -> Door:
        return self._door(KEYS[0], self._grant())

    def _grant(self) -> GoogleGrant:
        account = self._account
        return _grant(self._transport, self._google.token_uri, account.refresh_token, account.access_token)

    def _door(self, key: str, grant: GoogleGrant) -> Door:
        return Door(GoogleCalendar(self._transport, base=self._google.api_endpoint), grant, None, key)


def _grant(transport: Transport, token_uri: str, refresh_token: str, access_token: str) -> GoogleGrant:
    return GoogleGrant(
        transport,
        OAuthClient(token_uri, "stand-in-client", "stand-in-secret"),
        GoogleCredentials(refresh_token=refresh_token),
        access_token=access_token,
        expires_at=clock.now() + timedelta(hours=1),
    )


def _body(title: str, description: str, zone: str) -> dict[str, Any]:
    when = {
        name: {"dateTime": datetime(2026, 12, 1, hour, tzinfo=ZoneInfo(zone)).isoformat(), "timeZone": zone}
        for name, hour in (("start", 9), ("end", 10))
    }
    return {"summary": title, "status": "confirmed", **when, **({"description": description} if description else {})}


class TestGoogleProvider(ProviderContract):
    @pytest.fixture
    async def there(self, google: GoogleControl) -> AsyncIterator[AtGoogle]:
        transport = Transport.open()
        yield AtGoogle(google, transport)
        await transport.close()

    async def test_paging_that_never_ends_is_a_failure(
        self, there: AtGoogle, google: GoogleControl, held: Held
    ) -> None:
        there.small_pages()
        google.add_fault(Fault(kind="same_page_token_forever", times=None))

        with pytest.raises(SyncError):
            await Held().take(there.door)

        assert len(google.requests(endpoint="events.list")) < 50


@pytest.fixture(scope="module")
def past() -> Held:
    async def listed() -> Held:
        held, transport = Held(), Transport.open()
        with ThreadedServer() as server, GoogleControl(server.base_url) as google:
            await held.take(AtGoogle(google, transport).door)
        await transport.close()
        return held

    return asyncio.run(listed())


@pytest.fixture(scope="module")
def secret() -> str:
    return "ya29.an-access-token-of-theirs"


@pytest.fixture
async def at(google_server: ThreadedServer, secret: str) -> AsyncIterator[At]:
    transport = Transport.open()
    grant = _grant(transport, f"{google_server.base_url}/token", "a-refresh-token", secret)
    yield lambda base: Door(GoogleCalendar(transport, base=f"{base}/calendar/v3/"), grant, None, KEYS[0])
    await transport.close()


class TestGoogleProviderFailures(ProviderFailures):
    """Every failure, met by this adapter."""
