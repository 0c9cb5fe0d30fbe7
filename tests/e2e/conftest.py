"""A world for each module: embedded servers, real Celery processes, driven through pytest-celery's API.

pytest-celery scopes its fixtures to a test; here they live as long as the module, because a worker takes
seconds to start. Tests leave the world as they found it.
"""

import os
from collections.abc import Iterator

import pytest
from celery import Celery
from pytest_celery import CeleryBrokerCluster, CeleryTestSetup, CeleryWorkerCluster, RedisTestBroker

from sandbox.google.control import GoogleControl
from sandbox.world import World
from tests.support.containers import worker_container
from tests.support.nodes import ProcessWorker, ProductSetup, broker_node, worker_node

QUEUES = "wakeups,sync,bulk,quarantine,isolated,mirror,tasks,maintenance"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(overrides={"SYNC_INTERVAL": "1s", "WORKER_BATCH_SIZE": "20", "SYNC_UNIT_DEADLINE": "5s"}) as running:
        running.keep_supabase_alive()
        yield running


@pytest.fixture
def google(world: World) -> Iterator[GoogleControl]:
    """The world's Google, for what it is to be told; in good health again after each test."""
    with world.google.control() as control:
        yield control
        control.clear_faults()


@pytest.fixture(scope="module")
def celery_setup_cls(world: World) -> type[CeleryTestSetup]:
    return type("Setup", (ProductSetup,), {"settings": world.settings})


@pytest.fixture(scope="module")
def celery_broker(world: World) -> RedisTestBroker:
    return broker_node(world.valkey)


@pytest.fixture(scope="module")
def celery_broker_cluster(celery_broker: RedisTestBroker) -> CeleryBrokerCluster:
    return CeleryBrokerCluster(celery_broker)


@pytest.fixture(scope="module")
def celery_backend_cluster() -> None:
    """Results are not kept (config/celery_settings.py): there is no backend."""


@pytest.fixture(scope="module")
def celery_setup_app(celery_setup_cls: type[CeleryTestSetup], celery_broker_cluster: CeleryBrokerCluster) -> Celery:
    config = {"broker_url": celery_broker_cluster.config()["host_urls"][0]}
    return celery_setup_cls.create_setup_app(config, "tenantsync")


@pytest.fixture(scope="module")
def celery_worker(world: World, celery_setup_app: Celery) -> Iterator[ProcessWorker]:
    node = "first@tenantsync"
    if os.environ.get("TEST_NODES") == "docker":
        with worker_container(world, node, QUEUES, concurrency=3, app=celery_setup_app) as worker:
            yield worker
        return
    process = world.start_worker("first", QUEUES, concurrency=3)
    yield worker_node(process, node, lambda: world.heard_of(node), celery_setup_app)


@pytest.fixture(scope="module")
def celery_worker_cluster(celery_worker: ProcessWorker) -> CeleryWorkerCluster:
    return CeleryWorkerCluster(celery_worker)


@pytest.fixture(scope="module")
def celery_setup(
    celery_setup_cls: type[CeleryTestSetup],
    celery_worker_cluster: CeleryWorkerCluster,
    celery_broker_cluster: CeleryBrokerCluster,
    celery_setup_app: Celery,
    world: World,
) -> CeleryTestSetup:
    """The whole setup, ready: broker, one worker that serves every queue, and beat."""
    setup = celery_setup_cls(
        worker_cluster=celery_worker_cluster,
        broker_cluster=celery_broker_cluster,
        backend_cluster=None,
        app=celery_setup_app,
    )
    world.start_beat()
    assert setup.ready(ping=False, control=True, docker=True)
    return setup
