"""Whose task is next: in turns across tenants, no more than workers can run, each run once however many take part."""

import multiprocessing
from collections import Counter
from uuid import UUID

import pytest

from db.ids import new_id
from db.repositories import tenants
from tests.support import desk_process
from tests.support.desk import Desk
from tests.support.fleet import TenantHandle
from tests.support.shared_database import database_url, shared_database

pytest_plugins = ["tests.support.supabase_fixtures", "tests.support.desk_fixtures"]
__all__ = ["database_url", "shared_database"]

pytestmark = pytest.mark.timeout(300)

WORKERS = 8
PLANT = """
insert into process.processes (process_id, tenant_id, kind, queue, priority)
select id, :tenant, 'letters.write', 'tasks', :priority from unnest(cast(:ids as uuid[])) as i(id)
"""


def plant(desk: Desk, tenant: TenantHandle, number: int, *, priority: int = 5) -> list[UUID]:
    """Pending processes, without the trouble of asking for them."""
    ids = [new_id() for _ in range(number)]
    desk.fleet.execute(PLANT, tenant=tenant.tenant_id, ids=ids, priority=priority)
    return ids


def owners(desk: Desk, sent: list[UUID]) -> list[UUID]:
    rows = desk.fleet.rows("select process_id, tenant_id from process.processes")
    of = {row["process_id"]: row["tenant_id"] for row in rows}
    return [of[one] for one in sent]


def test_nothing_is_sent_while_no_worker_lives(desk: Desk, asker: TenantHandle) -> None:
    plant(desk, asker, 3)
    desk.worker()
    desk.fleet.execute("update worker.workers set heartbeat_at = now() - interval '6 seconds'")

    assert desk.hand_out() == []


def test_what_is_sent_is_what_live_workers_can_run_and_a_little(desk: Desk, asker: TenantHandle) -> None:
    plant(desk, asker, 20)
    desk.worker("tasks@one", slots=3)
    desk.worker("tasks@two", slots=2)

    assert (len(desk.hand_out()), len(desk.hand_out())) == (7, 0)


def test_a_task_that_did_not_begin_in_time_is_sent_again(desk: Desk, asker: TenantHandle) -> None:
    (planted,) = plant(desk, asker, 1)
    desk.worker()
    assert desk.hand_out() == [planted]

    desk.fleet.execute("update process.processes set lease_until = lease_until - interval '8 seconds'")

    assert desk.hand_out() == [planted]


def test_what_runs_takes_a_slot_until_its_lease_ends(desk: Desk, asker: TenantHandle) -> None:
    plant(desk, asker, 10)
    desk.worker(slots=2)
    sent = desk.hand_out()
    desk.fleet.execute(
        "update process.processes set state = 'running', attempt = 1, lease_until = now() + interval '5 seconds'"
        " where process_id = any(:ids)",
        ids=sent[:3],
    )
    assert len(sent) == 4

    assert desk.hand_out() == []
    desk.fleet.execute("update process.processes set lease_until = now() - interval '1 second' where state = 'running'")
    assert len(desk.hand_out()) == 3


def test_the_most_urgent_of_a_tenant_goes_first_then_the_oldest(desk: Desk, asker: TenantHandle) -> None:
    usual, urgent, late = plant(desk, asker, 2), plant(desk, asker, 2, priority=1), plant(desk, asker, 2, priority=9)
    desk.worker(slots=4)

    assert desk.hand_out() == urgent + usual + late


def test_a_tenant_with_many_urgent_tasks_holds_up_nobody(desk: Desk, asker: TenantHandle) -> None:
    plant(desk, asker, 5_000, priority=1)
    others = [desk.fleet.tenant() for _ in range(5)]
    for other in others:
        plant(desk, other, 2, priority=9)
    desk.worker(slots=10)

    sent = owners(desk, desk.hand_out())

    assert Counter(sent) == {asker.tenant_id: 2, **{other.tenant_id: 2 for other in others}}


def test_what_a_tenant_has_already_counts_for_its_turn(desk: Desk, asker: TenantHandle) -> None:
    plant(desk, asker, 10)
    desk.worker(slots=2)
    desk.hand_out()
    other = desk.fleet.tenant()
    plant(desk, other, 10)
    desk.worker(slots=6)

    assert set(owners(desk, desk.hand_out())) == {other.tenant_id}


def test_a_tenants_weight_is_its_share(desk: Desk, asker: TenantHandle) -> None:
    other = desk.fleet.tenant()
    with desk.database.transaction() as connection:
        tenants.set_share(connection, tenant_id=asker.tenant_id, weight=3, concurrency=None)
    plant(desk, asker, 20)
    plant(desk, other, 20)
    desk.worker(slots=6)

    assert Counter(owners(desk, desk.hand_out())) == {asker.tenant_id: 6, other.tenant_id: 2}


def test_a_paused_tenants_tasks_wait(desk: Desk, asker: TenantHandle) -> None:
    asked = desk.ask(asker)
    desk.take_in()
    desk.worker()
    sent = desk.hand_out()
    desk.fleet.execute("update sync.tenants set paused = true")

    assert desk.run(sent[0]) is None
    desk.fleet.execute("update process.processes set lease_until = null")
    assert desk.work() == []
    assert desk.task(asked)["status"] == "pending"

    desk.fleet.execute("update sync.tenants set paused = false")
    assert desk.work() == ["completed"]


def test_a_task_that_is_put_off_neither_goes_nor_takes_a_slot(desk: Desk, asker: TenantHandle) -> None:
    plant(desk, asker, 2)
    desk.fleet.execute("update process.processes set lease_until = now() + interval '1 minute'")
    ready = plant(desk, asker, 5)
    desk.worker(slots=2)

    assert desk.hand_out() == ready[:4]


def test_eight_workers_that_take_in_hand_out_and_run_do_every_step_of_every_task_once(
    desk: Desk, asker: TenantHandle, database_url: str
) -> None:
    desk.fleet.execute("create table executed (task_id uuid, step text, pid integer)")
    crowd = [asker, *(desk.fleet.tenant() for _ in range(3))]
    asked = [desk.ask(crowd[number % 4], payload={"copies": number % 9 + 1}) for number in range(64)]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.desk_process"])
    arguments = (database_url, desk.mirror.proxy.url, desk.mirror.lite.secret_key, len(asked))
    crew = [context.Process(target=desk_process.work, args=arguments) for _ in range(WORKERS)]

    for one in crew:
        one.start()
    for one in crew:
        one.join(100)

    did = Counter((row["task_id"], row["step"]) for row in desk.fleet.rows("select * from executed"))
    tasks = desk.fleet.rows("select * from worker.tasks")
    pids = {row["pid"] for row in desk.fleet.rows("select pid from executed")}
    desk.fleet.execute("drop table executed")
    assert [one.exitcode for one in crew] == [0] * WORKERS
    assert Counter(did.values()) == {1: 128}
    assert [(row["status"], row["attempts"]) for row in tasks] == [("completed", 1)] * 64
    assert len(pids) > 1
    desk.bring_back()
    assert {desk.seen(one)["status"] for one in asked} == {"completed"}
