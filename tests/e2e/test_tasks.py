"""Tasks through real Celery processes: what hangs is killed, what dies is tried again, what was done stays done."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest

from db.ids import new_id
from db.repositories import tenants
from sandbox.asking import Asking, Member, written_down
from sandbox.demo import TASKS
from sandbox.population import Planted
from sandbox.servers.process import ManagedProcess
from sandbox.telling import Teller
from sandbox.world import World
from tests.support.worlds import ask, eventually

pytestmark = pytest.mark.timeout(240)

PATIENCE = 40.0  # seconds; a run that hangs has three, and a task is tried four times whose worker dies


LOGGED = """
select step_name, count(*) from worker.execution_logs l join worker.tasks t on t.id = l.task_id
 where t.supabase_task_id = :task and l.success group by 1
"""
PROCESS = """
select p.retry_count, p.attempt, p.state from process.processes p join worker.tasks t on t.id = p.process_id
 where t.supabase_task_id = :task
"""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    quick = {"SYNC_INTERVAL": "1s", "SYNC_LEASE": "1s", "WORKER_SHUTDOWN_GRACE": "5s"}
    with World(overrides=quick) as running:
        running.keep_supabase_alive()
        running.start_worker("house", "wakeups,mirror,maintenance", concurrency=2)
        running.start_beat()
        yield running


@pytest.fixture(scope="module")
def office(world: World) -> tuple[UUID, UUID]:
    """A tenant and its workspace."""
    with world.database.transaction() as connection:
        tenant = tenants.add_tenant(connection, name="acme")
        return tenant, tenants.add_workspace(connection, tenant_id=tenant, name="office")


@pytest.fixture
def tasks_worker(world: World) -> ManagedProcess:
    """The one worker for tasks, with one child; a new one where a test has ended the last."""
    alive = [one for name, one in world.processes.items() if name.startswith("tasks-") and one.alive]
    return alive[0] if alive else world.start_worker(f"tasks-{new_id().hex[-6:]}", "tasks", concurrency=1)


@pytest.fixture
def as_member(world: World, office: tuple[UUID, UUID]) -> Iterator[httpx.Client]:
    """Our API, called with what a member has from Supabase."""
    world.start_web()
    token = world.supabase.user_token(office[0])
    address = f"http://127.0.0.1:{world.web_port}/api/v1"
    with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token}"}, trust_env=False) as client:
        yield client


@pytest.fixture
def member(world: World, office: tuple[UUID, UUID]) -> Iterator[Member]:
    with Member(world, *office) as signed_in:
        yield signed_in


def await_end(member: Member, task: str) -> dict[str, Any]:
    ends = ("completed", "failed", "cancelled")
    eventually(lambda: member.see(task)["status"] in ends, f"the end of task {task}", timeout=PATIENCE)
    return member.see(task)


def steps_done(world: World) -> int:
    (row,) = ask(world, "select coalesce(max(completed_steps), 0) from process.processes where state = 'running'")
    return int(row[0])


def test_the_demos_tasks_come_back_fail_and_ask_as_it_tells(
    world: World, office: tuple[UUID, UUID], tasks_worker: ManagedProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    told = Asking(world, Teller(), Planted(office[0], "acme")).run()

    said = capsys.readouterr().out
    assert told == TASKS
    assert "2026年11月16日からの一週間（Asia/Tokyo）" in said
    assert "failed: TaskFailed: the room is taken on that day; choose another" in said
    assert "it asks: Which day suits everybody? Monday / Wednesday / Friday; the answer is Wednesday" in said
    assert "{'chosen': 'Wednesday', 'options': 3}" in said


def test_a_script_asks_for_a_task_as_make_up_says(
    world: World, office: tuple[UUID, UUID], member: Member, tasks_worker: ManagedProcess
) -> None:
    script = written_down(world, Planted(office[0], "acme"))

    asked = subprocess.run(["sh", script, "demo.slow", '{"steps": 1, "seconds": 0}'], capture_output=True, check=True)

    (row,) = json.loads(asked.stdout)
    assert await_end(member, row["id"])["result"] == {"steps": 1, "attempts": 1}


def test_a_member_asks_our_api_with_the_token_that_supabase_gave(
    as_member: httpx.Client, office: tuple[UUID, UUID], tasks_worker: ManagedProcess
) -> None:
    asked = as_member.post("/tasks", json={"kind": "demo.slow", "payload": {"steps": 1, "seconds": 0}}).json()
    task = f"/tasks/{asked['task_id']}"
    eventually(lambda: as_member.get(task).json()["status"] == "completed", f"the end of {task}", timeout=PATIENCE)

    processes = as_member.get("/processes").json()["items"]
    stream = as_member.get(f"/processes/{asked['task_id']}/stream", params={"follow": "false"})

    assert as_member.get(task).json()["result"] == {"steps": 1, "attempts": 1}
    assert as_member.get("/tasks").json()["items"][0]["task_id"] == asked["task_id"]
    assert (processes[0]["process_id"], processes[0]["state"]) == (asked["task_id"], "completed")
    assert "process_completed" in stream.text


def test_a_child_that_hangs_is_killed_and_its_task_says_why(
    world: World, member: Member, tasks_worker: ManagedProcess
) -> None:
    (child,) = children(tasks_worker)

    task = member.ask("demo.fail", {"how": "hang"})

    assert await_end(member, task)["error_message"] == "did not finish within 3 s"
    eventually(lambda: not child.is_running(), "the end of the child that hangs", timeout=15)


def test_a_task_that_kills_its_worker_is_given_up(member: Member, tasks_worker: ManagedProcess) -> None:
    task = member.ask("demo.fail", {"how": "death"})

    seen = await_end(member, task)

    assert seen["status"] == "failed"
    assert "its worker was lost" in seen["error_message"]
    assert "for the 4. time" in seen["error_message"]


def test_a_task_goes_on_where_it_stood_when_its_worker_is_stopped_and_when_it_is_killed(
    world: World, member: Member, tasks_worker: ManagedProcess
) -> None:
    task = member.ask("demo.slow", {"steps": 12, "seconds": 0.2})
    eventually(lambda: steps_done(world) >= 2, "two steps of a task")
    os.kill(tasks_worker.pid or 0, signal.SIGTERM)
    eventually(lambda: not tasks_worker.alive, "the end of the worker", timeout=12)
    (handed_back,) = ask(world, PROCESS, task=task)
    second = world.start_worker("tasks-second", "tasks", concurrency=1)
    eventually(lambda: steps_done(world) >= 6, "six steps of a task")
    second.kill()
    world.start_worker("tasks-third", "tasks", concurrency=1)

    seen = await_end(member, task)

    logged = ask(world, LOGGED, task=task)
    assert handed_back == (0, 1, "pending")
    assert seen["result"] == {"steps": 12, "attempts": 3}
    assert {name for name, _ in logged} == {f"step {number}" for number in range(1, 13)}
    assert {count for _, count in logged} == {1}


def children(worker: ManagedProcess) -> list[psutil.Process]:
    return [one for one in psutil.Process(worker.pid).children() if one.is_running()]
