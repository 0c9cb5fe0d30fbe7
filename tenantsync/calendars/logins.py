"""From an account's sealed row to credentials that requests can use."""

from datetime import datetime
from typing import Protocol
from uuid import UUID

from tenantsync.calendars.adapters import Adapters
from tenantsync.calendars.grants import (
    BasicLogin,
    CaldavCredentials,
    GoogleCredentials,
    GoogleGrant,
    Persist,
    parse_credentials,
)
from tenantsync.calendars.provider import Credentials
from tenantsync.errors import OperatorFault
from tenantsync.vault import SealBroken, Vault


class SealedLogin(Protocol):
    """The columns of an account that logging in needs."""

    @property
    def tenant_id(self) -> UUID: ...
    @property
    def account_id(self) -> UUID: ...
    @property
    def provider(self) -> str: ...
    @property
    def credentials(self) -> memoryview | None: ...
    @property
    def access_token(self) -> memoryview | None: ...
    @property
    def access_expires_at(self) -> datetime | None: ...


class Logins:
    """Opens accounts with the process's vault and adapters."""

    def __init__(self, vault: Vault, adapters: Adapters) -> None:
        self._vault = vault
        self._adapters = adapters

    def open(self, account: SealedLogin, *, persist: Persist | None = None) -> Credentials:
        """Credentials of a stored account. Raises OperatorFault when they cannot be unsealed."""
        if account.credentials is None:
            raise OperatorFault("credentials_missing", f"account {account.account_id}", scope="account")
        try:
            plain = self._vault.open(
                account.credentials,
                tenant_id=account.tenant_id,
                account_id=account.account_id,
                column="credentials",
            )
            token = self._token(account)
        except SealBroken as error:
            raise OperatorFault("seal_broken", str(error), scope="account") from None
        return self.make(
            parse_credentials(account.provider, plain),
            access_token=token,
            expires_at=account.access_expires_at,
            persist=persist,
        )

    def make(
        self,
        parsed: GoogleCredentials | CaldavCredentials,
        *,
        access_token: str | None = None,
        expires_at: datetime | None = None,
        persist: Persist | None = None,
    ) -> Credentials:
        """Credentials from their parsed form, stored or not."""
        if isinstance(parsed, CaldavCredentials):
            return BasicLogin(parsed)
        return GoogleGrant(
            self._adapters.trusted,
            self._adapters.oauth,
            parsed,
            access_token=access_token,
            expires_at=expires_at,
            persist=persist,
        )

    def _token(self, account: SealedLogin) -> str | None:
        if account.access_token is None:
            return None
        return self._vault.open(
            account.access_token,
            tenant_id=account.tenant_id,
            account_id=account.account_id,
            column="access_token",
        ).decode()
