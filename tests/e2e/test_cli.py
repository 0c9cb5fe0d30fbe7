"""The command line as an operator types it: what it answers, what it refuses, and its exit codes."""

import getpass
import json
import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pytest_celery import CeleryTestSetup
from typer.testing import CliRunner

from sandbox.google.control import GoogleControl
from sandbox.world import World
from tenantsync.cli import app
from tests.support.worlds import event, eventually

pytestmark = pytest.mark.timeout(180)
CHECKOUT = Path(__file__).resolve().parent.parent.parent

Answer = tuple[int, dict[str, Any]]
Run = Callable[..., Answer]


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch, celery_setup: CeleryTestSetup) -> Iterator[Run]:
    """Runs a command with --json in this process; answers exit code and the JSON object."""
    for name, value in world.product_environment().items():
        monkeypatch.setenv(name, value)
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level

    def command(*words: str, stdin: str | None = None) -> Answer:
        result = CliRunner().invoke(app, [*words, "--json"], input=stdin, catch_exceptions=False)
        return result.exit_code, json.loads(result.stdout.splitlines()[-1]) if result.stdout else {}

    yield command
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


@pytest.fixture
def tenant(run: Run) -> str:
    """The name of a tenant with a workspace `office`."""
    name = f"cli-{uuid4().hex[:8]}"
    assert run("tenant", "add", name)[0] == 0
    assert run("workspace", "add", name, "office")[0] == 0
    return name


def connect(run: Run, google: GoogleControl, tenant: str) -> tuple[str, Answer]:
    """Connect a new Google account with one event; (its credentials, the answer)."""
    email = f"{tenant}@example.test"
    credentials = json.dumps({"refresh_token": google.create_account(email).refresh_token})
    google.insert(email, email, event("planning"))
    return credentials, run("account", "add", tenant, "office", "google", stdin=credentials)


def test_an_operator_connects_an_account_syncs_it_and_sees_it_proven(
    run: Run, google: GoogleControl, tenant: str
) -> None:
    _, (code, account) = connect(run, google, tenant)
    synced = run("sync", "now", tenant, "--wait", "30")
    audit = run("audit", "--tenant", tenant)
    status = run("status", "--tenant", tenant)

    assert (code, account["calendars"], account["reconnected"]) == (0, 1, False)
    assert (synced[0], synced[1]["calendars"]) == (0, 1)
    assert (audit[0], audit[1]["proven"], audit[1]["drift"]) == (0, 1, 0)
    assert audit[1]["mirror"]["rows"] >= 3  # account, calendar, event; and the syncs that people watch
    assert [one["events"] for one in status[1]["tenants"]] == [1]


def test_a_duplicate_account_is_refused_and_changes_nothing(run: Run, google: GoogleControl, tenant: str) -> None:
    credentials, _ = connect(run, google, tenant)
    run("sync", "now", tenant, "--wait", "30")
    before = run("account", "list", tenant)[1]["accounts"]

    code, answer = run("account", "add", tenant, "office", "google", stdin=credentials)

    assert code == 1
    assert "already has this account" in answer["error"]
    assert run("account", "list", tenant)[1]["accounts"] == before


def test_a_removed_account_leaves_no_events_and_no_credentials(
    run: Run, world: World, google: GoogleControl, tenant: str
) -> None:
    _, (_, account) = connect(run, google, tenant)
    account_id = account["account_id"]
    run("sync", "now", tenant, "--wait", "30")

    removed = run("account", "remove", tenant, account_id)

    assert removed[0] == 0
    assert run("status", "--tenant", tenant)[1]["tenants"][0]["events"] == 0
    assert run("account", "list", tenant)[1]["accounts"] == []
    assert run("account", "remove", tenant, account_id)[0] == 1


@pytest.mark.parametrize(
    ("words", "stdin", "reason"),
    [
        (("tenant", "pause", "nobody"), None, "There is no tenant 'nobody'"),
        (("sync", "now", "nobody"), None, "There is no tenant 'nobody'"),
        (("why", "nobody"), None, "There is no tenant and no unit 'nobody'"),
        (("workspace", "add", "nobody", "x"), None, "There is no tenant 'nobody'"),
        (("account", "add", "TENANT", "attic", "google"), "{}", "no workspace 'attic'"),
        (("account", "add", "TENANT", "office", "google"), "not json", "should be one JSON object"),
        (("account", "add", "TENANT", "office", "google"), '{"token": "x"}', "should be one JSON object"),
        (
            ("account", "add", "TENANT", "office", "google"),
            '{"refresh_token": "1//wrong"}',
            "refuses these credentials",
        ),
        (("account", "add", "TENANT", "office", "google", "--url", "https://x.test"), "{}", "--url is for caldav"),
        (("account", "add", "TENANT", "office", "caldav"), "{}", "--url is for caldav"),
        (("account", "remove", "TENANT", "01890000-0000-7000-8000-000000000000"), None, "no account"),
        (("tenant", "add", "TENANT"), None, "is taken"),
        (("workspace", "add", "TENANT", "office"), None, "is taken"),
        (("tenant", "add", "  "), None, "1 to 200 printable characters"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_reason(
    run: Run, tenant: str, words: tuple[str, ...], stdin: str | None, reason: str
) -> None:
    code, answer = run(*(tenant if word == "TENANT" else word for word in words), stdin=stdin)

    assert code == 1
    assert reason in answer["error"]


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/",
        "https://169.254.169.254/",
        "http://10.0.0.1/dav/",
        "https://[fd00::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://192.168.1.1/",
    ],
)
def test_a_caldav_address_inside_the_network_is_refused(run: Run, tenant: str, url: str) -> None:
    credentials = '{"username": "u", "password": "p"}'

    code, answer = run("account", "add", tenant, "office", "caldav", "--url", url, stdin=credentials)

    assert code == 1
    assert "is not a place that a tenant's address may lead to" in answer["error"]


def test_wrong_usage_is_exit_code_two() -> None:
    assert CliRunner().invoke(app, ["tenant", "add"]).exit_code == 2
    assert CliRunner().invoke(app, ["account", "add", "t", "w", "outlook"]).exit_code == 2


def test_a_paused_tenant_does_not_run_and_a_resumed_one_does(run: Run, google: GoogleControl, tenant: str) -> None:
    connect(run, google, tenant)
    run("sync", "now", tenant, "--wait", "30")

    run("tenant", "pause", tenant, "--reason", "moving house")
    refused = run("sync", "now", tenant, "--wait", "2")
    status = run("status", "--tenant", tenant)[1]["tenants"][0]
    run("tenant", "resume", tenant)
    done = run("sync", "now", tenant, "--wait", "30")

    assert refused[0] == 1
    assert "not paused" in refused[1]["error"]
    assert (status["paused"], status["pause_reason"]) == (True, "moving house")
    assert done[0] == 0


def test_a_share_can_be_set_and_says_what_it_is_now(run: Run, tenant: str) -> None:
    weight = run("tenant", "set", tenant, "--weight", "2.5")
    both = run("tenant", "set", tenant, "--concurrency", "7")

    assert (weight[0], weight[1]["weight"]) == (0, 2.5)
    assert (both[0], both[1]["weight"], both[1]["concurrency"]) == (0, 2.5, 7)


@pytest.mark.parametrize(
    ("words", "about"),
    [
        (("--weight", "0"), "--weight"),
        (("--weight", "-1"), "--weight"),
        (("--weight", "101"), "--weight"),
        (("--weight", "nan"), "--weight"),
        (("--concurrency", "0"), "pause it"),
        (("--concurrency", "1001"), "--concurrency"),
        ((), "--weight, --concurrency"),
    ],
)
def test_a_share_out_of_range_is_refused_and_changes_nothing(
    run: Run, tenant: str, words: tuple[str, ...], about: str
) -> None:
    code, answer = run("tenant", "set", tenant, *words)

    assert code == 1
    assert about in answer["error"]
    assert run("tenant", "set", tenant, "--weight", "1")[1]["concurrency"] == 50


def test_pausing_or_resuming_twice_is_no_error_and_says_so(run: Run, tenant: str) -> None:
    answers = [run("tenant", word, tenant) for word in ("resume", "pause", "pause", "resume", "resume")]

    assert [(code, answer["changed"]) for code, answer in answers] == [
        (0, False),
        (0, True),
        (0, False),
        (0, True),
        (0, False),
    ]


def test_a_pause_needs_a_reason_that_can_be_read_later(run: Run, tenant: str) -> None:
    code, answer = run("tenant", "pause", tenant, "--reason", "x" * 501)

    assert code == 1
    assert "500" in answer["error"]


def test_why_tells_who_paused_a_tenant_and_when_the_next_run_is(run: Run, google: GoogleControl, tenant: str) -> None:
    connect(run, google, tenant)
    run("sync", "now", tenant, "--wait", "30")
    free = run("why", tenant)
    run("tenant", "pause", tenant, "--reason", "migration")

    code, answer = run("why", f"{tenant}/office")

    (before,), (unit,) = free[1]["units"], answer["units"]
    (link,) = [one for one in unit["chain"] if one["kind"] == "paused"]
    assert (free[0], code) == (0, 0)
    assert before["runs_at"] is not None
    assert link["text"].startswith(f"paused by {getpass.getuser()} on ")
    assert link["text"].endswith(" UTC: migration")
    assert (unit["tenant"], unit["runs_at"], unit["lost"]) == (tenant, None, False)


def test_status_shows_that_the_ledger_closes(run: Run, world: World, google: GoogleControl, tenant: str) -> None:
    connect(run, google, tenant)
    run("sync", "now", tenant, "--wait", "30")

    def closed() -> bool:
        ledger = run("status")[1]["ledger"]
        return ledger is not None and ledger["checked"] > 0 and ledger["expected"] > 0

    eventually(closed, "an audit of the ledger is completed")
    ledger = run("status")[1]["ledger"]
    assert (ledger["missing"], ledger["doubled"], ledger["names"]) == (0, 0, [])
    assert ledger["expected"] == ledger["accounted"]


def test_doctor_finds_a_healthy_world_healthy(run: Run) -> None:
    code, answer = run("doctor")

    assert [one for one in answer["findings"] if one["level"] == "fail"] == []
    assert code == 0


def test_doctor_names_every_server_that_does_not_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:secret-word@127.0.0.1:1/d")
    monkeypatch.setenv("DIRECT_URL", "postgresql://u:secret-word@127.0.0.1:1/d")
    monkeypatch.setenv("REDIS_URL", "redis://:secret-word@127.0.0.1:1/0")
    monkeypatch.setenv("SUPABASE_URL", "http://127.0.0.1:1")

    code, answer = run("doctor")

    failed = {one["about"] for one in answer["findings"] if one["level"] == "fail"}
    assert code == 1
    assert {"postgres", "direct", "redis", "supabase"} <= failed
    assert "secret-word" not in json.dumps(answer)


def test_every_change_by_hand_is_in_the_audit_log(run: Run, world: World, tenant: str) -> None:
    run("tenant", "pause", tenant)

    with world.postgres.connect("tenantsync") as connection, connection.cursor() as cursor:
        cursor.execute(
            "select action from worker.audit_logs join sync.tenants using (tenant_id) where name = %s order by id",
            (tenant,),
        )
        actions = [row[0] for row in cursor.fetchall()]
    assert actions == ["tenant.add", "workspace.add", "tenant.pause"]


def test_the_script_works_from_any_folder(world: World, tmp_path: Path) -> None:
    environment = {**world.product_environment(), "PATH": os.environ["PATH"]}

    done = subprocess.run(
        [CHECKOUT / "bin" / "tenantsync", "db", "check"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "is this code's" in done.stdout


def test_keys_generate_needs_no_settings_and_makes_a_usable_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)

    result = CliRunner().invoke(app, ["keys", "generate", "--json"])

    assert result.exit_code == 0
    assert len(json.loads(result.stdout)["key"]) == 44
