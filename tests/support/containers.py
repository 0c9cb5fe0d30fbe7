"""The worker as a container of the product's own image, for machines with a Docker engine: `TEST_NODES=docker`.

The servers stay embedded. The container shares the host's network, so that addresses are the same inside, which
Docker offers on Linux alone. Wants to be tried where an engine runs: none did where it was written.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import docker
from celery import Celery
from pytest_celery import CeleryTestContainer

from sandbox.world import CHECKOUT, World
from tests.support.nodes import ProcessWorker
from tests.support.waiting import wait_until

START = 60.0  # seconds


class HostContainer(CeleryTestContainer):
    """A container on the host's network has no address of its own, for which its base class would wait."""

    def ready(self) -> bool:
        self.reload()
        return bool(self.status == "running")


class ContainerWorker(ProcessWorker):
    """A worker in a container, which Docker names otherwise than Celery."""

    node_name = ""

    def hostname(self) -> str:
        return self.node_name


@contextmanager
def worker_container(
    world: World, node: str, queues: str, *, concurrency: int, app: Celery
) -> Iterator[ContainerWorker]:
    """A worker of the image that the Dockerfile makes, once Postgres has heard of it; removed at the end."""
    client = docker.from_env()
    image, _ = client.images.build(path=str(CHECKOUT), tag="tenantsync:test")
    command = ["celery", "-A", "tasks", "worker", "-n", node, "-Q", queues, "-c", str(concurrency)]
    container = client.containers.run(
        image.id, command, environment=world.product_environment(), network_mode="host", detach=True
    )
    try:
        worker = ContainerWorker(HostContainer(container), app)
        worker.node_name = node
        wait_until(lambda: world.heard_of(node), about="the container's first heartbeat", longest=START)
        yield worker
    finally:
        container.remove(force=True)
        client.close()
