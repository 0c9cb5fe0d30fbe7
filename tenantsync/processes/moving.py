"""How a process changes: its row is locked, the move is checked, state and event are written together."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from db.repositories import processes, questions
from db.repositories.processes import ProcessRow
from db.states import PROCESS_MOVES, ProcessState
from tenantsync.processes import publishing
from tenantsync.processes.publishing import Event
from tenantsync.processes.values import Address, Held, MoveRefused, ProcessLost, ProcessUnknown

ENDS = (ProcessState.COMPLETED, ProcessState.FAILED, ProcessState.CANCELLED)
LONGEST_TEXT = 2_000  # characters of an error or a message


def locked(connection: Connection, *, tenant_id: UUID, process_id: UUID) -> tuple[ProcessRow, datetime]:
    """A process, held until the transaction ends, and the database's moment. Raises ProcessUnknown."""
    found = processes.lock(connection, tenant_id=tenant_id, process_id=process_id)
    if found is None:
        raise ProcessUnknown(f"there is no process {process_id}")
    return found


def locked_by(connection: Connection, held: Held) -> tuple[ProcessRow, datetime]:
    """The process of a run, held until the transaction ends. Raises ProcessLost."""
    found = processes.lock(connection, tenant_id=held.tenant_id, process_id=held.process_id, attempt=held.attempt)
    if found is None:
        raise ProcessLost(f"attempt {held.attempt} of process {held.process_id} does not run any more")
    return found


def move(
    connection: Connection, row: ProcessRow, now: datetime, to: ProcessState, *events: Event, **changes: Any
) -> ProcessRow:
    """Move a process that the transaction holds, and say so. Raises MoveRefused where no such move is declared.

    A process that ends withdraws what it asks, and one that does not run holds no lease.
    """
    return moved(connection, row, in_state(row, now, to, **changes), *events)


def in_state(row: ProcessRow, now: datetime, to: ProcessState, **changes: Any) -> ProcessRow:
    """A process as it is in another state."""
    if to is not ProcessState.RUNNING:
        changes = {"lease_until": None, "pause_requested": False, "cancel_requested": False} | changes
    if to in ENDS:
        changes = {"completed_at": now, "estimated_completion_at": None, "step_started_at": None} | changes
    return replace(row, state=to.value, **changes)


def moved(connection: Connection, row: ProcessRow, after: ProcessRow, *events: Event) -> ProcessRow:
    """As `move`, with the row made up already."""
    if (row.state, after.state) not in PROCESS_MOVES:
        raise MoveRefused(f"process {row.process_id} is {row.state}; it cannot become {after.state}")
    told = list(events)
    if after.state in ENDS:
        withdrawn = questions.withdraw(connection, tenant_id=row.tenant_id, process_id=row.process_id)
        if withdrawn is not None:
            told.insert(0, Event("input_withdrawn", about(withdrawn, reason=f"the process is {after.state}")))
    processes.save(connection, before=row, after=after)
    tell(connection, row, *told)
    return after


def tell(connection: Connection, row: ProcessRow, *events: Event) -> None:
    """Publish about a process that the transaction holds."""
    publishing.publish_in(connection, process_id=row.process_id, tenant_id=row.tenant_id, events=events)


def about(question: questions.QuestionRow, **more: Any) -> Mapping[str, Any]:
    """What events say of a question."""
    return {
        "input_type": question.input_type,
        "question_id": question.question_id,
        "name": question.name,
        **more,
    }


def state_updated(row: ProcessRow, status: ProcessState, **more: Any) -> Event:
    """The change of a state that no other event tells; as important as one, so it does not wait."""
    waiting = status is ProcessState.WAITING
    data = {"status": status.value, "current_step": row.step, "is_waiting_for_input": waiting, **more}
    return Event("state_updated", data, immediate=True)


def shortened(message: str) -> str:
    """A text that Postgres takes and a page can show."""
    return message.replace("\0", "").encode("utf-8", "replace").decode()[:LONGEST_TEXT]


def address(row: ProcessRow) -> Address:
    return Address(row.process_id, row.tenant_id)
