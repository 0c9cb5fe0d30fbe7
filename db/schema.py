"""Whether the database's schema is this code's."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import ProgrammingError

from db.session import Database

CHECKOUT = Path(__file__).resolve().parent.parent


class SchemaOutdated(Exception):
    """The database lacks migrations that this code needs."""


def alembic_config(url: str) -> Config:
    """Alembic's configuration for an address, wherever the process was started."""
    config = Config(toml_file=str(CHECKOUT / "pyproject.toml"))
    config.attributes["url"] = url
    return config


def upgrade(url: str) -> None:
    """Bring the schema up to date; another process that does the same waits for this one."""
    command.upgrade(alembic_config(url), "head")


def check_models(url: str) -> None:
    """Raises alembic's CommandError if the tables differ from the models."""
    command.check(alembic_config(url))


def revisions(database: Database) -> tuple[str | None, str | None]:
    """(the database's revision, this code's)."""
    head = ScriptDirectory.from_config(Config(toml_file=str(CHECKOUT / "pyproject.toml"))).get_current_head()
    with database.reading() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": "schema_versions", "version_table_schema": "public"}
        )
        try:
            return context.get_current_revision(), head
        except ProgrammingError:
            return None, head


def require_current(database: Database) -> None:
    """Raises SchemaOutdated, with the command that mends it, unless the database is at this code's revision."""
    there, head = revisions(database)
    if there != head:
        raise SchemaOutdated(
            f"The database is at schema {there or 'nothing'} and this code needs {head}: "
            "run `python -m tenantsync db upgrade`."
        )
