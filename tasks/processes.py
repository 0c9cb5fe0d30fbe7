"""The task that sees to processes: what is stuck, late, or waits for a person in vain."""

from typing import Any

from tasks.celery_app import app
from tasks.runtime import runtime, wake_up
from tenantsync.processes import service as processes


@app.task(name="processes.tend")
def tend(**_: Any) -> None:
    """See to every process that needs it."""
    with wake_up("processes.tend"):
        processes.tend(runtime().database)
