"""The product as real processes: what a broker or a worker does wrong loses nothing and doubles nothing."""

import json
import time
from typing import Any

import pytest
import redis
from pytest_celery import CeleryTestSetup, RedisTestBroker

from beat_schedule import OCCURRENCES
from config.queues import ROUTES, Queue
from sandbox.google.control import GoogleControl
from sandbox.google.specs import Fault
from sandbox.world import World
from tests.support.nodes import ProcessWorker
from tests.support.worlds import Tenant, add_tenant, ask, event, eventually, mirrored_titles, titles

pytestmark = pytest.mark.timeout(180)
RECOVERY = 10.0  # seconds: rule 1


@pytest.fixture
def tenant(world: World, google: GoogleControl, celery_setup: CeleryTestSetup) -> Tenant:
    """A tenant whose first sync has reached Supabase."""
    made = add_tenant(world, google)
    wanted = {"meeting 0", "meeting 1", "meeting 2"}
    eventually(lambda: mirrored_titles(world, made) == wanted, "the first sync reaches Supabase")
    return made


def test_an_edit_at_the_provider_reaches_supabase_by_itself(
    world: World, google: GoogleControl, tenant: Tenant
) -> None:
    google.insert(tenant.email, tenant.email, event("new"))

    eventually(lambda: "new" in mirrored_titles(world, tenant), "the edit arrives")


def inspected(setup: CeleryTestSetup) -> Any:
    """The worker's remote control, over a connection that no other test saw cut."""
    return setup.app.control.inspect(timeout=5, connection=setup.app.connection_for_write())


def test_every_queue_is_served_and_every_message_goes_to_its_own_queue_alone(
    celery_setup: CeleryTestSetup, celery_worker: ProcessWorker
) -> None:
    served = inspected(celery_setup).active_queues()[celery_worker.hostname()]

    assert {one["name"] for one in served} == {queue.value for queue in Queue}
    assert all(one["exchange"]["name"] == one["routing_key"] == one["name"] for one in served)


def test_the_worker_registers_exactly_the_tasks_of_the_surface(
    celery_setup: CeleryTestSetup, celery_worker: ProcessWorker
) -> None:
    registered = inspected(celery_setup).registered()[celery_worker.hostname()]

    ours = {name for name in registered if not name.startswith("celery.")}
    assert ours == set(ROUTES) | {entry.task for entry in OCCURRENCES.values()}


def test_a_restarted_broker_that_forgot_everything_is_no_loss(
    world: World, google: GoogleControl, tenant: Tenant, celery_broker: RedisTestBroker
) -> None:
    celery_broker.kill()
    google.insert(tenant.email, tenant.email, event("made while the broker was away"))
    celery_broker.restart()

    eventually(lambda: "made while the broker was away" in titles(world, tenant), "work resumes without a hand")


def test_flushall_at_any_moment_is_no_loss(
    world: World, google: GoogleControl, tenant: Tenant, celery_broker: RedisTestBroker
) -> None:
    client = redis.Redis.from_url(world.valkey.url(0))
    for number in range(5):
        google.insert(tenant.email, tenant.email, event(f"flushed {number}"))
        client.flushall()
    client.close()

    wanted = {f"flushed {number}" for number in range(5)}
    eventually(lambda: wanted <= titles(world, tenant), "everything arrives")


def test_units_of_a_killed_worker_run_again_within_ten_seconds(
    world: World, google: GoogleControl, tenant: Tenant, celery_worker: ProcessWorker
) -> None:
    google.add_fault(Fault(kind="slow", seconds=3.0, account=tenant.email, endpoint="list", times=1))
    google.insert(tenant.email, tenant.email, event("in its hands"))
    running = "select 1 from sync.units where tenant_id = :tenant and state = 'running'"
    eventually(lambda: bool(ask(world, running, tenant=tenant.tenant_id)), "the unit runs")

    celery_worker.kill()
    killed = time.monotonic()
    celery_worker.restart()
    eventually(lambda: "in its hands" in titles(world, tenant), "another run brings it")

    startup = 3.0  # seconds a worker takes to start here, which an orchestrator with two workers does not wait for
    assert time.monotonic() - killed < RECOVERY + startup
    (state,) = ask(world, "select state, lane, crashes from sync.units where tenant_id = :t", t=tenant.tenant_id)
    assert state[0] != "parked"


def test_a_worker_told_to_stop_hands_its_units_back(
    world: World, google: GoogleControl, tenant: Tenant, celery_worker: ProcessWorker
) -> None:
    google.add_fault(Fault(kind="hang", account=tenant.email, endpoint="list", times=None))
    running = "select 1 from sync.units where tenant_id = :tenant and state = 'running'"
    eventually(lambda: bool(ask(world, running, tenant=tenant.tenant_id)), "the unit runs")

    celery_worker.kill("SIGTERM", reload_container=False)
    eventually(lambda: celery_worker.container.status == "exited", "the worker ends")

    (state,) = ask(world, "select state, crashes from sync.units where tenant_id = :t", t=tenant.tenant_id)
    assert state == ("idle", 0)
    assert ask(world, "select 1 from worker.workers where worker_id = 'first@tenantsync'") == []
    google.clear_faults()
    celery_worker.restart()


def test_postgres_restarted_under_load_is_no_loss(world: World, google: GoogleControl, tenant: Tenant) -> None:
    google.insert(tenant.email, tenant.email, event("before"))
    world.postgres.restart()
    google.insert(tenant.email, tenant.email, event("after"))

    eventually(lambda: {"before", "after"} <= titles(world, tenant), "work resumes without a hand")


def test_messages_hold_ids_and_fences_and_nothing_else(
    world: World, tenant: Tenant, celery_setup: CeleryTestSetup, celery_worker: ProcessWorker
) -> None:
    client = redis.Redis.from_url(world.valkey.url(0))
    seen: list[bytes] = []
    monitor = client.monitor()
    with monitor as commands:
        for command in commands.listen():
            seen.append(command["command"].encode())
            if b"sync.run_batch" in seen[-1]:
                break
    client.close()

    message = next(line for line in seen if b"sync.run_batch" in line)
    body = message.decode()
    assert tenant.email not in body
    assert "meeting" not in body
    assert "ya29." not in body
    assert "1//" not in body
    assert json.dumps("lane")[1:-1] in body
