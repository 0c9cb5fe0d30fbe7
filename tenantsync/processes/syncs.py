"""Processes that syncs move on. Nothing a sync does depends on them: what is missing here is made up for by `mend`.

Every function is a transaction's first and only work with processes: it locks those that are there before it writes
to any, and the transaction has not written to the outbox.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from db.ids import new_id
from db.repositories import process_syncs, processes
from db.repositories.processes import ProcessRow
from db.session import Database, in_transaction, is_connection_loss
from db.states import ProcessState
from tenantsync.processes import asking, publishing, running
from tenantsync.processes.moving import locked, move, shortened, state_updated
from tenantsync.processes.publishing import Event
from tenantsync.processes.values import Held, NewQuestion

log = structlog.get_logger(__name__)

FIRST_SYNC = "calendar.first_sync"
RESYNC = "calendar.resync"
SYNC_NOW = "sync.now"
RECONNECT = "account.reconnect"
LISTING = "listing"
MERGING = "merging"
SYNCING = "syncing"
WANTED_FOR = timedelta(hours=1)
"""A sync that a person wanted and that no worker began by then has failed."""
REMIND_AFTER = timedelta(days=1)
DISMISS = {"type": "object", "properties": {"action": {"const": "dismiss"}}, "required": ["action"]}


@dataclass(frozen=True, slots=True)
class About:
    """What a process of a sync is about. `make`: open one if there is none."""

    kind: str
    subject_id: UUID
    workspace_id: UUID
    title: str
    make: bool = True


@dataclass(frozen=True, slots=True)
class Ending:
    """What came of a run, for one process. An `error` without `final` is tried again by the sync itself."""

    held: Held
    steps: Mapping[str, int] = field(default_factory=dict)
    """Milliseconds by step."""
    result: Mapping[str, Any] | None = None
    error: str | None = None
    final: bool = False
    reason: str = "waits for its next run"


def want(connection: Connection, *, tenant_id: UUID, workspace_id: UUID | None, by: str) -> int:
    """Open a process for every workspace that a person wants synced now; how many are new."""
    opened = [
        _opened(About(SYNC_NOW, unit, unit, name), started_by=by, deadline=WANTED_FOR, total_steps=1)
        for unit, name in process_syncs.units(connection, tenant_id=tenant_id, workspace_id=workspace_id)
    ]
    return len(_open(connection, tenant_id, opened))


def connected(connection: Connection, *, tenant_id: UUID, account_id: UUID) -> None:
    """An account works from now on: nobody has to connect it any more, and its calendars wait for their first sync."""
    asked = process_syncs.lock_open(connection, tenant_id=tenant_id, subjects=[account_id])
    new = process_syncs.new_calendars(connection, tenant_id=tenant_id, account_id=account_id)
    _open(connection, tenant_id, [_opened(About(FIRST_SYNC, one, unit, name)) for one, unit, name in new])
    for row, now in asked:
        running.completed(connection, row, now, {"connected": True})


def tell_connected(database: Database, *, tenant_id: UUID, account_id: UUID) -> None:
    """As `connected`, once the account is; the account is connected whether or not that can be told."""
    try:
        with database.transaction() as connection:
            connected(connection, tenant_id=tenant_id, account_id=account_id)
    except SQLAlchemyError as error:
        log.warning("connection_not_told", account_id=str(account_id), error=type(error).__name__)


def tell_disconnected(database: Database, *, tenant_id: UUID) -> None:
    """An account is gone: what was about it ends now, or when `tend` looks."""
    try:
        mend(database, tenant_id=tenant_id)
    except SQLAlchemyError as error:
        log.warning("disconnection_not_told", tenant_id=str(tenant_id), error=type(error).__name__)


def begin(connection: Connection, *, tenant_id: UUID, about: Sequence[About], worker: str) -> dict[UUID, Held]:
    """A run begins: what it is about, by subject. One that a run before it left running is taken over."""
    there = process_syncs.lock_open(connection, tenant_id=tenant_id, subjects=[one.subject_id for one in about])
    known = {row.subject_id for row, _ in there}
    missing = [one for one in about if one.make and one.subject_id not in known]
    made = process_syncs.open_many(
        connection,
        tenant_id=tenant_id,
        opened=[_opened(one, state=ProcessState.RUNNING, step=_first_step(one.kind)) for one in missing],
    ) if missing else []  # fmt: skip
    rows, events = [], {row.process_id: [_created(row), *_begun(row)] for row in made}
    for row, now in there:
        if row.state in (ProcessState.PENDING, ProcessState.RUNNING):
            rows.append(_taken(connection, row, now, worker))
            events[row.process_id] = _begun(rows[-1], previous=row.step)
    publishing.publish_many(connection, tenant_id=tenant_id, events=events)
    return {row.subject_id: running.held(row) for row in [*made, *rows] if row.subject_id is not None}


def _taken(connection: Connection, row: ProcessRow, now: datetime, worker: str) -> ProcessRow:
    after = replace(
        row,
        state=ProcessState.RUNNING.value,
        attempt=row.attempt + 1,
        worker_id=worker,
        step=_first_step(row.kind),
        step_started_at=now,
        started_at=row.started_at or now,
        heartbeat_at=now,
    )
    processes.save(connection, before=row, after=after)
    return after


def merging(connection: Connection, *, tenant_id: UUID, helds: Collection[Held]) -> None:
    """What was listed is merged from now on."""
    attempts = {held.process_id: held.attempt for held in helds}
    subjects = [held.subject_id for held in helds if held.subject_id is not None]
    events = {}
    for row, now in process_syncs.lock_open(connection, tenant_id=tenant_id, subjects=subjects):
        if row.attempt == attempts.get(row.process_id) and row.state == ProcessState.RUNNING:
            after = replace(row, step=MERGING, step_started_at=now)
            processes.save(connection, before=row, after=after)
            data = {"step": MERGING, "previous_step": row.step, "progress": running.counted(row)}
            events[row.process_id] = [Event("step_update", data)]
    publishing.publish_many(connection, tenant_id=tenant_id, events=events)


def end(connection: Connection, *, tenant_id: UUID, endings: Sequence[Ending]) -> None:
    """A run ended. A process that another run has taken over meanwhile is left alone."""
    by_process = {ending.held.process_id: ending for ending in endings}
    subjects = [ending.held.subject_id for ending in endings if ending.held.subject_id is not None]
    events = {}
    for row, now in process_syncs.lock_open(connection, tenant_id=tenant_id, subjects=subjects):
        ending = by_process.get(row.process_id)
        if ending is None or row.attempt != ending.held.attempt or row.state != ProcessState.RUNNING:
            continue
        events[row.process_id] = _ended(connection, row, now, ending)
    publishing.publish_many(connection, tenant_id=tenant_id, events=events)


def _ended(connection: Connection, row: ProcessRow, now: datetime, ending: Ending) -> list[Event]:
    """Save what came of it; what is to be told."""
    done = {step: float(row.step_durations.get(step, 0)) + took for step, took in ending.steps.items()}
    before, row = (
        row,
        replace(
            row,
            lease_until=None,
            step_durations={**row.step_durations, **done},
            completed_steps=row.completed_steps + len(ending.steps),
        ),
    )
    told = [Event("step_completed", {"step": step, "duration_ms": took}) for step, took in ending.steps.items()]
    if ending.result is not None:
        after, event = running.completion(row, now, ending.result)
    elif ending.final:
        after, event = running.failure(row, now, ending.error or ending.reason)
    elif ending.error is not None and ending.error != row.error:
        after, event = running.retry(row, now, ending.error)
    else:
        after = replace(row, state=ProcessState.PENDING.value)
        event = state_updated(row, ProcessState.PENDING, reason=ending.reason)
    processes.save(connection, before=before, after=after)
    return [*told, event]


def resynced(
    connection: Connection, *, tenant_id: UUID, about: About, steps: Mapping[str, int], result: Mapping[str, Any]
) -> None:
    """A resync that began and ended within one run."""
    held = begin(connection, tenant_id=tenant_id, about=[about], worker="unassigned").get(about.subject_id)
    if held is not None:
        end(connection, tenant_id=tenant_id, endings=[Ending(held, steps, result)])


def ask_to_connect(connection: Connection, *, tenant_id: UUID, account_id: UUID) -> bool:
    """Ask for an account to be connected again; False where somebody is asked already, or it works."""
    account = process_syncs.account(connection, tenant_id=tenant_id, account_id=account_id)
    if account is None or account.state != "needs_reauth":
        return False
    about = About(RECONNECT, account_id, account.workspace_id, account.identity)
    made = process_syncs.open_many(
        connection, tenant_id=tenant_id, opened=[_opened(about, state=ProcessState.RUNNING, total_steps=None)]
    )
    for row in made:
        publishing.publish_many(connection, tenant_id=tenant_id, events={row.process_id: [_created(row)]})
        question = NewQuestion(
            "reconnect",
            "RECONNECT_ACCOUNT",
            prompt=f"{account.provider}: {account.identity}",
            actions=("dismiss",),
            answer_schema=DISMISS,
            remind_after=REMIND_AFTER,
        )
        asking.ask(connection, held=running.held(row), question=question)
    return bool(made)


def mend(database: Database, *, tenant_id: UUID | None = None, grace: timedelta = process_syncs.GRACE) -> int:
    """Bring processes back in step with what they are about; how many were out of it. Of one tenant, or of all."""
    with database.reading() as connection:
        astray = process_syncs.astray(connection, tenant_id=tenant_id, grace=grace)
        unasked = process_syncs.unasked(connection) if tenant_id is None else []
    mended = 0
    for tenant, process, verdict in astray:
        mended += _mended(database, lambda c, t=tenant, p=process, v=verdict: _follow(c, t, p, v, grace))
    for tenant, account in unasked:
        mended += _mended(
            database,
            lambda c, t=tenant, a=account: ask_to_connect(c, tenant_id=t, account_id=a),
        )
    return mended


def _mended(database: Database, work: Any) -> bool:
    try:
        return bool(in_transaction(database, work))
    except SQLAlchemyError as error:
        if is_connection_loss(error):
            raise
        log.exception("process_not_mended", error=type(error).__name__)
        return False


def _follow(connection: Connection, tenant_id: UUID, process_id: UUID, verdict: str, grace: timedelta) -> bool:
    row, now = locked(connection, tenant_id=tenant_id, process_id=process_id)
    if not row.open or row.state == verdict:
        return False
    if verdict == ProcessState.PENDING:
        if row.state != ProcessState.RUNNING or row.updated_at > now - grace:  # another run has just taken it over
            return False
        running.retried(connection, row, now, "its worker was lost; the sync tries again")
    elif verdict == ProcessState.COMPLETED:
        if row.state == ProcessState.PENDING:  # as every process, it ran before it was done
            row = move(connection, row, now, ProcessState.RUNNING, attempt=row.attempt + 1)
        running.completed(connection, row, now, {"noticed_afterwards": True})
    elif verdict == ProcessState.FAILED:
        running.failed(connection, row, now, "the calendar is not found any more, or forbidden")
    else:
        running.cancelled(connection, row, now, reason="what it was about is gone")
    return True


def _opened(
    about: About,
    *,
    started_by: str = "system",
    state: ProcessState = ProcessState.PENDING,
    step: str | None = None,
    deadline: timedelta | None = None,
    total_steps: int | None = 2,
) -> dict[str, Any]:
    return {
        "process_id": new_id(),
        "workspace_id": about.workspace_id,
        "kind": about.kind,
        "subject_id": about.subject_id,
        "title": shortened(about.title)[: running.TITLE],
        "total_steps": total_steps,
        "started_by": started_by,
        "deadline": None if deadline is None else deadline.total_seconds(),
        "state": state.value,
        "step": step,
    }


def _open(connection: Connection, tenant_id: UUID, opened: Iterable[Mapping[str, Any]]) -> list[ProcessRow]:
    prepared = list(opened)
    made = process_syncs.open_many(connection, tenant_id=tenant_id, opened=prepared) if prepared else []
    publishing.publish_many(connection, tenant_id=tenant_id, events={row.process_id: [_created(row)] for row in made})
    return made


def _created(row: ProcessRow) -> Event:
    return Event("process_created", running.created(row, None))


def _begun(row: ProcessRow, previous: str | None = None) -> list[Event]:
    begun = state_updated(row, ProcessState.RUNNING, attempt=row.attempt)
    data = {"step": row.step or SYNCING, "previous_step": previous, "progress": running.counted(row)}
    return [begun, Event("step_update", data)]


def _first_step(kind: str) -> str:
    return SYNCING if kind == SYNC_NOW else LISTING
