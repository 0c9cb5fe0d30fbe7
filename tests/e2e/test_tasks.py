"""Tasks through real Celery processes: what hangs is killed, what dies is tried again, what was done stays done."""

import os
import signal
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest

from db.ids import new_id
from db.repositories import tenants
from sandbox.servers.process import ManagedProcess
from sandbox.world import World
from supabase import ClientOptions, create_client
from tests.support.worlds import ask, eventually

pytestmark = pytest.mark.timeout(240)

PATIENCE = 40.0  # seconds; a run that hangs has three, and a task is tried four times whose worker dies


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


class Member:
    """A member of the tenant with supabase-py."""

    def __init__(self, world: World, office: tuple[UUID, UUID]) -> None:
        self._tenant, self._workspace = office
        token = world.supabase.user_token(self._tenant)
        self.http = httpx.Client(timeout=10, trust_env=False)
        options = ClientOptions(headers={"Authorization": f"Bearer {token}"}, httpx_client=self.http)
        self._client = create_client(world.supabase.url, world.supabase.publishable_key, options)
        self._world = world

    def ask(self, kind: str, payload: dict[str, Any]) -> str:
        row = {"tenant_id": str(self._tenant), "workspace_id": str(self._workspace), "kind": kind, "payload": payload}
        answer = self._client.table("tasks").insert(row).execute()
        return str(answer.data[0]["id"])  # type: ignore[index,call-overload]

    def see(self, task: str) -> dict[str, Any]:
        rows: Any = self._client.table("tasks").select("*").eq("id", task).execute().data
        found: dict[str, Any] = rows[0]
        return found

    def await_end(self, task: str) -> dict[str, Any]:
        ends = ("completed", "failed", "cancelled")
        eventually(lambda: self.see(task)["status"] in ends, f"the end of task {task}", timeout=PATIENCE)
        return self.see(task)


@pytest.fixture
def member(world: World, office: tuple[UUID, UUID]) -> Iterator[Member]:
    signed_in = Member(world, office)
    yield signed_in
    signed_in.http.close()


def steps_done(world: World) -> int:
    (row,) = ask(world, "select coalesce(max(completed_steps), 0) from process.processes where state = 'running'")
    return int(row[0])


def test_a_task_asked_for_by_a_member_comes_back(member: Member, tasks_worker: ManagedProcess) -> None:
    task = member.ask("calendar.report", {"week_start": "2026-11-02", "time_zone": "Asia/Tokyo", "language": "ja"})

    seen = member.await_end(task)

    assert (seen["status"], seen["error_message"]) == ("completed", None)
    assert seen["result"]["text"].startswith("2026年11月2日からの一週間（Asia/Tokyo）")


def test_a_child_that_hangs_is_killed_and_its_task_says_why(
    world: World, member: Member, tasks_worker: ManagedProcess
) -> None:
    (child,) = children(tasks_worker)

    task = member.ask("demo.fail", {"how": "hang"})

    assert member.await_end(task)["error_message"] == "did not finish within 3 s"
    eventually(lambda: not child.is_running(), "the end of the child that hangs", timeout=15)


def test_a_task_that_kills_its_worker_is_given_up(member: Member, tasks_worker: ManagedProcess) -> None:
    task = member.ask("demo.fail", {"how": "death"})

    seen = member.await_end(task)

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
    (handed_back,) = ask(world, "select retry_count, attempt, state from process.processes where kind = 'demo.slow'")
    second = world.start_worker("tasks-second", "tasks", concurrency=1)
    eventually(lambda: steps_done(world) >= 6, "six steps of a task")
    second.kill()
    world.start_worker("tasks-third", "tasks", concurrency=1)

    seen = member.await_end(task)

    logged = ask(
        world,
        "select step_name, count(*) from worker.execution_logs where success and step_name like 'step %' group by 1",
    )
    assert handed_back == (0, 1, "pending")
    assert seen["result"] == {"steps": 12, "attempts": 3}
    assert {name for name, _ in logged} == {f"step {number}" for number in range(1, 13)}
    assert {count for _, count in logged} == {1}


def children(worker: ManagedProcess) -> list[psutil.Process]:
    return [one for one in psutil.Process(worker.pid).children() if one.is_running()]
