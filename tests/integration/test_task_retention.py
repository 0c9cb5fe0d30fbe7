"""What cleanup must leave alone: tasks that still wait or run, what names them, and ends that have not arrived."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from config.settings import Settings
from db import partitions
from db.ids import first_id_at, new_id
from db.repositories import ledger, retention, work
from db.repositories.work import NewTask
from tenantsync.processes import service
from tenantsync.retention import service as cleaning
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.stage import LEASE, Stage
from tests.support.waiting import wait_until

pytest_plugins = ["tests.support.stage_fixtures"]

STATUS = "select status from worker.tasks where id = :task"
LONG_AGO = datetime.now(UTC) - timedelta(days=150)
AGED = "update worker.tasks set updated_at = now() - interval '2 hours', lease_until = lease_until - interval '2 hours'"
WAITING = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"


class NoMirror:
    """A Supabase that has nothing to clean."""

    def purge(self, before: str) -> int:
        return 0

    def purge_processes(self, *, before: str, archived_before: str) -> int:
        return 0


@pytest.fixture
def take(stage: Stage) -> Callable[..., UUID]:
    """A task that was asked for at Supabase, with its process."""

    def make(task_id: UUID | None = None, **columns: Any) -> UUID:
        task = NewTask(
            task_id=task_id or new_id(),
            supabase_task_id=new_id(),
            tenant_id=stage.tenant.tenant_id,
            workspace_id=None,
            kind="orders.export",
            queue="tasks",
            payload={},
            requested_by="ann",
        )
        assert stage.do(lambda c: work.take(c, task))
        return stage.create(process_id=task.task_id)

    return make


@pytest.fixture
def cleanup(stage: Stage, settings: Settings) -> Callable[[], dict[str, int]]:
    return lambda: cleaning.cleanup(stage.database, NoMirror(), settings)


@pytest.fixture
def old_month(stage: Stage) -> Iterator[datetime]:
    """A month whose partitions are there, and that has aged out."""
    with stage.database.transaction() as connection:
        partitions.ensure_ahead(connection, now=LONG_AGO, months=0)
    yield LONG_AGO
    with stage.database.transaction() as connection:
        partitions.drop_before(connection, moment=datetime.now(UTC))


@pytest.mark.parametrize("state", ["pending", "running"])
def test_a_task_whose_process_is_open_is_no_orphan(stage: Stage, take: Callable[..., UUID], state: str) -> None:
    """Its ledger row's lease is that of its beginning: a run of hours renews its process' alone."""
    task = take()
    held = stage.begin(task) if state == "running" else None
    stage.execute(AGED)

    superseded = stage.do(retention.supersede_orphans)

    assert (superseded, stage.column(STATUS, task=task)) == (0, ["processing" if held else "pending"])
    held = held or stage.begin(task)
    stage.do(lambda c: service.complete(c, held=held))
    assert stage.column(STATUS, task=task) == ["completed"]


def test_a_task_without_its_process_ends_in_a_state_that_supabase_knows(
    stage: Stage, take: Callable[..., UUID]
) -> None:
    task = take()
    stage.execute("delete from process.processes where process_id = :task", task=task)
    stage.execute(AGED)

    assert stage.do(retention.supersede_orphans) == 1

    assert stage.column(STATUS, task=task) == ["failed"]


def test_a_task_that_waits_for_longer_than_history_is_kept_can_still_be_cancelled_at_supabase(
    stage: Stage, take: Callable[..., UUID], cleanup: Callable[[], dict[str, int]]
) -> None:
    waiting, over = take(), take()
    stage.ask(stage.begin(waiting))
    stage.wish("cancel", over)
    stage.execute("update worker.task_keys set created_at = now() - interval '91 days'")

    cleanup()

    assert stage.column("select task_id from worker.task_keys") == [waiting]


@pytest.mark.parametrize("where", ["outbox", "parked_rows"])
def test_a_month_of_tasks_stays_until_their_ends_have_arrived(
    stage: Stage, take: Callable[..., UUID], old_month: datetime, cleanup: Callable[[], dict[str, int]], where: str
) -> None:
    task = take(UUID(int=first_id_at(old_month).int + 1))
    stage.wish("cancel", task)
    if where == "parked_rows":
        stage.execute(
            "insert into mirror.parked_rows (tenant_id, entity, row_id, version, reason)"
            " select tenant_id, entity, row_id, version, 'test' from mirror.outbox where entity = 'tasks'"
        )
        stage.execute("delete from mirror.outbox")

    cleanup()
    before = stage.column(STATUS, task=task)
    stage.execute(f"delete from mirror.{where}")
    cleanup()

    assert (before, stage.column(STATUS, task=task)) == (["cancelled"], [])


def test_a_month_stays_as_long_as_one_of_its_tasks_that_was_asked_for_here_is_open(
    stage: Stage, old_month: datetime, cleanup: Callable[[], dict[str, int]]
) -> None:
    task = UUID(int=first_id_at(old_month).int + 1)
    stage.execute(
        "insert into worker.tasks (id, tenant_id, kind, queue, requested_by) values (:id, :t, 'k', 'tasks', 'ann')",
        id=task,
        t=stage.tenant.tenant_id,
    )
    stage.create(process_id=task)

    cleanup()

    assert stage.column(STATUS, task=task) == ["pending"]


def test_months_go_one_by_one_so_that_they_deadlock_with_nobody_who_writes_to_several(
    stage: Stage, old_month: datetime, cleanup: Callable[[], dict[str, int]]
) -> None:
    held = stage.begin()

    with ThreadPoolExecutor(1) as thread:
        with stage.database.transaction() as connection:
            service.renew(connection, held=held, lease=LEASE)
            service.start_step(connection, held=held, step="write")
            cleaning_up = thread.submit(cleanup)
            wait_until(lambda: stage.column(WAITING), about="a cleanup that waits")
            step = {"task_id": held.process_id, "tenant_id": held.tenant_id, "step_name": "write", "success": True}
            ledger.log_steps(connection, [{**step, "execution_time": 1, "details": None}])
        done = cleaning_up.result(20)

    assert done["partitions_dropped"] == len(partitions.PARTITIONED)
