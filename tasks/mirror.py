"""The task that drains the outbox."""

from typing import Any

from tasks.celery_app import app
from tasks.runtime import runtime, wake_up
from tenantsync.mirror import service as mirror

BUDGET = 8.0  # seconds; the next tick goes on


@app.task(name="mirror.drain")
def drain(**_: Any) -> None:
    """Send what still has to reach Supabase."""
    ours = runtime()
    with wake_up("mirror.drain"):
        mirror.drain(ours.database, ours.supabase, batch_size=ours.settings.mirror_batch_size, budget=BUDGET)
