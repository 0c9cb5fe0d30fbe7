"""The adapters of a process, over the two doors to the outside."""

from typing import Self

from config.settings import Settings
from tenantsync.calendars.caldav import Caldav
from tenantsync.calendars.google import GoogleCalendar
from tenantsync.calendars.grants import OAuthClient
from tenantsync.calendars.provider import CalendarProvider
from tenantsync.outbound import Transport


class Adapters:
    """Opened inside an event loop, closed in the same one."""

    def __init__(self, settings: Settings, trusted: Transport, guarded: Transport) -> None:
        self.trusted = trusted
        self._guarded = guarded
        secret = settings.google_client_secret
        self.oauth = OAuthClient(
            settings.google_token_uri,
            settings.google_client_id,
            None if secret is None else secret.get_secret_value(),
        )
        self._providers: dict[str, CalendarProvider] = {
            "google": GoogleCalendar(trusted, base=settings.google_api_endpoint),
            "caldav": Caldav(guarded),
        }

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        return cls(settings, Transport.open(), Transport.open_guarded(settings.outbound_allowed_networks))

    def provider(self, name: str) -> CalendarProvider:
        """The adapter of this name. Raises KeyError for a provider that does not exist."""
        return self._providers[name]

    async def close(self) -> None:
        await self.trusted.close()
        await self._guarded.close()
