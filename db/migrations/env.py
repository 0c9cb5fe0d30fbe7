"""How migrations run: over DIRECT_URL, one at a time fleet-wide, never waiting long for a lock."""

from alembic import context
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection

from config.settings import get_settings
from db import models
from db.session import PoolerInBetween, driver_url, is_pooled

LOCK_KEY = 7_246_001  # any number, the same everywhere; freed when the session ends, also by a crash
SCHEMAS = {"sync", "worker", "mirror", "process", "identity"}


def include_name(name: str | None, kind: str, _: object) -> bool:
    """Compare our schemas only, and leave out partitions: they come and go with the calendar."""
    if kind == "schema":
        return name in SCHEMAS
    if kind == "table":
        return name is not None and not models.is_partition(name)
    return True


def migrate(connection: Connection) -> None:
    if is_pooled(connection):
        raise PoolerInBetween(
            "Migrations need a session of their own, and this address leads to a pooler such as PgBouncer: "
            "set DIRECT_URL to the address of Postgres itself."
        )
    connection.execute(text("select pg_advisory_lock(:key)"), {"key": LOCK_KEY})  # as long as the other one takes
    connection.execute(text("set lock_timeout = '5s'"))
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=models.Base.metadata,
        include_schemas=True,
        include_name=include_name,
        transaction_per_migration=True,
        version_table="schema_versions",
        version_table_schema="public",
    )
    with context.begin_transaction():
        context.run_migrations()


def run() -> None:
    given = context.config.attributes.get("connection")
    if given is not None:
        migrate(given)
        return
    url = context.config.attributes.get("url") or get_settings().migration_url
    engine = create_engine(driver_url(url))
    try:
        with engine.connect() as connection:
            migrate(connection)
    finally:
        engine.dispose()


run()
