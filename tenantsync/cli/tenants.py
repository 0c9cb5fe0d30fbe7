"""`tenantsync tenant` and `tenantsync workspace`"""

from typing import Annotated

import typer

from db.repositories import readings, tenants
from tenantsync.cli.common import (
    JsonFlag,
    Refusal,
    ago,
    answering,
    opened,
    remember,
    say,
    table,
    the_tenant,
)

tenant_app = typer.Typer(no_args_is_help=True)
workspace_app = typer.Typer(no_args_is_help=True)

LISTED = 10_000

Name = Annotated[str, typer.Argument(help="Name.")]
Tenant = Annotated[str, typer.Argument(help="Name or id of the tenant.")]


def _named(name: str) -> str:
    clean = name.strip()
    if not clean or len(clean) > 200 or not clean.isprintable():
        raise Refusal("A name should have 1 to 200 printable characters.")
    return clean


@tenant_app.command("add")
def add_tenant(name: Name, json: JsonFlag = False) -> None:
    """Add a tenant."""
    with answering(as_json=json), opened() as (_, database):
        with database.transaction() as connection:
            tenant_id = tenants.add_tenant(connection, name=_named(name))
            remember(connection, tenant_id, "tenant.add", name=name)
        say({"tenant_id": tenant_id, "name": name}, f"tenant {name} added: {tenant_id}", as_json=json)


@tenant_app.command("list")
def list_tenants(json: JsonFlag = False) -> None:
    """List tenants, and how each of them stands."""
    with answering(as_json=json), opened() as (_, database):
        with database.reading() as connection:
            rows = readings.tenants(connection, tenant_id=None, limit=LISTED)
        columns = ("name", "id", "workspaces", "calendars", "failing", "broken accounts", "events", "unsent", "stalest")
        lines = [
            (
                row["name"] + (" (paused)" if row["paused"] else ""),
                row["tenant_id"],
                row["units"],
                row["calendars"],
                row["failing"],
                row["broken_accounts"],
                row["events"],
                row["unsent"],
                ago(row["stalest"]) if row["calendars"] else "",
            )
            for row in rows
        ]
        say({"tenants": rows}, table(columns, lines), as_json=json)


@tenant_app.command()
def pause(
    tenant: Tenant,
    reason: Annotated[str, typer.Option(help="Why, for whoever looks later.")] = "by hand",
    json: JsonFlag = False,
) -> None:
    """Start no new run of a tenant until it is resumed."""
    _set_paused(tenant, paused=True, reason=reason, json=json)


@tenant_app.command()
def resume(tenant: Tenant, json: JsonFlag = False) -> None:
    """Let a paused tenant run again."""
    _set_paused(tenant, paused=False, reason=None, json=json)


def _set_paused(tenant: str, *, paused: bool, reason: str | None, json: bool) -> None:
    with answering(as_json=json), opened() as (_, database):
        with database.transaction() as connection:
            tenant_id, name = the_tenant(connection, tenant)
            tenants.pause(connection, tenant_id=tenant_id, paused=paused, reason=reason)
            remember(connection, tenant_id, "tenant.pause" if paused else "tenant.resume", reason=reason)
        word = "paused" if paused else "resumed"
        say({"tenant_id": tenant_id, "paused": paused}, f"tenant {name} {word}", as_json=json)


@workspace_app.command("add")
def add_workspace(tenant: Tenant, name: Name, json: JsonFlag = False) -> None:
    """Add a workspace to a tenant."""
    with answering(as_json=json), opened() as (_, database):
        with database.transaction() as connection:
            tenant_id, _name = the_tenant(connection, tenant)
            workspace_id = tenants.add_workspace(connection, tenant_id=tenant_id, name=_named(name))
            remember(connection, tenant_id, "workspace.add", name=name)
        say({"workspace_id": workspace_id, "name": name}, f"workspace {name} added: {workspace_id}", as_json=json)
