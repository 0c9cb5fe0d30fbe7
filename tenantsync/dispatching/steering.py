"""What people change about tenants and about what is parked, whichever way they come: the command line, the dashboard,
the API. Each change leaves a row in the audit log, in its own transaction where there is one.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from db.repositories import mirroring, tenants, units
from db.session import Database
from tenantsync.dispatching import pausing
from tenantsync.processes import syncs

LIGHTEST = 0.01
HEAVIEST = 100
WIDEST = 1000
LONGEST_REASON = 500
LONGEST_NAME = 200


class SteeringRefused(Exception):
    """A change that cannot be made. The text says what should be different; `what` names the value at fault."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(reason)
        self.what = what


@dataclass(frozen=True, slots=True)
class Wanted:
    """What became due by somebody's hand."""

    calendars: int
    units: int


def clean_name(name: str) -> str:
    """A name as it is stored. Raises SteeringRefused."""
    clean = name.strip()
    if not clean or len(clean) > LONGEST_NAME or not clean.isprintable():
        raise SteeringRefused("name", f"A name should have 1 to {LONGEST_NAME} printable characters.")
    return clean


def clean_reason(reason: str) -> str:
    """A reason as it is stored. Raises SteeringRefused."""
    clean = reason.strip()
    if len(clean) > LONGEST_REASON or not clean.isprintable():
        raise SteeringRefused("reason", f"A reason should have at most {LONGEST_REASON} printable characters.")
    return clean


def pause(database: Database, *, tenant_id: UUID, by: str, reason: str, name: str | None = None) -> bool:
    """Stop a tenant; False if it is paused already. `name` is who did it, for people. Raises SteeringRefused."""
    reason = clean_reason(reason)
    changed = pausing.pause(database, tenant_id=tenant_id, by=f"user:{name}" if name else by, reason=reason)
    with database.transaction() as connection:
        _remember(connection, tenant_id, by, "tenant.pause", reason=reason)
    return changed


def resume(database: Database, *, tenant_id: UUID, by: str) -> bool:
    """Let a tenant run again; False if it is not paused."""
    changed = pausing.resume(database, tenant_id=tenant_id)
    with database.transaction() as connection:
        _remember(connection, tenant_id, by, "tenant.resume", reason=None)
    return changed


def set_share(
    connection: Connection, *, tenant_id: UUID, weight: float | None, concurrency: int | None, by: str
) -> tuple[float, int]:
    """Set a tenant's weight and concurrency; None leaves one as it is. Raises SteeringRefused, LookupError."""
    if weight is None and concurrency is None:
        raise SteeringRefused("weight", "Give a weight, a concurrency, or both.")
    if weight is not None and not LIGHTEST <= weight <= HEAVIEST:
        raise SteeringRefused("weight", f"A weight should lie between {LIGHTEST} and {HEAVIEST}; 1 is usual.")
    if concurrency is not None and not 1 <= concurrency <= WIDEST:
        raise SteeringRefused(
            "concurrency", f"A concurrency should lie between 1 and {WIDEST}. To stop a tenant, pause it."
        )
    now = tenants.set_share(connection, tenant_id=tenant_id, weight=weight, concurrency=concurrency)
    _remember(connection, tenant_id, by, "tenant.set", weight=weight, concurrency=concurrency)
    return now


def sync_now(connection: Connection, *, tenant_id: UUID, workspace_id: UUID | None, by: str) -> Wanted:
    """Make a tenant's calendars, or those of one workspace, due now; each workspace's sync is a process to watch."""
    calendars, due = tenants.want_sync(connection, tenant_id=tenant_id, workspace_id=workspace_id)
    syncs.want(connection, tenant_id=tenant_id, workspace_id=workspace_id, by=by)
    _remember(connection, tenant_id, by, "sync.now", calendars=calendars)
    return Wanted(calendars, due)


def retry_unit(connection: Connection, *, unit_id: UUID, tenant_id: UUID | None, by: str) -> bool:
    """Let a parked unit run again, alone; False if it is not parked."""
    if not units.release(connection, unit_id=unit_id):
        return False
    _remember(connection, tenant_id, by, "parked.retry", unit=str(unit_id), rows=0)
    return True


def drop_unit(connection: Connection, *, unit_id: UUID, tenant_id: UUID | None, by: str) -> bool:
    """Try a parked unit no more by itself, until somebody has it retried; False if it is not parked."""
    if not units.give_up(connection, unit_id=unit_id):
        return False
    _remember(connection, tenant_id, by, "parked.drop", unit=str(unit_id), rows=0)
    return True


def retry_rows(
    connection: Connection,
    *,
    tenant_id: UUID | None = None,
    entity: str | None = None,
    row_id: UUID | None = None,
    by: str,
) -> int:
    """Send refused rows once more: all of them, a tenant's, or one; returns how many."""
    if tenant_id is None:
        sent = mirroring.retry_parked(connection)
    else:
        sent = mirroring.retry_parked_of(connection, tenant_id=tenant_id, entity=entity, row_id=row_id)
    _remember(connection, tenant_id, by, "parked.retry", unit=None, rows=sent, **_named(entity, row_id))
    return sent


def drop_rows(
    connection: Connection,
    *,
    tenant_id: UUID | None = None,
    entity: str | None = None,
    row_id: UUID | None = None,
    by: str,
) -> int:
    """Forget refused rows, which stay as Supabase has them until they change again; returns how many."""
    if tenant_id is None:
        dropped = mirroring.drop_parked(connection)
    else:
        dropped = mirroring.drop_parked_of(connection, tenant_id=tenant_id, entity=entity, row_id=row_id)
    _remember(connection, tenant_id, by, "parked.drop", unit=None, rows=dropped, **_named(entity, row_id))
    return dropped


def _named(entity: str | None, row_id: UUID | None) -> dict[str, Any]:
    return {} if row_id is None else {"entity": entity, "row": str(row_id)}


def _remember(connection: Connection, tenant_id: UUID | None, by: str, action: str, **details: Any) -> None:
    tenants.write_audit_log(connection, tenant_id=tenant_id, actor=by, action=action, details=details)
