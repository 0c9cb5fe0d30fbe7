"""Connecting and disconnecting accounts, and sealing their credentials anew."""

import asyncio
from dataclasses import dataclass
from uuid import UUID

from config.settings import Settings
from db.ids import new_id
from db.repositories import accounts
from db.repositories.accounts import AccountExists
from db.session import Database
from db.states import AccountState
from tenantsync import clock
from tenantsync.calendars.adapters import Adapters
from tenantsync.calendars.grants import parse_credentials
from tenantsync.calendars.logins import Logins
from tenantsync.calendars.provider import RemoteAccount
from tenantsync.errors import Transient
from tenantsync.limits.service import AloneAllowances
from tenantsync.outbound import Meter
from tenantsync.processes import syncs
from tenantsync.vault import SealBroken, Vault

ROTATE_AT_ONCE = 200  # accounts a transaction
DISCOVERY_DEADLINE = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Connected:
    """An account that now works, and how many calendars it brought."""

    account_id: UUID
    identity: str
    calendars: int
    reconnected: bool


class NoSuchCalendar(Exception):
    """The account does not have the calendar that was asked for."""


def connect(
    database: Database,
    settings: Settings,
    *,
    tenant_id: UUID,
    workspace_id: UUID,
    provider: str,
    address: str | None,
    credentials: str | bytes,
    only: tuple[str, ...] = (),
) -> Connected:
    """Ask the provider who the account is and which calendars it has, then store it with its credentials sealed.

    `only` names calendars by their provider's key; empty takes all. An account that is there already and
    lost its grant is connected again with the new credentials; one that works raises AccountExists.
    Raises CredentialsMalformed, NoSuchCalendar, or the SyncError of the provider; nothing is stored then.
    """
    parse_credentials(provider, credentials)
    vault = Vault(settings.encryption_keys)
    remote = asyncio.run(_discover(database, settings, vault, provider, address, credentials))
    chosen = [one for one in remote.calendars if not only or one.provider_key in only]
    missing = set(only) - {one.provider_key for one in remote.calendars}
    if missing:
        raise NoSuchCalendar(f"the account has no calendar {', '.join(sorted(missing))}")
    with database.transaction() as connection:
        found = accounts.find(
            connection,
            tenant_id=tenant_id,
            workspace_id=workspace_id,
            provider=provider,
            identity=remote.identity,
        )
        if found is not None and found[1] == AccountState.CONNECTED:
            raise AccountExists(remote.identity)
        account_id = new_id() if found is None else found[0]
        plain = credentials.encode() if isinstance(credentials, str) else credentials
        sealed = vault.seal(plain, tenant_id=tenant_id, account_id=account_id, column="credentials")
        if found is None:
            accounts.insert(
                connection,
                account_id=account_id,
                tenant_id=tenant_id,
                workspace_id=workspace_id,
                provider=provider,
                identity=remote.identity,
                endpoint=remote.endpoint,
                credentials=sealed,
            )
        else:
            accounts.reconnect(
                connection,
                account_id=account_id,
                tenant_id=tenant_id,
                endpoint=remote.endpoint,
                credentials=sealed,
            )
        added = accounts.add_calendars(
            connection,
            tenant_id=tenant_id,
            workspace_id=workspace_id,
            account_id=account_id,
            calendars=[
                {
                    "provider_key": one.provider_key,
                    "name": one.name,
                    "time_zone": one.time_zone,
                    "access_role": one.access_role,
                }
                for one in chosen
            ],
        )
    syncs.tell_connected(database, tenant_id=tenant_id, account_id=account_id)
    return Connected(account_id, remote.identity, added, reconnected=found is not None)


async def _discover(
    database: Database,
    settings: Settings,
    vault: Vault,
    provider: str,
    address: str | None,
    credentials: str | bytes,
) -> RemoteAccount:
    """Within the limits of project and server; the account is charged once it has said which one it is."""
    adapters = await Adapters.open(settings)
    ends = clock.monotonic() + DISCOVERY_DEADLINE
    try:
        login = Logins(vault, adapters).make(parse_credentials(provider, credentials))
        async with AloneAllowances(settings, database, purpose="discovery") as allowances:
            allowance = allowances.of(
                provider=provider, identity=None, bulk=False, deadline=ends, patience=DISCOVERY_DEADLINE
            )
            async with asyncio.timeout(DISCOVERY_DEADLINE):
                remote = await adapters.provider(provider).discover(login, address, Meter(allowance))
            with database.statement() as connection:
                allowances.charge(connection, provider=provider, identity=remote.identity, sent=allowance.sent)
            return remote
    except TimeoutError:
        raise Transient("deadline", f"discovery took longer than {DISCOVERY_DEADLINE:g} s") from None
    finally:
        await adapters.close()


def disconnect(database: Database, *, tenant_id: UUID, account_id: UUID) -> bool:
    """Destroy an account's credentials, stop its runs and bury its events; False if there is no such account."""
    with database.transaction() as connection:
        removed = accounts.remove(connection, tenant_id=tenant_id, account_id=account_id)
    if removed:
        syncs.tell_disconnected(database, tenant_id=tenant_id)
    return removed


def rotate_keys(database: Database, settings: Settings) -> int:
    """Seal every stored value with the ring's first key; returns the accounts changed.

    Done in portions that each commit: it may be interrupted and run again. When it has returned 0, the
    older keys may leave the ring. Raises SealBroken at the end, naming the accounts that could not be opened.
    """
    vault, after, changed = Vault(settings.encryption_keys), UUID(int=0), 0
    broken: list[str] = []
    while True:
        with database.transaction() as connection:
            portion = accounts.sealed(connection, after=after, limit=ROTATE_AT_ONCE)
            for account in portion:
                values = {"credentials": account.credentials, "access_token": account.access_token}
                held = {column: value for column, value in values.items() if value is not None}
                if all(vault.is_current(value) for value in held.values()):
                    continue
                bound = {"tenant_id": account.tenant_id, "account_id": account.account_id}
                try:
                    resealed = {
                        column: vault.seal(vault.open(value, **bound, column=column), **bound, column=column)
                        for column, value in held.items()
                    }
                except SealBroken as error:
                    broken.append(str(error))
                    continue
                accounts.reseal(
                    connection,
                    **bound,
                    credentials=resealed.get("credentials"),
                    access_token=resealed.get("access_token"),
                )
                changed += 1
        if not portion:
            break
        after = portion[-1].account_id
    if broken:
        raise SealBroken(f"{changed} accounts were sealed anew, {len(broken)} were not:\n" + "\n".join(broken))
    return changed
