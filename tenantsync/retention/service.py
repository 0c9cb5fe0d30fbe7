"""Cleanup: partitions ahead and behind, expired history, old tombstones on both sides, lost wake-ups.

One occurrence an hour, however many ticks arrive: the hour is the key, and whoever writes it first works.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import structlog
from sqlalchemy import Connection

from config.queues import Queue
from config.settings import Settings
from db import partitions
from db.repositories import ledger, mirroring, retention, scopes, tenants
from db.session import Database
from tenantsync import clock
from tenantsync.mirror.supabase import MirrorError

log = structlog.get_logger(__name__)

KIND = "retention.cleanup"


class Purge(Protocol):
    """The mirror's side. Raises MirrorError."""

    def purge(self, before: str) -> int: ...


def cleanup(database: Database, mirror: Purge, settings: Settings, *, worker: str) -> dict[str, int] | None:
    """Do this hour's cleanup; None if it has been done or is being done."""
    now = clock.now()
    with database.transaction() as connection:
        task_id = ledger.begin_occurrence(
            connection,
            key=f"{KIND}:{now:%Y-%m-%dT%H}",
            kind=KIND,
            queue=Queue.MAINTENANCE.value,
            worker=worker,
        )
    if task_id is None:
        return None
    result: dict[str, int] = {}
    error: str | None = None
    try:
        with database.statement() as connection:
            before = tenants.moment(connection) - settings.retention_tombstones  # one clock and moment for both sides
        _clean(database, settings, result, before)
        result["mirror_tombstones"] = mirror.purge(before.isoformat())
    except MirrorError as failure:
        error = str(failure)
    except Exception as failure:
        error = type(failure).__name__
        raise
    finally:
        with database.transaction() as connection:
            ledger.end_task(connection, task_id=task_id, result=result, error=error)
    log.info("cleaned_up", **result)
    return result


def _clean(database: Database, settings: Settings, result: dict[str, int], tombstones_before: datetime) -> None:
    now = clock.now()
    with database.transaction() as connection:
        result["partitions_made"] = len(partitions.ensure_ahead(connection, now=now))
    with database.transaction() as connection:
        history_before = now - settings.retention_history
        result["partitions_dropped"] = len(partitions.drop_before(connection, moment=history_before))
    jobs: dict[str, Callable[[Connection], int]] = {
        "tombstones": lambda c: retention.bury(c, table="tombstones", before=tombstones_before),
        "calendars": lambda c: retention.bury(c, table="calendars", before=tombstones_before),
        "accounts": lambda c: retention.bury(c, table="accounts", before=tombstones_before),
        "task_keys": lambda c: retention.forget_task_keys(c, age=settings.retention_history),
        "staged_rows": retention.clear_staged,
        "orphaned_tasks": retention.supersede_orphans,
    }
    for name, job in jobs.items():
        result[name] = _in_portions(database, job)
    for name, once in {
        "workers": retention.forget_workers,
        "cooldowns": scopes.forget_old,
        "turns_repaired": retention.repair_turns,
        "mirror_turns_repaired": mirroring.repair,
    }.items():
        with database.transaction() as connection:
            result[name] = once(connection)


def _in_portions(database: Database, job: Callable[[Connection], int]) -> int:
    total = 0
    while True:
        with database.transaction() as connection:
            done = job(connection)
        total += done
        if done < retention.PORTION:
            return total
