"""What the commands share: the database, the answer's two forms, and refusals."""

import getpass
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any
from uuid import UUID

import orjson
import typer
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from config.log_setup import blot, setup_logging
from config.settings import Settings, SettingsError, load_settings
from db.repositories import tenants
from db.repositories.accounts import AccountExists
from db.schema import SchemaOutdated, require_current
from db.session import Database, DatabaseUnreachable, PoolerInBetween
from tenantsync.errors import SyncError

JsonFlag = Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")]


class Refusal(Exception):
    """A command that cannot be carried out. The text says why and what to do."""


EXPECTED = (Refusal, SettingsError, DatabaseUnreachable, PoolerInBetween, SchemaOutdated, SyncError)
EXPECTED_BY_NAME = frozenset(
    {
        "tenantsync.calendars.connecting.NoSuchCalendar",
        "tenantsync.calendars.grants.CredentialsMalformed",
        "tenantsync.mirror.supabase.MirrorError",
        "tenantsync.processes.values.MoveRefused",
        "tenantsync.vault.SealBroken",
    }
)
"""More of them, by name: to import them takes longer than most commands."""


def _is_expected(error: Exception) -> bool:
    return isinstance(error, EXPECTED) or any(
        f"{kind.__module__}.{kind.__qualname__}" in EXPECTED_BY_NAME for kind in type(error).__mro__
    )


@contextmanager
def answering(*, as_json: bool) -> Iterator[None]:
    """Turn expected errors into one clear message and exit code 1; anything else is a bug and shows itself."""
    try:
        yield
    except AccountExists as error:
        _refuse(f"The workspace already has this account ({error}), and it works. Nothing was changed.", as_json)
    except tenants.NameTaken as error:
        _refuse(f"The name {str(error)!r} is taken. Choose another.", as_json)
    except SQLAlchemyError as error:
        _refuse(f"Postgres refused or was lost: {error}", as_json)
    except Exception as error:
        if not _is_expected(error):
            raise
        _refuse(str(error), as_json)


def _refuse(message: str, as_json: bool) -> None:
    text = blot(message)
    if as_json:
        sys.stdout.write(orjson.dumps({"ok": False, "error": text}).decode() + "\n")
    else:
        sys.stderr.write(text + "\n")
    raise typer.Exit(1)


@contextmanager
def opened(*, check_schema: bool = True) -> Iterator[tuple[Settings, Database]]:
    """Settings and a small pool, checked: Postgres answers and has this code's schema."""
    settings = load_settings()
    setup_logging(settings.model_copy(update={"log_level": "WARNING"}))
    database = Database(settings.database_url, pool_size=2, name="tenantsync cli")
    try:
        database.wait_until_reachable(attempts=3)
        if check_schema:
            require_current(database)
        yield settings, database
    finally:
        database.close()


def say(data: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Answer: the data as one JSON line, or the text."""
    if as_json:
        sys.stdout.write(orjson.dumps({"ok": True, **data}, default=str).decode() + "\n")
    else:
        sys.stdout.write(text.rstrip("\n") + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows as an aligned table, without colours where nobody sees them."""
    from rich.console import Console  # noqa: PLC0415 — answers for machines draw no tables
    from rich.table import Table  # noqa: PLC0415

    drawn = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*("" if value is None else str(value) for value in row))
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    with console.capture() as capture:
        console.print(drawn)
    return capture.get()


def the_tenant(connection: Connection, name_or_id: str) -> tuple[UUID, str]:
    """A tenant by name or id. Raises Refusal."""
    found = tenants.find_tenant(connection, name_or_id)
    if found is None:
        raise Refusal(f"There is no tenant {name_or_id!r}. `tenantsync tenant list` shows those there are.")
    return found


def the_workspace(connection: Connection, tenant_id: UUID, name_or_id: str) -> tuple[UUID, str]:
    """A workspace of a tenant by name or id. Raises Refusal."""
    found = tenants.find_workspace(connection, tenant_id=tenant_id, name_or_id=name_or_id)
    if found is None:
        raise Refusal(f"The tenant has no workspace {name_or_id!r}. `tenantsync workspace add` adds one.")
    return found


def remember(connection: Connection, tenant_id: UUID | None, action: str, **details: Any) -> None:
    """Write an audit log row for what this person did."""
    tenants.write_audit_log(connection, tenant_id=tenant_id, actor=actor(), action=action, details=details)


def actor() -> str:
    """Who gives this command."""
    return f"cli:{getpass.getuser()}"


def ago(seconds: float | None) -> str:
    """A duration for people."""
    if seconds is None:
        return "never"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size * 2:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
