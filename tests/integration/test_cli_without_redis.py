"""Every command answers at once while Redis hangs or is gone: none of them needs it, and none waits for it."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from config.settings import Settings
from db.session import Database
from sandbox.google.control import GoogleControl
from sandbox.servers.valkey import Valkey
from tenantsync.cli import app
from tests.support.fleet import KEY
from tests.support.mirror import plant_tenant
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures

CHECKOUT = Path(__file__).resolve().parent.parent.parent
LATE = 1.0  # seconds above what the command takes otherwise
NOBODY = "01890000-0000-7000-8000-000000000000"
TENANT = "acme"
WORDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("tenant", "add"): ("newcomer",),
    ("tenant", "pause"): (TENANT,),
    ("tenant", "resume"): (TENANT,),
    ("tenant", "set"): (TENANT, "--weight", "2"),
    ("workspace", "add"): (TENANT, "attic"),
    ("account", "add"): (TENANT, "office", "google"),
    ("account", "list"): (TENANT,),
    ("account", "remove"): (TENANT, NOBODY),
    ("sync", "now"): (TENANT,),
    ("task", "list"): (),
    ("task", "show"): (NOBODY,),
    ("task", "cancel"): (NOBODY,),
    ("parked", "retry"): (NOBODY,),
    ("parked", "drop"): (NOBODY,),
    ("why",): (TENANT,),
    ("user", "add"): ("ann@example.test", "--tenant", TENANT),
    ("user", "disable"): ("ann@example.test",),
    ("user", "password"): ("ann@example.test",),
}
"""What else a command has to be told."""
_numbers = count(1)


def commands() -> Iterator[tuple[str, ...]]:
    """The words of every command that there is."""

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if not hasattr(command, "list_commands"):
            yield words
            return
        for name in command.list_commands(None):
            yield from walk(command.get_command(None, name), (*words, name))

    return walk(typer.main.get_command(app), ())


@pytest.fixture(scope="module")
def valkey_server() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


@pytest.fixture
def valkey(valkey_server: Valkey) -> Iterator[Valkey]:
    """A Redis in good health, whatever the test does to it."""
    if not valkey_server.alive:
        valkey_server.start()
    yield valkey_server
    valkey_server.thaw()


@pytest.fixture
def environment(valkey: Valkey, settings: Settings, database: Database) -> dict[str, str]:
    """Of a command line, with one tenant in the database."""
    plant_tenant(database, TENANT)
    return {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": valkey.url(0),
        "SUPABASE_URL": settings.supabase_url,
        "SUPABASE_SECRET_KEY": settings.supabase_secret_key.get_secret_value(),
        "ENCRYPTION_KEYS": f"1:{KEY}",
        "GOOGLE_CLIENT_ID": "stand-in-client",
        "GOOGLE_CLIENT_SECRET": "stand-in-secret",
        "GOOGLE_API_ENDPOINT": settings.google_api_endpoint,
        "GOOGLE_TOKEN_URI": settings.google_token_uri,
        "OUTBOUND_ALLOWED_NETWORKS": "127.0.0.0/8",
    }


@pytest.fixture
def run(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[float, int]]]:
    """Runs a command in this process; answers its seconds and its exit code."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level

    def command(*words: str, stdin: str | None = None) -> tuple[float, int]:
        began = time.monotonic()
        result = CliRunner().invoke(app, [*words, "--json"], input=stdin, catch_exceptions=False)
        return time.monotonic() - began, result.exit_code

    yield command
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


@pytest.fixture
def credentials(google: GoogleControl) -> str:
    """Of a Google account that can be connected."""
    account = google.create_account(f"cli{next(_numbers)}@example.test")
    return json.dumps({"refresh_token": account.refresh_token})


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_no_command_waits_for_a_redis_that_hangs_or_is_gone(
    run: Callable[..., tuple[float, int]], valkey: Valkey, credentials: str, words: tuple[str, ...]
) -> None:
    told = (*words, *WORDS.get(words, ()))
    usual, _ = run(*told, stdin=credentials)

    valkey.freeze()
    hangs, code = run(*told, stdin=credentials)
    valkey.thaw()
    valkey.kill()
    gone, _ = run(*told, stdin=credentials)

    assert code in (0, 1), "this command needs more words: say which in WORDS"
    assert hangs < usual + LATE
    assert gone < usual + LATE


def test_doctor_says_that_redis_does_not_answer(
    valkey: Valkey, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    valkey.freeze()

    result = CliRunner().invoke(app, ["doctor", "--json"])

    findings = json.loads(result.stdout.splitlines()[-1])["findings"]
    assert [one["level"] for one in findings if one["about"] == "redis"] == ["fail"]


@pytest.mark.parametrize("words", ["status", "doctor"])
def test_nor_does_a_real_process(valkey: Valkey, environment: dict[str, str], words: str) -> None:
    def seconds() -> float:
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "tenantsync", words, "--json"],
            cwd=CHECKOUT,
            env={**environment, "PATH": os.environ["PATH"]},
            capture_output=True,
            timeout=60,
        )
        return time.monotonic() - began

    def in_time() -> bool:
        usual = seconds()
        valkey.freeze()
        hangs = seconds()
        valkey.thaw()
        return hangs < max(usual, seconds()) + LATE

    assert any(in_time() for _ in range(4))  # one that waits for Redis never is; on a busy machine others may be late
