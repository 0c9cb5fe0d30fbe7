"""Tasks of the sync: the tick that hands out units, and the batch that runs them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from kombu.exceptions import OperationalError

from config.celery_settings import hard_limits
from config.queues import Lane
from config.settings import get_settings
from db.repositories.units import ClaimedUnit
from tasks.celery_app import app
from tasks.runtime import runtime, wake_up
from tenantsync.dispatching import service as dispatching
from tenantsync.errors import PublishFailed


@app.task(name="sync.dispatch")
def dispatch(**_: Any) -> None:
    """Claim due units and publish them."""
    ours = runtime()
    with wake_up("sync.dispatch"):
        dispatching.dispatch(ours.database, publish, batch_size=ours.settings.worker_batch_size)


@app.task(name="sync.run_batch")
def run_batch(*, batch_id: str, lane: str, units: Sequence[tuple[str, int]], **_: Any) -> None:
    """Run the units of a batch, each under the fence that it was claimed with."""
    pairs = [(UUID(unit_id), fence) for unit_id, fence in units]
    runtime().runner.run_batch(UUID(batch_id), Lane(lane), pairs)


def publish(lane: Lane, batch_id: UUID, batch: Sequence[ClaimedUnit]) -> None:
    """Send a batch to its lane's queue: ids and fences, nothing else."""
    tenants = len({unit.tenant_id for unit in batch})
    # What Flower shows: a sentence instead of two hundred ids.
    shown: dict[str, Any] = {
        "argsrepr": "()",
        "kwargsrepr": f"{{'lane': '{lane.value}', 'units': {len(batch)}, 'tenants': {tenants}}}",
    }
    try:
        run_batch.apply_async(
            kwargs={
                "batch_id": str(batch_id),
                "lane": lane.value,
                "units": [(str(unit.unit_id), unit.fence) for unit in batch],
            },
            task_id=str(batch_id),
            queue=lane.queue.value,
            time_limit=hard_limits(get_settings())[lane],
            **shown,
        )
    except OperationalError as error:
        raise PublishFailed(f"the broker did not take a batch ({type(error).__name__})") from None
