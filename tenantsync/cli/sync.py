"""`tenantsync sync`"""

import time
from typing import Annotated

import typer

from db.repositories import tenants
from tenantsync import clock
from tenantsync.cli.common import JsonFlag, Refusal, actor, answering, opened, say, the_tenant, the_workspace
from tenantsync.dispatching import steering

app = typer.Typer(no_args_is_help=True)

POLL = 0.2  # seconds


@app.callback()
def _group() -> None:
    """Syncing out of turn."""


@app.command()
def now(
    tenant: Annotated[str, typer.Argument(help="Name or id of the tenant.")],
    workspace: Annotated[str | None, typer.Option(help="Only this workspace.")] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait until every calendar was tried.")] = 0.0,
    json: JsonFlag = False,
) -> None:
    """Make a tenant's calendars due now. Backoff does not hold them; what a provider closed stays closed."""
    with answering(as_json=json), opened() as (_, database):
        with database.transaction() as connection:
            tenant_id, name = the_tenant(connection, tenant)
            chosen = the_workspace(connection, tenant_id, workspace)[0] if workspace is not None else None
            since = tenants.moment(connection)
            wanted = steering.sync_now(connection, tenant_id=tenant_id, workspace_id=chosen, by=actor())
        calendars = wanted.calendars
        ends, left = clock.monotonic() + wait, calendars
        while wait > 0:
            with database.statement() as connection:
                left = tenants.unsynced(connection, tenant_id=tenant_id, workspace_id=chosen, since=since)
            if not left:
                break
            if clock.monotonic() > ends:
                raise Refusal(
                    f"{left} of {calendars} calendars were not tried within {wait:g} s. Is a worker running, and is "
                    "the tenant not paused? `tenantsync doctor` looks."
                )
            time.sleep(POLL)
        done = "synced" if wait > 0 else "due now"
        say(
            {"tenant_id": tenant_id, "calendars": calendars, "units": wanted.units, "waited": wait > 0},
            f"{calendars} calendars of {name} {done}",
            as_json=json,
        )
