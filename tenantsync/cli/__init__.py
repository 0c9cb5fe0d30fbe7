"""The command line: prints and exit codes, no logic.

0: done. 1: refused or failed, with the reason. 2: wrong usage. Every command takes `--json`.
"""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

COMMANDS = {
    "db": ("database", "app", "The worker database's schema."),
    "tenant": ("tenants", "tenant_app", "Tenants: add, list, pause, resume."),
    "workspace": ("tenants", "workspace_app", "Workspaces of a tenant."),
    "account": ("accounts", "app", "Accounts at calendar providers."),
    "sync": ("sync", "app", "Syncing out of turn."),
    "parked": ("parked", "app", "What waits for a person: units and rows."),
    "task": ("tasks", "app", "Tasks that web apps asked for: list, show, cancel."),
    "keys": ("keys", "app", "The key ring for credentials."),
    "status": ("status", "status", None),
    "why": ("why", "why", None),
    "audit": ("audit", "audit", None),
    "doctor": ("doctor", "doctor", None),
    "user": ("users", "app", "People who log in."),
    "web": ("web", "web", None),
}
"""Each command's module below this package, its group or function there, and what a group is about."""


class _OnDemand(TyperGroup):
    """Imports the module of the command that was called: those of all together take longer than most commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, attribute, about = COMMANDS[cmd_name]
        target = getattr(import_module(f"tenantsync.cli.{module}"), attribute)
        if isinstance(target, typer.Typer):
            found = typer.main.get_group(target)
            found.name, found.help = cmd_name, about
            return found
        single = typer.Typer(add_completion=False)
        single.command(cmd_name)(target)
        return typer.main.get_command(single)


app = typer.Typer(
    name="tenantsync",
    cls=_OnDemand,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """Keeps every tenant's calendars in step with their providers, in Postgres and in Supabase."""


def main() -> None:
    """Entry point of `python -m tenantsync` and `bin/tenantsync`."""
    app()
