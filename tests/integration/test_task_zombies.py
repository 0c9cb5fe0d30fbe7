"""Workers that are killed, or stopped for as long as others take over, at race points on a task's way."""

import signal
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess

import psutil
import pytest

from tests.support import doomed
from tests.support.desk import Desk
from tests.support.fleet import TenantHandle
from tests.support.mirror import assert_mirror_equals_postgres, outbox
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.waiting import wait_until

pytest_plugins = ["tests.support.supabase_fixtures", "tests.support.desk_fixtures"]

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

KILLED = ("task.taken", "task.sending", "task.ending", "outbox.sent")
STOPPED = ("task.taking", "task.begun", "task.ending", "outbox.rows_read")
TIME_PASSES = """
update process.processes set lease_until = now() - interval '1 second' where state in ('pending', 'running');
update mirror.turns set lease_until = now() - interval '1 second', ready_at = now() where lease_until is not null;
update process.snapshots set due_at = now() where due_at is not null
"""
FOUND = """
select p.state, t.status, p.attempt, p.last_sequence, (select count(*) from process.events) as events,
       (select count(*) from process.events where event_type = 'process_completed') as ends,
       (select count(*) from process.events where event_type = 'step_completed') as steps
  from process.processes p join worker.tasks t on t.id = p.process_id
"""
Start = Callable[[str, signal.Signals], BaseProcess]


@pytest.fixture
def start(desk: Desk, database_url: str) -> Iterator[Start]:  # noqa: F811
    """Starts a worker that gets a signal at a point."""
    desk.handlers._by_kind.pop("letters.write")
    doomed.add_handler(desk.handlers, desk.database)
    desk.fleet.execute("create table executed (task_id uuid, step text, pid integer)")
    started: list[BaseProcess] = []

    def go(point: str, end: signal.Signals) -> BaseProcess:
        one = doomed.start(database_url, desk.mirror.proxy.url, desk.mirror.lite.secret_key, point=point, end=end)
        started.append(one)
        return one

    yield go
    for one in started:
        one.kill()
        one.join(10)
    desk.fleet.execute("drop table executed")


def take_over(desk: Desk) -> None:
    """What others do, once leases have ended."""
    for _ in range(2):
        desk.fleet.execute(TIME_PASSES)
        desk.tend()
        desk.take_in()
        desk.work()
        desk.bring_back()


def all_is_well(desk: Desk) -> None:
    """The one task is done and told once, here and at Supabase."""
    found = desk.fleet.one(FOUND)
    assert (found["state"], found["status"], found["ends"], found["steps"]) == ("completed", "completed", 1, 2)
    assert found["events"] == found["last_sequence"]
    assert outbox(desk.database) == {}
    assert_mirror_equals_postgres(desk.database, desk.mirror)


@pytest.mark.parametrize("point", KILLED)
def test_a_worker_that_is_killed_leaves_nothing_half_done(
    desk: Desk, asker: TenantHandle, start: Start, point: str
) -> None:
    desk.ask(asker)
    worker = start(point, signal.SIGKILL)
    worker.join(20)

    take_over(desk)

    assert worker.exitcode == -signal.SIGKILL
    all_is_well(desk)
    done = desk.fleet.rows("select step, count(*) as n from executed group by 1")
    assert {row["step"]: row["n"] for row in done} == {"compose": 1, "send": 1}


@pytest.mark.parametrize("point", STOPPED)
def test_a_worker_that_wakes_after_others_took_over_changes_nothing(
    desk: Desk, asker: TenantHandle, start: Start, point: str
) -> None:
    desk.ask(asker)
    worker = start(point, signal.SIGSTOP)
    assert worker.pid is not None
    stopped = psutil.Process(worker.pid)
    wait_until(lambda: stopped.status() == psutil.STATUS_STOPPED, about="a worker that stops")

    take_over(desk)
    all_is_well(desk)
    before = desk.fleet.one(FOUND)
    stopped.send_signal(signal.SIGCONT)
    worker.join(20)

    assert worker.exitcode == 0
    desk.bring_back()
    all_is_well(desk)
    assert desk.fleet.one(FOUND) == before
