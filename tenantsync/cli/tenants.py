"""`tenantsync tenant` and `tenantsync workspace`"""

from typing import Annotated

import typer

from db.repositories import readings, tenants
from tenantsync.cli.common import (
    JsonFlag,
    Refusal,
    actor,
    ago,
    answering,
    opened,
    remember,
    say,
    table,
    the_tenant,
)
from tenantsync.dispatching import steering
from tenantsync.dispatching.steering import SteeringRefused

tenant_app = typer.Typer(no_args_is_help=True)
workspace_app = typer.Typer(no_args_is_help=True)

LISTED = 10_000

Name = Annotated[str, typer.Argument(help="Name.")]
Tenant = Annotated[str, typer.Argument(help="Name or id of the tenant.")]


def _named(name: str) -> str:
    try:
        return steering.clean_name(name)
    except SteeringRefused as error:
        raise Refusal(str(error)) from None


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
        with database.reading() as connection:
            tenant_id, name = the_tenant(connection, tenant)
        try:
            if paused:
                changed = steering.pause(database, tenant_id=tenant_id, by=actor(), reason=reason or "")
            else:
                changed = steering.resume(database, tenant_id=tenant_id, by=actor())
        except SteeringRefused as error:
            raise Refusal(f"--reason: {error}") from None
        word = ("" if changed else "was already ") + ("paused" if paused else "resumed" if changed else "running")
        say({"tenant_id": tenant_id, "paused": paused, "changed": changed}, f"tenant {name} {word}", as_json=json)


@tenant_app.command("set")
def set_share(
    tenant: Tenant,
    weight: Annotated[
        float | None, typer.Option(help="Its share where not everybody can be served at once, above 0 up to 100.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Units of it that may run at once in each lane, 1 to 1000.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Set a tenant's share. The next claim, a second later at most, goes by it."""
    with answering(as_json=json), opened() as (_, database):
        if weight is None and concurrency is None:
            raise Refusal("Give --weight, --concurrency, or both.")
        with database.transaction() as connection:
            tenant_id, name = the_tenant(connection, tenant)
            try:
                now = steering.set_share(
                    connection, tenant_id=tenant_id, weight=weight, concurrency=concurrency, by=actor()
                )
            except SteeringRefused as error:
                raise Refusal(f"--{error.what}: {error}") from None
        say(
            {"tenant_id": tenant_id, "weight": now[0], "concurrency": now[1]},
            f"tenant {name} has weight {now[0]:g} and runs up to {now[1]} units at once in each lane",
            as_json=json,
        )


@workspace_app.command("add")
def add_workspace(tenant: Tenant, name: Name, json: JsonFlag = False) -> None:
    """Add a workspace to a tenant."""
    with answering(as_json=json), opened() as (_, database):
        with database.transaction() as connection:
            tenant_id, _name = the_tenant(connection, tenant)
            workspace_id = tenants.add_workspace(connection, tenant_id=tenant_id, name=_named(name))
            remember(connection, tenant_id, "workspace.add", name=name)
        say({"workspace_id": workspace_id, "name": name}, f"workspace {name} added: {workspace_id}", as_json=json)
