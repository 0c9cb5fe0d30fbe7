"""Readings into worker.system_metrics: one row a worker, one for the fleet, and now and then one a tenant."""

from typing import Any
from uuid import UUID

from config.queues import Queue
from db.repositories import ledger, readings
from db.session import Database
from tenantsync import clock

FLEET = "fleet"
TENANTS_AT_ONCE = 1000
FRESHNESS_MINUTES = 5
"""Freshness of every tenant is written this often: 10,000 tenants make 2.9 million rows a day of it."""


def collect(database: Database, replica: Database, queue_lengths: dict[str, int], *, worker: str) -> int:
    """Take one reading of everything, from the replica if there is one; returns the rows written."""
    with replica.statement() as connection:
        rows = [_worker_row(one) for one in readings.workers(connection)]
        details = {**readings.fleet(connection), "queues": queue_lengths}
    rows.append({"scope": FLEET, "worker_id": FLEET, "active_tasks": details["in_flight"], "details": details})
    with database.statement() as connection:
        readings.record(connection, rows)
    return len(rows) + _freshness(database, replica, worker)


def _worker_row(reading: dict[str, Any]) -> dict[str, Any]:
    return {
        "scope": "worker",
        "worker_id": reading["worker_id"],
        "cpu_usage": reading["cpu_usage"],
        "memory_usage": reading["memory_usage"],
        "active_tasks": reading["active_tasks"],
        "details": {
            "queues": reading["queues"],
            "slots": reading["slots"],
            "clock_skew_ms": reading["clock_skew_ms"],
        },
    }


def _freshness(database: Database, replica: Database, worker: str) -> int:
    now = clock.now()
    slot = now.replace(minute=now.minute - now.minute % FRESHNESS_MINUTES)
    with database.transaction() as connection:
        task_id = ledger.begin_occurrence(
            connection,
            key=f"metrics.freshness:{slot:%Y-%m-%dT%H:%M}",
            kind="metrics.freshness",
            queue=Queue.MAINTENANCE.value,
            worker=worker,
        )
    if task_id is None:
        return 0
    written, after = 0, UUID(int=0)
    while True:
        with replica.statement() as connection:
            page = readings.freshness(connection, after=after, limit=TENANTS_AT_ONCE)
        with database.statement() as connection:
            readings.record(connection, [_tenant_row(one) for one in page])
        written += len(page)
        if len(page) < TENANTS_AT_ONCE:
            break
        after = page[-1]["tenant_id"]
    with database.transaction() as connection:
        ledger.end_task(connection, task_id=task_id, result={"tenants": written})
    return written


def _tenant_row(one: dict[str, Any]) -> dict[str, Any]:
    details = {name: one[name] for name in ("calendars", "failing", "stalest", "median")}
    return {"scope": "tenant", "worker_id": FLEET, "tenant_id": one["tenant_id"], "details": details}
