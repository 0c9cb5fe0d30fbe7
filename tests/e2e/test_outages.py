"""Real workers that are told to stop, that no longer consume, and whose broker hangs or is full."""

import time
from collections.abc import Callable, Iterator

import pytest
import redis
from pytest_celery import CeleryTestSetup

from config.queues import Queue
from sandbox.google.control import GoogleControl
from sandbox.google.specs import Fault
from sandbox.servers.ports import free_port
from sandbox.world import World
from tests.support.nodes import ProcessWorker
from tests.support.worlds import Tenant, add_tenant, ask, event, eventually, titles

pytestmark = pytest.mark.timeout(240)

GRACE = 3.0  # seconds
MARGIN = 6.0  # seconds after it, in which the worker ends whatever happens
SLOW = 4.0  # seconds that a loaded machine may add
NODE = "first@tenantsync"
MOST_WAITING = 5  # wake-ups in a queue beyond which beat sends no more
RUNNING = "select 1 from sync.units where tenant_id = :tenant and state = 'running'"
UNIT = "select state, crashes, lane from sync.units where tenant_id = :tenant"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    overrides = {"SYNC_INTERVAL": "1s", "WORKER_SHUTDOWN_GRACE": f"{GRACE:.0f}s", "SYNC_UNIT_DEADLINE": "30s"}
    with World(overrides=overrides) as running:
        running.keep_supabase_alive()
        yield running


@pytest.fixture
def tenant(world: World, google: GoogleControl, celery_setup: CeleryTestSetup) -> Tenant:
    """A tenant that was synced."""
    made = add_tenant(world, google)
    eventually(lambda: len(titles(world, made)) == 3, "the first sync")
    return made


@pytest.fixture
def told_to_stop(celery_worker: ProcessWorker) -> Iterator[Callable[[], float]]:
    """Tells the worker to stop; returns the seconds until it had ended. Afterwards there is a worker again."""

    def stop() -> float:
        began = time.monotonic()
        celery_worker.kill("SIGTERM", reload_container=False)
        eventually(lambda: celery_worker.container.status == "exited", "the worker's end")
        return time.monotonic() - began

    yield stop
    if celery_worker.container.status == "exited":
        celery_worker.restart()


def runs(world: World, tenant: Tenant) -> bool:
    return bool(ask(world, RUNNING, tenant=tenant.tenant_id))


def test_what_finishes_within_the_grace_is_finished_and_a_first_sync_that_does_not_is_handed_back(
    world: World, google: GoogleControl, tenant: Tenant, told_to_stop: Callable[[], float]
) -> None:
    google.add_fault(Fault(kind="hang", endpoint="list", list_kind="full", times=None))
    newcomer = add_tenant(world, google)
    google.add_fault(Fault(kind="slow", seconds=1.5, account=tenant.email, endpoint="list", times=1))
    google.insert(tenant.email, tenant.email, event("in its hands"))
    eventually(lambda: runs(world, tenant) and runs(world, newcomer), "both units run")

    took = told_to_stop()

    assert took < GRACE + MARGIN + SLOW
    assert "in its hands" in titles(world, tenant)
    assert ask(world, UNIT, tenant=tenant.tenant_id) == [("idle", 0, "sync")]
    assert ask(world, UNIT, tenant=newcomer.tenant_id) == [("idle", 0, "bulk")]
    assert ask(world, "select 1 from worker.workers where worker_id = :node", node=NODE) == []


def test_a_worker_told_to_stop_while_postgres_is_away_ends_in_time_and_its_successor_does_what_it_held(
    world: World,
    google: GoogleControl,
    tenant: Tenant,
    celery_worker: ProcessWorker,
    told_to_stop: Callable[[], float],
) -> None:
    google.add_fault(Fault(kind="hang", account=tenant.email, endpoint="list", times=None))
    google.insert(tenant.email, tenant.email, event("while Postgres was away"))
    eventually(lambda: runs(world, tenant), "the unit runs")

    world.postgres.stop("immediate")
    try:
        took = told_to_stop()
    finally:
        google.clear_faults()
        world.postgres.start()
    celery_worker.restart()

    assert took < GRACE + MARGIN + SLOW
    eventually(lambda: "while Postgres was away" in titles(world, tenant), "the unit that could not be handed back")


def test_a_worker_that_is_connected_and_does_not_consume_ends_and_its_successor_works(
    world: World,
    google: GoogleControl,
    tenant: Tenant,
    celery_setup: CeleryTestSetup,
    celery_worker: ProcessWorker,
) -> None:
    control = celery_setup.app.control
    for queue in Queue:
        control.cancel_consumer(queue.value, connection=celery_setup.app.connection_for_write())
    google.insert(tenant.email, tenant.email, event("waits in the queue"))

    eventually(lambda: celery_worker.container.status == "exited", "the watchdog", timeout=60)

    assert "worker_not_consuming" in celery_worker.logs()
    celery_worker.restart()
    eventually(lambda: "waits in the queue" in titles(world, tenant), "the successor's work")


@pytest.fixture
def broker(world: World) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(world.valkey.url(0)) as client:
        yield client
        client.config_set("maxmemory", "0")
        client.delete("of somebody else")


def test_a_broker_that_hangs_is_no_loss_and_wake_ups_do_not_pile_up(
    world: World, google: GoogleControl, tenant: Tenant, broker: redis.Redis
) -> None:
    log = world.folder / "beat.log"
    heard = log.read_text().count("beat_not_heard")
    world.valkey.freeze()
    google.insert(tenant.email, tenant.email, event("while the broker hung"))
    eventually(lambda: log.read_text().count("beat_not_heard") > heard, "beat's giving up")
    world.valkey.thaw()

    eventually(lambda: "while the broker hung" in titles(world, tenant), "work resumes by itself")
    assert all(broker.llen(f"tenantsync:{queue.value}") <= MOST_WAITING + 1 for queue in Queue)


def test_a_broker_without_memory_is_no_loss(
    world: World, google: GoogleControl, tenant: Tenant, broker: redis.Redis
) -> None:
    log = world.folder / "beat.log"
    heard = log.read_text().count("beat_not_heard")
    broker.set("of somebody else", b"x" * 4_000_000)
    broker.config_set("maxmemory", "1mb")
    google.insert(tenant.email, tenant.email, event("while it was full"))
    eventually(lambda: log.read_text().count("beat_not_heard") > heard, "a wake-up that was refused")
    broker.config_set("maxmemory", "0")

    eventually(lambda: "while it was full" in titles(world, tenant), "work resumes by itself")


def test_a_worker_starts_while_supabase_is_away_and_says_so(world: World) -> None:
    nowhere = {"SUPABASE_URL": f"http://127.0.0.1:{free_port()}"}

    worker = world.start_worker("early", "mirror", concurrency=1, environment=nowhere)

    log = (world.folder / "early.log").read_text()
    worker.stop()
    assert "supabase_away" in log
