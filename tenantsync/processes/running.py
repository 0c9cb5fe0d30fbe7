"""What a run does with its process: begins it, takes its steps, and ends it. All of it under the attempt's fence."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from db.ids import new_id
from db.repositories import processes
from db.repositories.processes import ProcessRow
from db.states import ProcessState
from tenantsync.processes import event_types
from tenantsync.processes.moving import in_state, locked_by, move, moved, shortened, state_updated, tell
from tenantsync.processes.publishing import Event
from tenantsync.processes.values import Held, ProcessUnknown, Wish

IN_AN_EVENT = 65_536  # bytes of a step's or a process' result beyond which its event says only how large it is
TITLE = 500  # characters


def create(
    connection: Connection,
    *,
    tenant_id: UUID,
    workspace_id: UUID | None,
    kind: str,
    title: str,
    started_by: str,
    process_id: UUID | None = None,
    subject_id: UUID | None = None,
    parent_id: UUID | None = None,
    priority: int = 5,
    tags: Sequence[str] = (),
    total_steps: int | None = None,
    max_retries: int = 3,
    queue: str | None = None,
    deadline: datetime | None = None,
    initial_request: Any = None,
) -> UUID:
    """Make a process that waits for a worker; the one that is open for the same kind and subject, if there is one.

    `queue`: of the task that runs it; None where a sync run moves it on. Raises PayloadRefused.
    """
    wanted = process_id or new_id()
    tags = [shortened(tag)[:100] for tag in tags]
    for _ in range(3):
        row = processes.insert(
            connection,
            process_id=wanted,
            tenant_id=tenant_id,
            workspace_id=workspace_id,
            kind=kind,
            title=shortened(title)[:TITLE],
            started_by=started_by,
            subject_id=subject_id,
            parent_id=parent_id,
            priority=priority,
            tags=tags,
            total_steps=total_steps,
            max_retries=max_retries,
            queue=queue,
            deadline=deadline,
        )
        if row is not None:
            tell(connection, row, Event("process_created", created(row, initial_request)))
            return row.process_id
        there = processes.find(connection, tenant_id=tenant_id, process_id=wanted, kind=kind, subject_id=subject_id)
        if there is not None:
            return there.process_id
    raise ProcessUnknown(f"process {wanted} belongs to another tenant, or one for its subject ended again and again")


def created(row: ProcessRow, initial_request: Any) -> Mapping[str, Any]:
    return {
        "process_id": row.process_id,
        "initial_request": fitting(initial_request, about="initial_request"),
        "kind": row.kind,
        "title": row.title,
        "parent_id": row.parent_id,
        "priority": row.priority,
        "tags": list(row.tags),
    }


def fitting(value: Any, *, about: str) -> Any:
    """A result as it stands in an event: whole, or how large it is. Raises PayloadRefused where it is not JSON."""
    size = len(event_types.as_json(value, about=about, largest=2**30))
    return value if size <= IN_AN_EVENT else {"omitted": True, "bytes": size}


def begin(
    connection: Connection, *, process_id: UUID, worker: str, lease: timedelta, tenant_id: UUID | None = None
) -> Held | None:
    """Take a process that waits, under a new attempt; None if somebody else has, or it is not pending."""
    owner = tenant_id or processes.tenant_of(connection, process_id=process_id)
    found = None if owner is None else processes.lock(connection, tenant_id=owner, process_id=process_id)
    if found is None:
        return None
    row, now = found
    if row.state != ProcessState.PENDING:
        return None
    after = move(
        connection,
        row,
        now,
        ProcessState.RUNNING,
        state_updated(row, ProcessState.RUNNING, attempt=row.attempt + 1),
        attempt=row.attempt + 1,
        worker_id=worker,
        lease_until=now + lease,
        heartbeat_at=now,
        started_at=row.started_at or now,
        estimated_completion_at=_usual_end(connection, row, now),
    )
    return held(after)


def held(row: ProcessRow) -> Held:
    """A running process as its run holds it."""
    return Held(
        process_id=row.process_id,
        tenant_id=row.tenant_id,
        attempt=row.attempt,
        kind=row.kind,
        workspace_id=row.workspace_id,
        subject_id=row.subject_id,
        queue=row.queue,
        step=row.step,
        retry_count=row.retry_count,
        max_retries=row.max_retries,
        memo=row.memo,
    )


def _usual_end(connection: Connection, row: ProcessRow, now: datetime) -> datetime | None:
    """When processes of the kind usually are over, less what earlier attempts have done of this one."""
    usual = processes.usual_duration(connection, tenant_id=row.tenant_id, kind=row.kind)
    if usual is None:
        return None
    left = usual - sum(float(one) for one in row.step_durations.values())
    return now + timedelta(milliseconds=max(0.0, left))


def renew(connection: Connection, *, held: Held, lease: timedelta) -> Wish:
    """Go on holding it, and hear what people want of it."""
    wishes = processes.renew(
        connection, tenant_id=held.tenant_id, process_id=held.process_id, attempt=held.attempt, lease=lease
    )
    if wishes is None:
        return Wish.LOST
    pause, cancel = wishes
    return Wish.CANCEL if cancel else Wish.PAUSE if pause else Wish.GO_ON


def start_step(
    connection: Connection,
    *,
    held: Held,
    step: str,
    message: str = "",
    estimated: datetime | None = None,
) -> None:
    """Say that a step begins."""
    row, now = locked_by(connection, held)
    after = _changed(
        connection,
        row,
        step=step,
        step_started_at=now,
        estimated_completion_at=estimated or row.estimated_completion_at,
    )
    data = {
        "step": step,
        "previous_step": row.step,
        "message": shortened(message),
        "progress": counted(after),
        "estimated_completion": after.estimated_completion_at,
    }
    tell(connection, after, Event("step_update", data))


def finish_step(connection: Connection, *, held: Held, step: str, result: Any = None) -> None:
    """Say that a step is done, and keep its result for a run that comes later. Raises PayloadRefused."""
    written = event_types.as_json(result, about=f"the result of step {step!r}", largest=2**24)
    row, now = locked_by(connection, held)
    began = row.step_started_at if row.step == step and row.step_started_at is not None else now
    took = max(0, int((now - began).total_seconds() * 1000))
    completed = row.completed_steps + (step not in row.memo)
    after = _changed(
        connection,
        row,
        step_durations={**row.step_durations, step: float(row.step_durations.get(step, 0)) + took},
        completed_steps=completed,
        percentage=_share(completed, row.total_steps, row.percentage),
    )
    processes.remember(connection, tenant_id=row.tenant_id, process_id=row.process_id, step=step, result=written)
    data = {"step": step, "result": fitting(result, about=step), "duration_ms": took, "progress": counted(after)}
    tell(connection, after, Event("step_completed", data))


def progress(
    connection: Connection,
    *,
    held: Held,
    percentage: float | None = None,
    message: str = "",
    immediate: bool = False,
    **more: Any,
) -> None:
    """Say how far it is: a snapshot, the newest of which is shown at most every 0.2 s.

    The end is reckoned from the percentage once a twentieth is done.
    """
    row, now = locked_by(connection, held)
    data = {"percentage": percentage, "message": shortened(message), **more}
    if percentage is not None and percentage >= 5 and row.started_at is not None and "estimated_completion" not in more:
        spent = (now - row.started_at) * ((100 - percentage) / percentage)
        data["estimated_completion"] = now + spent
    tell(connection, row, Event("progress", data, immediate=immediate))


def hand_back(connection: Connection, *, held: Held) -> None:
    """Let another worker go on with it; no retry is counted."""
    row, now = locked_by(connection, held)
    move(connection, row, now, ProcessState.PENDING, state_updated(row, ProcessState.PENDING, reason="handed back"))


def pause_here(connection: Connection, *, held: Held) -> None:
    """Stop between two steps, as somebody wanted; what was done is kept."""
    row, now = locked_by(connection, held)
    paused(connection, row, now)


def paused(connection: Connection, row: ProcessRow, now: datetime) -> ProcessRow:
    """Pause a process that the transaction holds."""
    event = Event("process_paused", {"reason": "user_request", "resume_available": True})
    return move(connection, row, now, ProcessState.PAUSED, event)


def cancel_here(connection: Connection, *, held: Held) -> None:
    """Stop for good, as somebody wanted."""
    row, now = locked_by(connection, held)
    cancelled(connection, row, now)


def cancelled(connection: Connection, row: ProcessRow, now: datetime, reason: str = "user_request") -> ProcessRow:
    """Cancel a process that the transaction holds."""
    return move(connection, row, now, ProcessState.CANCELLED, Event("process_cancelled", {"reason": reason}))


def complete(connection: Connection, *, held: Held, result: Any = None) -> None:
    """Done. Raises PayloadRefused when the result is not JSON, or larger than `event_types.LARGEST`."""
    event_types.as_json(result, about="the result")
    row, now = locked_by(connection, held)
    completed(connection, row, now, result)


def completed(connection: Connection, row: ProcessRow, now: datetime, result: Any) -> ProcessRow:
    """Complete a process that the transaction holds."""
    after, event = completion(row, now, result)
    return moved(connection, row, after, event)


def completion(row: ProcessRow, now: datetime, result: Any) -> tuple[ProcessRow, Event]:
    """A process as it is when it is done, and how that is told."""
    worked = sum(float(one) for one in row.step_durations.values())
    statistics = {
        "steps": row.completed_steps,
        "worked_ms": int(worked),
        "retries": row.retry_count,
        "total_ms": None if row.started_at is None else int((now - row.started_at).total_seconds() * 1000),
    }
    event = Event("process_completed", {"result": fitting(result, about="result"), "statistics": statistics})
    return in_state(row, now, ProcessState.COMPLETED, result=result, percentage=100.0, error=None), event


def fail(
    connection: Connection,
    *,
    held: Held,
    error: str,
    recoverable: bool = False,
    retry_after: timedelta = timedelta(0),
) -> ProcessState:
    """Give up, or where it is worth another try and one is left, let it be run again: what became of it.

    Until `retry_after` has passed, `lease_until` of the pending process says that nobody is to begin it.
    """
    row, now = locked_by(connection, held)
    after = failed(connection, row, now, error, recoverable=recoverable, retry_after=retry_after)
    return ProcessState(after.state)


def failed(
    connection: Connection,
    row: ProcessRow,
    now: datetime,
    error: str,
    *,
    recoverable: bool = False,
    retry_after: timedelta = timedelta(0),
) -> ProcessRow:
    """Fail a process that the transaction holds, or count a retry."""
    if recoverable and row.retry_count < row.max_retries and row.state == ProcessState.RUNNING:
        return retried(connection, row, now, error, retry_after=retry_after)
    after, event = failure(row, now, error)
    return moved(connection, row, after, event)


def retried(
    connection: Connection, row: ProcessRow, now: datetime, error: str, *, retry_after: timedelta = timedelta(0)
) -> ProcessRow:
    """Have a process that the transaction holds run again, and count it."""
    after, event = retry(row, now, error, retry_after=retry_after)
    return moved(connection, row, after, event)


def failure(row: ProcessRow, now: datetime, error: str) -> tuple[ProcessRow, Event]:
    """A process as it is when it has failed, and how that is told."""
    return in_state(row, now, ProcessState.FAILED, error=shortened(error)), _error(row, "fatal", error)


def retry(
    row: ProcessRow, now: datetime, error: str, *, retry_after: timedelta = timedelta(0)
) -> tuple[ProcessRow, Event]:
    """A process as it waits for another try, and how that is told."""
    again = row.retry_count + 1
    rests = now + retry_after if retry_after else None
    after = in_state(row, now, ProcessState.PENDING, retry_count=again, error=shortened(error), lease_until=rests)
    return after, _error(after, "recoverable", error)


def _error(row: ProcessRow, sort: str, message: str) -> Event:
    data = {
        "error_type": sort,
        "step": row.step,
        "message": shortened(message),
        "recovery_options": ["retry"] if sort == "recoverable" else [],
        "retry_count": row.retry_count,
    }
    return Event("process_error", data)


def _changed(connection: Connection, row: ProcessRow, **changes: Any) -> ProcessRow:
    after = replace(row, **changes)
    processes.save(connection, before=row, after=after)
    return after


def _share(completed: int, total: int | None, before: float | None) -> float | None:
    if not total:
        return before
    return max(before or 0.0, min(100.0, round(completed * 100 / total, 1)))


def counted(row: ProcessRow) -> Mapping[str, Any]:
    return {
        "completed_steps": row.completed_steps,
        "total_steps": row.total_steps,
        "percentage": row.percentage,
    }
