"""The command line: prints and exit codes, no logic.

0: done. 1: refused or failed, with the reason. 2: wrong usage. Every command takes `--json`.
"""

import typer

from tenantsync.cli import accounts, audit, database, doctor, keys, parked, status, sync, tenants

app = typer.Typer(
    name="tenantsync",
    help="Keeps every tenant's calendars in step with their providers, in Postgres and in Supabase.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(database.app, name="db", help="The worker database's schema.")
app.add_typer(tenants.tenant_app, name="tenant", help="Tenants: add, list, pause, resume.")
app.add_typer(tenants.workspace_app, name="workspace", help="Workspaces of a tenant.")
app.add_typer(accounts.app, name="account", help="Accounts at calendar providers.")
app.add_typer(sync.app, name="sync", help="Syncing out of turn.")
app.add_typer(parked.app, name="parked", help="What waits for a person: units and rows.")
app.add_typer(keys.app, name="keys", help="The key ring for credentials.")
app.command("status")(status.status)
app.command("audit")(audit.audit)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Entry point of `python -m tenantsync` and `bin/tenantsync`."""
    app()
