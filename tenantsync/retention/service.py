"""Cleanup: partitions ahead and behind, expired history, old tombstones on both sides, lost wake-ups."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

import structlog
from sqlalchemy import Connection

from config.settings import Settings
from db import partitions
from db.repositories import budgets, holds, identity, mirroring, retention, scopes, tenants
from db.session import Database
from tenantsync.mirror.supabase import MirrorError
from tenantsync.schedule.occurrences import Step, Unfinished, carry_on

ARCHIVED_AFTER = timedelta(days=30)
"""For so long Supabase keeps events of the categories system and debug; all others as long as history is kept."""

log = structlog.get_logger(__name__)


class Purge(Protocol):
    """The mirror's side. Raises MirrorError."""

    def purge(self, before: str) -> int: ...

    def purge_processes(self, *, before: str, archived_before: str) -> int: ...


def cleanup(database: Database, mirror: Purge, settings: Settings, *, step: Step = carry_on) -> dict[str, int]:
    """Clean up, and say how much. Raises Unfinished when Supabase could not be cleaned; the rest is done then."""
    result: dict[str, int] = {}
    with database.statement() as connection:
        now = tenants.moment(connection)  # one clock for both sides, and not that of a worker: it drops whole months
    before = now - settings.retention_tombstones
    _clean(database, settings, result, now, step)
    try:
        result["mirror_tombstones"] = mirror.purge(before.isoformat())
        result["mirror_processes"] = mirror.purge_processes(
            before=(now - settings.retention_history).isoformat(),
            archived_before=(now - min(ARCHIVED_AFTER, settings.retention_history)).isoformat(),
        )
    except MirrorError as failure:
        raise Unfinished(str(failure), result) from None
    log.info("cleaned_up", **result)
    return result


def _clean(database: Database, settings: Settings, result: dict[str, int], now: datetime, step: Step) -> None:
    tombstones_before = now - settings.retention_tombstones
    with database.transaction() as connection:
        result["partitions_made"] = len(partitions.ensure_ahead(connection, now=now))
    history_before = now - settings.retention_history
    result["processes"] = _in_portions(
        database, lambda c: retention.forget_processes(c, before=history_before), step
    )  # before the partitions of their events, which stay as long as they are there
    result["partitions_dropped"] = _drop_partitions(database, history_before, step)
    jobs: dict[str, Callable[[Connection], int]] = {
        "tombstones": lambda c: retention.bury(c, table="tombstones", before=tombstones_before),
        "calendars": lambda c: retention.bury(c, table="calendars", before=tombstones_before),
        "accounts": lambda c: retention.bury(c, table="accounts", before=tombstones_before),
        "process_events": lambda c: retention.forget_process_events(c, before=history_before),
        "archived": lambda c: retention.archive_process_events(c, before=now - ARCHIVED_AFTER),
        "task_keys": lambda c: retention.forget_task_keys(c, age=settings.retention_history),
        "staged_rows": retention.clear_staged,
        "orphaned_tasks": retention.supersede_orphans,
    }
    for name, job in jobs.items():
        result[name] = _in_portions(database, job, step)
    for name, once in {
        "workers": retention.forget_workers,
        "cooldowns": scopes.forget_old,
        "budgets": budgets.forget_idle,
        "holds": holds.forget_old,
        "log_ins": identity.forget_old,
        "turns_repaired": retention.repair_turns,
        "mirror_turns_repaired": mirroring.repair,
    }.items():
        step()
        with database.transaction() as connection:
            result[name] = once(connection)


def _drop_partitions(database: Database, before: datetime, step: Step) -> int:
    dropped = 0
    while True:
        step()
        with database.transaction() as connection:
            if not partitions.drop_before(connection, moment=before, at_most=1):
                return dropped
        dropped += 1


def _in_portions(database: Database, job: Callable[[Connection], int], step: Step) -> int:
    total = 0
    while True:
        step()
        with database.transaction() as connection:
            done = job(connection)
        total += done
        if done < retention.PORTION:
            return total
