"""The isolated lane: a tenant whose units kill workers again and again runs apart until it has been quiet for a while.

There its units have children of limited memory and a short deadline, one unit a message, so that what it
does to them is done to nobody else.
"""

from datetime import timedelta

import structlog

from db.repositories import isolation
from db.session import Database

log = structlog.get_logger(__name__)

ENOUGH = 3  # units that killed the worker which ran them alone
WINDOW = timedelta(hours=1)
LENGTH = timedelta(hours=1)
"""Counted from the last incident."""
REMEMBERED = timedelta(days=30)


def isolate(database: Database) -> dict[str, int]:
    """Isolate whom the incidents of the last hour ask for, free whose time is over, and move their units."""
    with database.statement() as connection:
        isolated = isolation.isolate(connection, window=WINDOW, enough=ENOUGH, length=LENGTH)
        freed = isolation.free(connection)
        forgotten = isolation.forget(connection, age=REMEMBERED)
    for tenant_id in isolated:
        log.warning("tenant_isolated", tenant_id=str(tenant_id))
    for tenant_id in freed:
        log.info("tenant_freed", tenant_id=str(tenant_id))
    moved = 0
    while True:
        with database.statement() as connection:
            portion = isolation.move_units(connection)
        moved += portion
        if portion < isolation.PORTION:
            break
    return {"isolated": len(isolated), "freed": len(freed), "moved": moved, "forgotten": forgotten}
