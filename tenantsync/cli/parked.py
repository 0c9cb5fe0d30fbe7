"""`tenantsync parked`"""

from typing import Annotated
from uuid import UUID

import typer

from db.repositories import mirroring, readings, units
from tenantsync.cli.common import JsonFlag, Refusal, answering, opened, remember, say, table

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


@app.command()
def retry(
    unit: Annotated[UUID | None, typer.Argument(help="Id of a parked unit.")] = None,
    rows: Annotated[bool, typer.Option("--rows", help="Send all refused rows once more.")] = False,
    json: JsonFlag = False,
) -> None:
    """Let a parked unit run again, alone; or send refused rows once more."""
    with answering(as_json=json), opened() as (_, database):
        if (unit is None) == (not rows):
            raise Refusal("Name a unit, or give --rows.")
        with database.transaction() as connection:
            if unit is not None and not units.release(connection, unit_id=unit):
                raise Refusal(f"There is no parked unit {unit}. `tenantsync parked list` shows those there are.")
            sent = mirroring.retry_parked(connection) if rows else 0
            remember(connection, None, "parked.retry", unit=str(unit) if unit else None, rows=sent)
        text = f"unit {unit} runs again" if unit else f"{sent} rows are sent once more"
        say({"unit": unit, "rows": sent}, text, as_json=json)
