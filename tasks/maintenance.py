"""Cleanup and metrics."""

from typing import Any

from config.queues import Queue
from tasks.celery_app import app
from tasks.runtime import runtime
from tenantsync.metrics import service as metrics
from tenantsync.retention import service as retention


@app.task(name="retention.cleanup")
def cleanup(**_: Any) -> None:
    """Once an hour, whichever tick comes first: partitions, old history, old tombstones, lost wake-ups."""
    ours = runtime()
    retention.cleanup(ours.database, ours.supabase, ours.settings, worker=ours.worker)


@app.task(name="metrics.collect")
def collect(**_: Any) -> None:
    """Read the state of the fleet into worker.system_metrics."""
    ours = runtime()
    metrics.collect(ours.database, ours.replica, queue_lengths(), worker=ours.worker)


def queue_lengths() -> dict[str, int]:
    """Messages waiting in each queue, as the broker counts them."""
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        return {queue.value: int(channel._size(queue.value)) for queue in Queue}  # noqa: SLF001 — kombu has no other
