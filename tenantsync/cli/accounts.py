"""`tenantsync account`"""

import sys
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import typer

from db.repositories import accounts
from tenantsync.calendars import connecting
from tenantsync.cli.common import (
    JsonFlag,
    Refusal,
    answering,
    opened,
    remember,
    say,
    table,
    the_tenant,
    the_workspace,
)
from tenantsync.errors import GrantRevoked

app = typer.Typer(no_args_is_help=True)

CREDENTIALS_LIMIT = 64 * 1024  # bytes


class Provider(StrEnum):
    GOOGLE = "google"
    CALDAV = "caldav"


Tenant = Annotated[str, typer.Argument(help="Name or id of the tenant.")]
Workspace = Annotated[str, typer.Argument(help="Name or id of the workspace.")]


@app.command()
def add(
    tenant: Tenant,
    workspace: Workspace,
    provider: Annotated[Provider, typer.Argument(help="Where the calendars are.")],
    url: Annotated[str | None, typer.Option(help="CalDAV: the server's address, as the tenant typed it.")] = None,
    calendar: Annotated[list[str] | None, typer.Option(help="Only this calendar; may be given again.")] = None,
    json: JsonFlag = False,
) -> None:
    """Connect an account. Credentials come as JSON on standard input, never as an argument.

    google: {"refresh_token": "…"}; caldav: {"username": "…", "password": "…"}. The provider is asked at
    once; an account that it refuses is not stored. One that lost its grant is connected again.
    """
    with answering(as_json=json), opened() as (settings, database):
        if (url is not None) != (provider is Provider.CALDAV):
            raise Refusal("--url is for caldav, which needs it, and for nothing else.")
        credentials = sys.stdin.buffer.read(CREDENTIALS_LIMIT + 1)
        if len(credentials) > CREDENTIALS_LIMIT:
            raise Refusal("Credentials should be one JSON object of at most 64 KiB on standard input.")
        with database.reading() as connection:
            tenant_id, _ = the_tenant(connection, tenant)
            workspace_id, _ = the_workspace(connection, tenant_id, workspace)
        try:
            done = connecting.connect(
                database,
                settings,
                tenant_id=tenant_id,
                workspace_id=workspace_id,
                provider=provider.value,
                address=url,
                credentials=credentials,
                only=tuple(calendar or ()),
            )
        except GrantRevoked as error:
            raise Refusal(f"The provider refuses these credentials: {error.detail}. Nothing was stored.") from None
        with database.transaction() as connection:
            remember(connection, tenant_id, "account.add", account_id=str(done.account_id), provider=provider.value)
        word = "connected again" if done.reconnected else "connected"
        say(
            {
                "account_id": done.account_id,
                "identity": done.identity,
                "calendars": done.calendars,
                "reconnected": done.reconnected,
            },
            f"{done.identity} {word} with {done.calendars} calendars: {done.account_id}",
            as_json=json,
        )


@app.command("list")
def list_accounts(tenant: Tenant, json: JsonFlag = False) -> None:
    """List a tenant's accounts."""
    with answering(as_json=json), opened() as (_, database):
        with database.reading() as connection:
            tenant_id, _ = the_tenant(connection, tenant)
            rows = accounts.list_accounts(connection, tenant_id=tenant_id)
        columns = ("workspace", "provider", "identity", "state", "calendars", "events", "id", "reason")
        lines = [
            (
                row.workspace,
                row.provider,
                row.identity,
                row.state,
                row.calendars,
                row.events,
                row.account_id,
                row.state_reason,
            )
            for row in rows
        ]
        say({"accounts": rows}, table(columns, lines), as_json=json)


@app.command()
def remove(
    tenant: Tenant,
    account: Annotated[UUID, typer.Argument(help="Id of the account.")],
    json: JsonFlag = False,
) -> None:
    """Disconnect an account: its credentials are destroyed, its events disappear."""
    with answering(as_json=json), opened() as (_, database):
        with database.reading() as connection:
            tenant_id, _ = the_tenant(connection, tenant)
        if not connecting.disconnect(database, tenant_id=tenant_id, account_id=account):
            raise Refusal(f"The tenant has no account {account}. `tenantsync account list` shows those there are.")
        with database.transaction() as connection:
            remember(connection, tenant_id, "account.remove", account_id=str(account))
        say({"account_id": account}, f"account {account} disconnected", as_json=json)
