"""Occurrences of the timetable: each is done once at a time, whoever got it."""

from typing import Any

from tasks import broker
from tasks.celery_app import TIMETABLE, app
from tasks.runtime import runtime
from tasks.schedule import do
from tenantsync.accounting import service as accounting
from tenantsync.dispatching import isolation
from tenantsync.metrics import service as metrics
from tenantsync.processes import service as processes
from tenantsync.retention import service as retention


@app.task(name="retention.cleanup")
def cleanup(*, occurrence: str | None = None, **_: Any) -> None:
    """Once an hour: partitions, old history, old tombstones, lost wake-ups."""
    ours = runtime()
    do(occurrence, lambda step: retention.cleanup(ours.database, ours.supabase, ours.settings, step=step))


@app.task(name="metrics.collect")
def collect(*, occurrence: str | None = None, **_: Any) -> None:
    """Read the state of the fleet into worker.system_metrics."""
    ours = runtime()
    do(occurrence, lambda _: metrics.collect(ours.database, ours.replica, broker.lengths(app)))


@app.task(name="metrics.freshness")
def freshness(*, occurrence: str | None = None, **_: Any) -> None:
    """Write every tenant's freshness into worker.system_metrics."""
    ours = runtime()
    do(occurrence, lambda step: metrics.freshness(ours.database, ours.replica, step=step))


@app.task(name="ledger.audit")
def audit_ledger(*, occurrence: str | None = None, **_: Any) -> None:
    """Reckon what was expected of every unit and entry, and name what nothing accounts for."""
    ours = runtime()
    do(occurrence, lambda step: accounting.reckon(ours.database, ours.settings, entries=TIMETABLE, step=step))


@app.task(name="tenants.isolate")
def isolate(*, occurrence: str | None = None, **_: Any) -> None:
    """Let tenants whose units kill workers run apart, and bring back those that have been quiet."""
    ours = runtime()
    do(occurrence, lambda _: isolation.isolate(ours.database))


@app.task(name="processes.tend")
def tend(*, occurrence: str | None = None, **_: Any) -> None:
    """See to processes that nobody moves on: stuck, overdue, asked in vain."""
    ours = runtime()
    do(occurrence, lambda _: processes.tend(ours.database))
