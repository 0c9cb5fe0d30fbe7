"""Whether the database's schema is this code's."""

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from db.session import Database

if TYPE_CHECKING:
    from alembic.config import Config

CHECKOUT = Path(__file__).resolve().parent.parent
VERSIONS = CHECKOUT / "db" / "migrations" / "versions"
_LINK = re.compile(r'^(revision|down_revision) = (?:"(\w+)"|None)$', re.MULTILINE)
_REVISION = text("select version_num from public.schema_versions")


class SchemaOutdated(Exception):
    """The database lacks migrations that this code needs."""


class ModelsDiffer(Exception):
    """The tables are not what the models say; the text names the differences."""


# Alembic is imported where it works: every command looks at the revision, and few migrate.


def alembic_config(url: str) -> "Config":
    """Alembic's configuration for an address, wherever the process was started."""
    from alembic.config import Config  # noqa: PLC0415

    config = Config(toml_file=str(CHECKOUT / "pyproject.toml"))
    config.attributes["url"] = url
    return config


def upgrade(url: str) -> None:
    """Bring the schema up to date; another process that does the same waits for this one."""
    from alembic import command  # noqa: PLC0415

    command.upgrade(alembic_config(url), "head")


def check_models(url: str) -> None:
    """Raises ModelsDiffer."""
    from alembic import command  # noqa: PLC0415
    from alembic.util.exc import CommandError  # noqa: PLC0415

    try:
        command.check(alembic_config(url))
    except CommandError as error:
        raise ModelsDiffer(str(error)) from None


@cache
def head() -> str:
    """This code's revision: the one that no other follows."""
    links: list[dict[str, str]] = [dict(_LINK.findall(path.read_text())) for path in VERSIONS.glob("*.py")]
    (newest,) = {one["revision"] for one in links} - {one["down_revision"] for one in links}
    return newest


def revisions(database: Database) -> tuple[str | None, str]:
    """(the database's revision, this code's)."""
    with database.reading() as connection:
        try:
            return connection.execute(_REVISION).scalar(), head()
        except ProgrammingError:  # there is no such table yet
            return None, head()


def require_current(database: Database) -> None:
    """Raises SchemaOutdated, with the command that mends it, unless the database is at this code's revision."""
    there, needed = revisions(database)
    if there != needed:
        raise SchemaOutdated(
            f"The database is at schema {there or 'nothing'} and this code needs {needed}: "
            "run `python -m tenantsync db upgrade`."
        )
