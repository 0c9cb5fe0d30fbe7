"""What people want of a process: that it pauses, goes on, or ends. Each wish leaves a row in the audit log."""

from dataclasses import replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from db.repositories import processes, tenants
from db.repositories.processes import ProcessRow
from db.states import ProcessState
from tenantsync.processes.moving import locked, move, state_updated, tell
from tenantsync.processes.publishing import Event
from tenantsync.processes.running import cancelled, paused
from tenantsync.processes.values import MoveRefused, ProcessUnknown


def pause(connection: Connection, *, tenant_id: UUID, process_id: UUID, by: str) -> ProcessRow:
    """Stop a process: at once while nobody runs it, else between two steps. Raises MoveRefused, ProcessUnknown."""
    row, now = locked(connection, tenant_id=tenant_id, process_id=process_id)
    if row.queue is None:
        raise MoveRefused("a sync moves this process on and has no steps to stop between; pause its tenant instead")
    if not row.open or row.state == ProcessState.PAUSED:
        raise MoveRefused(f"the process is {row.state} already")
    if row.state == ProcessState.RUNNING:
        after = replace(row, pause_requested=True)
        processes.save(connection, before=row, after=after)
        tell(connection, row, state_updated(row, ProcessState.RUNNING, pause_requested=True))
    else:
        after = paused(connection, row, now)
    _audit(connection, row, "process.pause", by)
    return after


def resume(connection: Connection, *, tenant_id: UUID, process_id: UUID, by: str) -> ProcessRow:
    """Let a paused process go on, or take back the wish that it pauses. Raises MoveRefused, ProcessUnknown."""
    row, now = locked(connection, tenant_id=tenant_id, process_id=process_id)
    event = Event("process_resumed", {"resumed_from_step": row.step})
    if row.state == ProcessState.PAUSED:
        after = move(connection, row, now, ProcessState.PENDING, event)
    elif row.state == ProcessState.RUNNING and row.pause_requested:
        after = replace(row, pause_requested=False)
        processes.save(connection, before=row, after=after)
        tell(connection, row, event)
    else:
        raise MoveRefused(f"the process is not paused: it is {row.state}")
    _audit(connection, row, "process.resume", by)
    return after


def cancel(connection: Connection, *, tenant_id: UUID, process_id: UUID, by: str) -> ProcessRow:
    """End a process and what is open below it: at once where nobody runs it, else when its run hears of it.

    Raises MoveRefused, ProcessUnknown.
    """
    found = processes.lock_family(connection, tenant_id=tenant_id, process_id=process_id)
    if found is None:
        raise ProcessUnknown(f"there is no process {process_id}")
    (row, *below), now = found
    if not row.open:
        raise MoveRefused(f"the process is {row.state} already")
    if not _may_end(row):
        raise MoveRefused("a sync moves this process on; it ends with the sync, or with its account")
    family = [row, *(one for one in below if one.open and _may_end(one))]
    after = [_cancelled(connection, one, now) for one in family]
    _audit(connection, row, "process.cancel", by)
    return after[0]


def _may_end(row: ProcessRow) -> bool:
    return row.queue is not None or row.state != ProcessState.RUNNING


def _cancelled(connection: Connection, row: ProcessRow, now: datetime) -> ProcessRow:
    if row.state != ProcessState.RUNNING:
        return cancelled(connection, row, now)
    after = replace(row, cancel_requested=True)
    processes.save(connection, before=row, after=after)
    tell(connection, row, state_updated(row, ProcessState.RUNNING, cancel_requested=True))
    return after


def _audit(connection: Connection, row: ProcessRow, action: str, by: str) -> None:
    tenants.write_audit_log(
        connection, tenant_id=row.tenant_id, actor=by, action=action, details={"process_id": str(row.process_id)}
    )
