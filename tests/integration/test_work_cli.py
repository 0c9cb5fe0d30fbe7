"""`tenantsync task`: what was asked for, at Supabase or here, seen and cancelled by an operator."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from tenantsync.cli import app
from tenantsync.work import handlers, intake
from tests.support.desk import Desk
from tests.support.fleet import KEY, TenantHandle
from tests.support.shared_database import database_url, shared_database
from tests.support.web import Web

pytest_plugins = ["tests.support.supabase_fixtures", "tests.support.desk_fixtures", "tests.support.web_fixtures"]
__all__ = ["database_url", "shared_database"]

pytestmark = pytest.mark.timeout(300)

Command = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def command(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Runs `tenantsync task …` with --json: exit code and answer."""
    given = {"REDIS_URL": "redis://127.0.0.1:1/0", "SUPABASE_URL": "http://127.0.0.1:1", "ENCRYPTION_KEYS": f"1:{KEY}"}
    for name, value in {"DATABASE_URL": database_url, "SUPABASE_SECRET_KEY": "sb_secret_x", **given}.items():
        monkeypatch.setenv(name, value)
    before, level = logging.getLogger().handlers[:], logging.getLogger().level

    def run(*words: str) -> tuple[int, dict[str, Any]]:
        result = CliRunner().invoke(app, ["task", *words, "--json"], catch_exceptions=False)
        return result.exit_code, json.loads(result.stdout.splitlines()[-1])

    yield run
    logging.getLogger().handlers[:] = before
    logging.getLogger().setLevel(level)


def test_tasks_are_listed_by_tenant_status_and_kind(desk: Desk, asker: TenantHandle, command: Command) -> None:
    other = desk.fleet.tenant("other")
    good, bad = desk.ask(asker), desk.ask(asker, "letters.refuse")
    desk.done(desk.ask(other))

    def listed(*words: str) -> set[str]:
        return {one["supabase_task_id"] for one in command("list", *words)[1]["tasks"]}

    assert listed("--tenant", asker.name) == {str(good), str(bad)}
    assert listed("--status", "failed") == {str(bad)}
    assert listed("--kind", "letters.write", "--tenant", asker.name) == {str(good)}
    assert len(command("list", "--limit", "1")[1]["tasks"]) == 1
    assert command("list", "--tenant", "nobody")[0] == 1


def test_a_task_is_shown_by_either_id_with_its_steps(desk: Desk, asker: TenantHandle, command: Command) -> None:
    asked = desk.ask(asker, payload={"words": ["hello"]})
    desk.done(asked)

    code, seen = command("show", str(asked))

    assert code == 0
    assert (seen["task"]["status"], seen["task"]["result"]) == ("completed", {"text": "hello", "copies": 1})
    assert [one["step_name"] for one in seen["steps"]] == ["compose"]
    assert command("show", str(desk.id_of(asked)))[1]["task"]["supabase_task_id"] == str(asked)
    assert "There is no task" in command("show", str(uuid4()))[1]["error"]


def test_a_task_is_cancelled_and_one_that_is_over_says_so(desk: Desk, asker: TenantHandle, command: Command) -> None:
    asked, refused = desk.ask(asker), desk.ask(asker, "letters.burn")
    desk.take_in()

    assert command("cancel", str(asked)) == (0, {"ok": True, "task_id": str(desk.id_of(asked)), "cancelled": True})
    assert command("cancel", str(asked))[1]["error"] == "the process is cancelled already"
    assert "refused when it was taken in" in command("cancel", str(refused))[1]["error"]
    desk.bring_back()
    assert desk.seen(asked)["status"] == "cancelled"
    (logged,) = desk.fleet.rows("select actor from worker.audit_logs where action = 'process.cancel'")
    assert logged["actor"].startswith("cli:")


def test_what_was_asked_through_the_api_is_listed_beside_what_supabase_asked(
    desk: Desk, asker: TenantHandle, web: Web, command: Command
) -> None:
    member = web.bearer(tenant_id=asker.tenant_id)
    at_supabase = desk.ask(asker)
    desk.take_in()
    here = member.post("/api/v1/tasks", json={"kind": "calendar.sync_now"}).json()["task_id"]
    both = [here, str(desk.id_of(at_supabase))]

    listed = [one["task_id"] for one in command("list", "--tenant", asker.name)[1]["tasks"]]
    by_the_api = [one["task_id"] for one in member.get("/api/v1/tasks").json()["items"]]
    shown = command("show", here)[1]["task"]
    cancelled = command("cancel", here)

    assert listed == by_the_api == both
    assert (shown["tenant"], shown["kind"], shown["state"]) == (asker.name, "calendar.sync_now", "pending")
    assert cancelled == (0, {"ok": True, "task_id": here, "cancelled": True})
    assert member.get(f"/api/v1/tasks/{here}").json()["status"] == "cancelled"


def test_a_task_of_the_api_is_tried_as_often_as_one_from_supabase(desk: Desk, asker: TenantHandle, web: Web) -> None:
    asked = {"kind": "calendar.sync_now", "priority": 2}
    desk.ask(asker, **asked)
    here = asked | {"workspace_id": str(asker.workspace_id)}

    intake.take_in(desk.database, desk.source, handlers.load())
    web.bearer(tenant_id=asker.tenant_id).post("/api/v1/tasks", json=here).raise_for_status()

    rows = desk.fleet.rows("select workspace_id, kind, title, priority, queue, max_retries from process.processes")
    assert len(rows) == 2
    assert rows[0] == rows[1]
