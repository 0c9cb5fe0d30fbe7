"""What a process says when it cannot start: which variable, which server, what to do; then it ends with a code."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox import supabase_migrations
from sandbox.servers.lite import SupabaseLite
from sandbox.servers.ports import free_port
from sandbox.servers.postgres import Postgres
from sandbox.servers.process import clean_environment
from sandbox.servers.valkey import Valkey
from tests.conftest import TEMPLATE
from tests.support.fleet import KEY

pytestmark = pytest.mark.timeout(180)
CHECKOUT = Path(__file__).resolve().parent.parent.parent
NOBODY = "127.0.0.1:{}"
PASSWORD = "hidden-in-every-message"
CELERY = [sys.executable, "-m", "celery"]
BAD_TIMETABLE = [
    sys.executable,
    "-c",
    """
import sys
from datetime import timedelta
import beat_schedule
from config.timetable import Entry
beat_schedule.WAKE_UPS["empty"] = {"schedule": timedelta(seconds=1), "options": {"queue": "wakeups"}}
beat_schedule.OCCURRENCES["mistyped"] = Entry("retention.clean", every=timedelta(0), policy="never")
from celery.__main__ import main
sys.exit(main())
""",
]
"""Celery with a timetable in which two entries are wrong."""


@dataclass(frozen=True)
class Ended:
    code: int
    output: str


@pytest.fixture(scope="module")
def good(postgres: Postgres) -> Iterator[dict[str, str]]:
    """An environment in which a worker would start."""
    url = postgres.create_database("startup", template=TEMPLATE)
    with Valkey() as valkey, SupabaseLite(postgres, database="startup_supabase") as supabase:
        supabase_migrations.apply(supabase.database_url)
        yield {
            "DATABASE_URL": url,
            "REDIS_URL": valkey.url(0),
            "SUPABASE_URL": supabase.url,
            "SUPABASE_SECRET_KEY": supabase.secret_key,
            "ENCRYPTION_KEYS": f"1:{KEY}",
        }
    postgres.drop_database("startup")


@pytest.fixture(scope="module")
def ended(good: dict[str, str], postgres: Postgres) -> Iterator[dict[str, Ended]]:
    """Every case at once, because each of them takes seconds of bounded retries."""
    dead = NOBODY.format(free_port())
    postgres.create_database("not_migrated")
    worker, beat = ("worker", "-c", "1"), ("beat",)
    cases: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
        "nothing set": (worker, {"ONLY": "this"}),
        "beat without settings": (beat, {"ONLY": "this"}),
        "several malformed": (
            worker,
            good | {"DATABASE_URL": f"mysql://u:{PASSWORD}@h/d", "SYNC_INTERVAL": "soon", "ENCRYPTION_KEYS": PASSWORD},
        ),
        "no postgres": (worker, good | {"DATABASE_URL": f"postgresql://u:{PASSWORD}@{dead}/d"}),
        "no broker": (worker, good | {"REDIS_URL": f"redis://:{PASSWORD}@{dead}/0"}),
        "beat without broker": (beat, good | {"REDIS_URL": f"redis://:{PASSWORD}@{dead}/0"}),
        "wrong key": (worker, good | {"SUPABASE_SECRET_KEY": "sb_secret_" + PASSWORD}),
        "old schema": (worker, good | {"DATABASE_URL": postgres.url("not_migrated")}),
        "flower without login": (("flower", f"--port={free_port()}"), good),
        "bad timetable": (worker, good),
        "no such handlers": (worker, good | {"TASK_HANDLERS": "acme.no_such_module"}),
        "beat with bad timetable": (beat, good),
    }
    running = {
        name: subprocess.Popen(
            [*(BAD_TIMETABLE if "bad timetable" in name else CELERY), "-A", "tasks", *options],
            env=clean_environment(**environment),
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, (options, environment) in cases.items()
    }
    try:
        yield {name: _ended(process) for name, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
            process.wait()
        postgres.drop_database("not_migrated")


def _ended(process: subprocess.Popen[str]) -> Ended:
    output, _ = process.communicate(timeout=120)
    return Ended(process.returncode, output)


@pytest.mark.parametrize("case", ["nothing set", "beat without settings"])
def test_every_missing_variable_is_named_at_once(ended: dict[str, Ended], case: str) -> None:
    said = ended[case].output

    assert ended[case].code == 2
    for name in ("DATABASE_URL", "REDIS_URL", "SUPABASE_URL", "SUPABASE_SECRET_KEY", "ENCRYPTION_KEYS"):
        assert f"{name}: is missing" in said
    assert "Traceback" not in said


def test_malformed_variables_are_named_with_what_they_should_look_like(ended: dict[str, Ended]) -> None:
    said = ended["several malformed"].output

    assert ended["several malformed"].code == 2
    assert "DATABASE_URL: should look like postgresql://" in said
    assert "SYNC_INTERVAL: should be a duration like 30s" in said
    assert "ENCRYPTION_KEYS: should be number:key pairs" in said


def test_a_module_of_handlers_that_is_not_there_is_named(ended: dict[str, Ended]) -> None:
    assert ended["no such handlers"].code == 2
    assert "TASK_HANDLERS names the module 'acme.no_such_module'" in ended["no such handlers"].output


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("no postgres", ("Postgres at 127.0.0.1", "DATABASE_URL")),
        ("no broker", ("Redis at 127.0.0.1", "REDIS_URL")),
        ("beat without broker", ("Redis at 127.0.0.1", "REDIS_URL")),
        ("wrong key", ("SUPABASE_SECRET_KEY",)),
        ("old schema", ("tenantsync db upgrade",)),
    ],
)
def test_an_unusable_server_ends_the_start_with_a_clear_message(
    ended: dict[str, Ended], case: str, words: tuple[str, ...]
) -> None:
    said = ended[case].output

    assert ended[case].code == 3
    assert all(word in said for word in words)
    assert "Traceback" not in said


@pytest.mark.parametrize("case", ["bad timetable", "beat with bad timetable"])
def test_a_timetable_that_cannot_be_followed_is_refused_with_every_wrong_entry(
    ended: dict[str, Ended], case: str
) -> None:
    said = ended[case].output

    assert ended[case].code == 2
    assert "entry 'empty' of beat_schedule.py names no task" in said
    assert "entry 'mistyped' of beat_schedule.py names the task 'retention.clean', which does not exist" in said
    assert "entry 'mistyped' of beat_schedule.py comes every 0:00:00" in said
    assert "entry 'mistyped' of beat_schedule.py has the policy 'never'" in said
    assert "Traceback" not in said


def test_flower_refuses_to_start_without_a_password(ended: dict[str, Ended]) -> None:
    assert ended["flower without login"].code == 2
    assert "FLOWER_BASIC_AUTH is missing" in ended["flower without login"].output


def test_no_message_repeats_a_secret(ended: dict[str, Ended]) -> None:
    assert not [name for name, one in ended.items() if PASSWORD in one.output]
