"""Pausing and resuming one tenant: no new run starts, those under way stop at their next step."""

import time
from uuid import UUID

from db.repositories import accounting, tenants
from db.session import Database
from tenantsync import clock

PATIENCE = 5.0  # seconds; a unit is skipped only while a statement of its own run holds its row
AGAIN = 0.05  # seconds


def pause(database: Database, *, tenant_id: UUID, by: str, reason: str) -> bool:
    """Stop a tenant; False if it is paused already. When this returns, no run of it can write any more.

    Two transactions, in this order: the first waits for claims under way and ends the tenant's turns, so
    that nothing is handed out after it; the second takes back what had been handed out before.
    """
    with database.transaction() as connection:
        changed = tenants.set_paused(connection, tenant_id=tenant_id, paused=True, reason=reason)
        if changed:
            accounting.open_pause(connection, tenant_id=tenant_id, by=by, reason=reason)
    ends, left = clock.monotonic() + PATIENCE, True
    while left and clock.monotonic() < ends:
        with database.statement() as connection:
            _, left = tenants.stop_runs(connection, tenant_id=tenant_id)
        if left:
            time.sleep(AGAIN)
    return changed


def resume(database: Database, *, tenant_id: UUID) -> bool:
    """Let a tenant run again, what is due at once; False if it is not paused."""
    with database.transaction() as connection:
        changed = tenants.set_paused(connection, tenant_id=tenant_id, paused=False, reason=None)
        if changed:
            accounting.close_pause(connection, tenant_id=tenant_id)
    return changed
