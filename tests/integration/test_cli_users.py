"""`tenantsync user` and `tenantsync web`: passwords on standard input alone, and clear refusals."""

import logging
from collections.abc import Callable, Iterator, Sequence

import orjson
import pytest
from sqlalchemy import text
from typer.testing import CliRunner, Result

from db.repositories import tenants
from db.session import Database
from tenantsync.cli import app
from tests.support.fleet import KEY

Command = Callable[..., Result]


@pytest.fixture
def command(database_url: str) -> Iterator[Command]:
    """Runs a command; `typed` is standard input."""
    environment = {
        "DATABASE_URL": database_url,
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "SUPABASE_URL": "http://127.0.0.1:1",
        "SUPABASE_SECRET_KEY": "sb_secret_test",
        "ENCRYPTION_KEYS": f"1:{KEY}",
    }

    def run(*words: str, typed: str = "") -> Result:
        return CliRunner().invoke(app, words, input=typed, env=environment)

    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    yield run
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


def test_somebody_is_added_listed_shut_out_and_let_in_again(command: Command, database: Database) -> None:
    with database.transaction() as connection:
        tenants.add_tenant(connection, name="acme")
    words: Sequence[str] = ("user", "add", "ann@example.test", "--tenant", "acme", "--role", "admin", "--json")

    added = command(*words, typed="a password of hers\n")
    out = command("user", "disable", "ann@example.test", "--json")
    listed = command("user", "list", "--json")
    back = command("user", "disable", "ann@example.test", "--undo")

    (user,) = orjson.loads(listed.stdout)["users"]
    assert [one.exit_code for one in (added, out, listed, back)] == [0, 0, 0, 0]
    assert (user["email"], user["role"], user["disabled"]) == ("ann@example.test", "admin", True)


def test_a_password_is_stored_as_a_hash_and_its_change_ends_sessions(command: Command, database: Database) -> None:
    command("user", "add", "op@example.test", "--role", "operator", typed="the first of them\n")

    changed = command("user", "password", "op@example.test", typed="the second of them\n")

    with database.reading() as connection:
        stored = connection.execute(text("select password_hash from identity.users")).scalar_one()
        audit = connection.execute(text("select action, details::text from worker.audit_logs order by id")).all()
    assert changed.exit_code == 0
    assert stored.startswith("$argon2id$")
    assert [row.action for row in audit] == ["user.add", "user.password"]
    assert "of them" not in str(audit)


@pytest.mark.parametrize(
    ("words", "typed", "reason"),
    [
        (("add", "not an address", "--role", "operator"), "long enough 1\n", "not an e-mail address"),
        (("add", "a@b.example", "--role", "operator"), "short\n", "10 to 512"),
        (("add", "a@b.example", "--role", "operator"), "\n", "standard input"),
        (("add", "a@b.example", "--role", "member"), "long enough 1\n", "belong to no tenant"),
        (("add", "a@b.example", "--tenant", "nobody"), "long enough 1\n", "no tenant 'nobody'"),
        (("disable", "nobody@b.example"), "", "Nobody logs in as"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_reason(
    command: Command, words: tuple[str, ...], typed: str, reason: str
) -> None:
    answer = command("user", *words, "--json", typed=typed)

    assert answer.exit_code == 1
    assert reason in orjson.loads(answer.stdout)["error"]


def test_the_web_process_says_which_key_is_missing(command: Command) -> None:
    answer = command("web", "--json")

    assert answer.exit_code == 1
    assert "SECRET_KEY: is missing" in orjson.loads(answer.stdout)["error"]
