"""`tenantsync parked`"""

from typing import Annotated
from uuid import UUID

import typer

from db.repositories import readings
from tenantsync.cli.common import JsonFlag, Refusal, actor, answering, opened, say, table
from tenantsync.dispatching import steering

app = typer.Typer(no_args_is_help=True)

LISTED = 1000


@app.command("list")
def list_parked(json: JsonFlag = False) -> None:
    """List units that kill their workers, and rows that Supabase refuses."""
    with answering(as_json=json), opened() as (_, database):
        with database.reading() as connection:
            parked = readings.parked_units(connection, limit=LISTED)
            rows = readings.parked_rows(connection, limit=LISTED)
        text = table(
            ("unit", "tenant", "workspace", "reason"),
            [(one["unit_id"], one["tenant"], one["workspace"], one["parked_reason"]) for one in parked],
        )
        text += table(
            ("row", "tenant", "of", "SQLSTATE", "reason"),
            [(one["row_id"], one["tenant"], one["entity"], one["sqlstate"], one["reason"]) for one in rows],
        )
        say({"units": parked, "rows": rows}, text if parked or rows else "nothing is parked", as_json=json)


Unit = Annotated[UUID | None, typer.Argument(help="Id of a parked unit.")]


@app.command()
def retry(
    unit: Unit = None,
    rows: Annotated[bool, typer.Option("--rows", help="Send all refused rows once more.")] = False,
    json: JsonFlag = False,
) -> None:
    """Let a parked unit run again, alone; or send refused rows once more."""
    with answering(as_json=json), opened() as (_, database):
        _one_of(unit, rows)
        with database.transaction() as connection:
            if unit is not None and not steering.retry_unit(connection, unit_id=unit, tenant_id=None, by=actor()):
                raise Refusal(_NONE.format(unit))
            sent = steering.retry_rows(connection, by=actor()) if rows else 0
        text = f"unit {unit} runs again" if unit else f"{sent} rows are sent once more"
        say({"unit": unit, "rows": sent}, text, as_json=json)


@app.command()
def drop(
    unit: Unit = None,
    rows: Annotated[bool, typer.Option("--rows", help="Forget all refused rows.")] = False,
    json: JsonFlag = False,
) -> None:
    """Try a parked unit no more by itself; or forget refused rows, which are sent again once they change."""
    with answering(as_json=json), opened() as (_, database):
        _one_of(unit, rows)
        with database.transaction() as connection:
            if unit is not None and not steering.drop_unit(connection, unit_id=unit, tenant_id=None, by=actor()):
                raise Refusal(_NONE.format(unit))
            dropped = steering.drop_rows(connection, by=actor()) if rows else 0
        text = f"unit {unit} stays parked until it is retried" if unit else f"{dropped} rows are forgotten"
        say({"unit": unit, "rows": dropped}, text, as_json=json)


_NONE = "There is no parked unit {}. `tenantsync parked list` shows those there are."


def _one_of(unit: UUID | None, rows: bool) -> None:
    if (unit is None) == (not rows):
        raise Refusal("Name a unit, or give --rows.")
