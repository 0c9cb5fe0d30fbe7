"""`tenantsync db`"""

import typer

from config.settings import load_settings
from db import partitions, schema
from tenantsync import clock
from tenantsync.cli.common import JsonFlag, Refusal, answering, opened, say

app = typer.Typer(no_args_is_help=True)


@app.command()
def upgrade(json: JsonFlag = False) -> None:
    """Bring the schema up to date, over DIRECT_URL, and make the next months' partitions."""
    with answering(as_json=json):
        url = load_settings().migration_url
        with opened(check_schema=False) as (_, database):
            before, _head = schema.revisions(database)
            schema.upgrade(url)
            after, _head = schema.revisions(database)
            with database.transaction() as connection:
                made = partitions.ensure_ahead(connection, now=clock.now())
        say(
            {"before": before, "after": after, "partitions": made},
            f"schema {before or 'nothing'} -> {after}, {len(made)} partitions made",
            as_json=json,
        )


@app.command()
def check(json: JsonFlag = False) -> None:
    """Compare the database with this code: its revision, and every table with its model."""
    with answering(as_json=json):
        url = load_settings().migration_url
        with opened() as (_, database):
            revision, _head = schema.revisions(database)
        try:
            schema.check_models(url)
        except schema.ModelsDiffer as error:
            raise Refusal(f"The tables differ from the models: {error}") from None
        say({"revision": revision}, f"schema {revision} is this code's, and the tables are the models'", as_json=json)
