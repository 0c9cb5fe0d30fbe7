"""`tenantsync keys`"""

import base64
import secrets

import typer

from config.settings import KEY_BYTES
from tenantsync.calendars import connecting
from tenantsync.cli.common import JsonFlag, answering, opened, remember, say

app = typer.Typer(no_args_is_help=True)


@app.command()
def generate(json: JsonFlag = False) -> None:
    """Make a key for ENCRYPTION_KEYS. Needs no settings and stores nothing."""
    key = base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()
    say(
        {"key": key},
        f"{key}\n\nPut it first in ENCRYPTION_KEYS under a number that is not in use, for example 2:{key[:6]}…,1:OLD;\n"
        "restart the workers, run `tenantsync keys rotate`, and drop the old key when that answers 0.",
        as_json=json,
    )


@app.command()
def rotate(json: JsonFlag = False) -> None:
    """Seal all stored credentials with the first key of the ring. May be interrupted and run again."""
    with answering(as_json=json), opened() as (settings, database):
        changed = connecting.rotate_keys(database, settings)
        with database.transaction() as connection:
            remember(connection, None, "keys.rotate", accounts=changed)
        say({"accounts": changed}, f"{changed} accounts sealed anew", as_json=json)
