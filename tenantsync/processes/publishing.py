"""Publishing events: durable ones at once, snapshots no oftener than people can see, pieces in groups.

A snapshot is in Postgres when `publish` returns, as what waits in `process.snapshots`: whichever process notices that
it is due publishes it, and once a second a wake-up publishes what nobody did (`flush_late`). Pieces wait in memory for
up to `GROUP_FOR`; a writer that is killed loses those, and the step that they belong to is run again.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from db.ids import new_id
from db.repositories import process_events, processes
from db.repositories.process_events import NewEvent, Numbered
from db.session import Database, is_connection_loss
from tenantsync import clock
from tenantsync.processes import event_types
from tenantsync.processes.event_types import EventType, Kind
from tenantsync.processes.values import Address, Addressed, ProcessLost, ProcessUnknown

log = structlog.get_logger(__name__)

INTERVAL = timedelta(seconds=0.2)
"""Between two snapshots of one type and process."""
GROUP_FOR = 0.1  # seconds that a piece waits for others
GROUP_OF = 200  # pieces that are written without waiting
MOST_KEPT = 5_000  # pieces of a process kept while Postgres is away; then `publish` says so
AGAIN_AFTER = 1.0  # seconds, when Postgres was away
STRIPES = 16


@dataclass(frozen=True, slots=True)
class Event:
    """Something to publish: a type's name and its payload. `immediate` publishes a snapshot without waiting."""

    event_type: str
    data: Mapping[str, Any]
    immediate: bool = False
    source: str | None = None


def publish_in(
    connection: Connection,
    *,
    process_id: UUID,
    tenant_id: UUID,
    events: Iterable[Event],
    attempt: int | None = None,
) -> list[Numbered]:
    """Publish in the caller's transaction, in this order; returns what got its number in it.

    The caller holds no other process' row and has not written to the outbox, or holds this process' row already.
    Raises PayloadRefused before anything is written, ProcessUnknown, or ProcessLost when `attempt` is not running.
    """
    about = Address(process_id, tenant_id, attempt)
    prepared = [(one, *prepare(about, one, place)) for place, one in enumerate(events, 1)]
    written: list[Numbered] = []
    group: list[NewEvent] = []
    for one, kind, new in prepared:
        if kind.kind is not Kind.SNAPSHOT or one.immediate:
            group.append(new)
            continue
        written += _append(connection, about, group)
        group = []
        written += _keep(connection, about, new)
    return written + _append(connection, about, group)


def publish_many(connection: Connection, *, tenant_id: UUID, events: Mapping[UUID, Sequence[Event]]) -> list[Numbered]:
    """Publish at once to several processes of a tenant, which the caller holds or none of which he holds."""
    new = [
        prepare(Address(process, tenant_id), one, place)[1]
        for process, several in events.items()
        for place, one in enumerate(several, 1)
    ]
    return process_events.append(connection, tenant_id=tenant_id, events=new) if new else []


def prepare(about: Addressed, event: Event, place: int) -> tuple[EventType, NewEvent]:
    """An event as it is written. Raises PayloadRefused."""
    kind = event_types.find(event.event_type)
    new = NewEvent(
        process_id=about.process_id,
        event_id=new_id(),
        event_type=kind.name,
        data=event_types.checked(kind, event.data),
        category=kind.category.value,
        priority=kind.priority,
        source=event.source or kind.source,
        snapshot=kind.kind is Kind.SNAPSHOT,
        place=place,
    )
    return kind, new


def _append(connection: Connection, about: Addressed, group: Sequence[NewEvent]) -> list[Numbered]:
    if not group:
        return []
    written = process_events.append(connection, tenant_id=about.tenant_id, events=group, attempt=about.attempt)
    if not written:
        raise _missing(about)
    return written


def _keep(connection: Connection, about: Addressed, event: NewEvent) -> list[Numbered]:
    """A snapshot in a transaction: the process is locked before its snapshots, as everywhere."""
    held = processes.lock(connection, tenant_id=about.tenant_id, process_id=about.process_id, attempt=about.attempt)
    if held is None:
        raise _missing(about)
    seconds = process_events.keep_snapshot(connection, tenant_id=about.tenant_id, event=event, interval=INTERVAL)
    if seconds is None or seconds > 0:
        return []
    return process_events.append(connection, tenant_id=about.tenant_id, waiting=[about.process_id], only_due=True)


def _missing(about: Addressed) -> Exception:
    if about.attempt is None:
        return ProcessUnknown(f"there is no process {about.process_id}")
    return ProcessLost(f"attempt {about.attempt} of process {about.process_id} does not run any more")


def flush_late(database: Database) -> int:
    """Publish snapshots that are due and that their writers did not; returns how many."""
    with database.statement() as connection:
        late = process_events.late(connection)
    published = 0
    for tenant_id, waiting in late:
        try:
            published += _flush_these(database, tenant_id, waiting)
        except SQLAlchemyError as error:
            if is_connection_loss(error):
                raise
            published += sum(_flush_alone(database, tenant_id, process) for process in waiting)
    return published


def _flush_these(database: Database, tenant_id: UUID, waiting: Sequence[UUID]) -> int:
    with database.transaction() as connection:
        return len(process_events.append(connection, tenant_id=tenant_id, waiting=waiting, only_due=True))


def _flush_alone(database: Database, tenant_id: UUID, process_id: UUID) -> int:
    """One process that cannot be told of keeps no other of its tenant waiting."""
    try:
        return _flush_these(database, tenant_id, [process_id])
    except SQLAlchemyError as error:
        if is_connection_loss(error):
            raise
        log.exception("snapshots_not_flushed", process_id=str(process_id), error=type(error).__name__)
        return 0


Whose = tuple[UUID, int | None]
"""A process and its attempt: what one attempt left behind is not the next one's to write, nor to answer for."""


@dataclass(slots=True)
class _Pending:
    """What a process has to be written, and when, on this machine's monotonic clock."""

    about: Addressed
    pieces: list[NewEvent] = field(default_factory=list)
    pieces_at: float | None = None
    snapshot_at: float | None = None
    unsure: bool = False
    """A commit was cut off: some of the pieces may be there already."""

    @property
    def whose(self) -> "Whose":
        return self.about.process_id, self.about.attempt

    def due_at(self) -> float | None:
        return min((at for at in (self.pieces_at, self.snapshot_at) if at is not None), default=None)


class Publisher:
    """Publishes from one operating-system process, from any of its threads. Made after the fork; `close` it.

    When `publish` has returned, durable events and snapshots are in Postgres; pieces are once `flush` has.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: dict[Whose, _Pending] = {}
        self._lost: set[Whose] = set()
        self._changed = threading.Condition()
        self._writing = [threading.RLock() for _ in range(STRIPES)]
        self._thread: threading.Thread | None = None
        self._closed = False

    def publish(
        self,
        process: Addressed,
        event_type: str,
        data: Mapping[str, Any],
        *,
        immediate: bool = False,
        source: str | None = None,
    ) -> None:
        """Publish an event. Raises PayloadRefused, ProcessLost, ProcessUnknown, or the database's errors."""
        self.put(process, prepare(process, Event(event_type, data, immediate, source), 1), immediate=immediate)

    def put(
        self, process: Addressed, prepared: tuple[EventType, NewEvent], *, immediate: bool = False, again: bool = False
    ) -> None:
        """Publish what `prepare` made; `again` after a connection was lost on the way: it is told once all the same."""
        kind, new = prepared
        if (process.process_id, process.attempt) in self._lost:
            self._lost.discard((process.process_id, process.attempt))
            raise _missing(process)
        if kind.kind is Kind.PIECE and not immediate:
            self._buffer(process, new)
        elif kind.kind is Kind.SNAPSHOT and not immediate:
            self._snapshot(process, new)
        else:
            self._write(process, [new], unsure=again)

    def flush(self) -> None:
        """Write all pieces that wait here. Snapshots that are not due yet wait in Postgres.

        Raises ProcessLost once the pieces of all other processes are written.
        """
        lost: Exception | None = None
        for about in self._waiting():
            try:
                self._write(about, [])
            except (ProcessLost, ProcessUnknown) as error:
                lost = error
        if lost is not None:
            raise lost

    def close(self) -> None:
        """Write what waits, and stop."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(5)
        try:
            self.flush()
        except (ProcessLost, ProcessUnknown) as error:
            log.info("pieces_of_a_lost_process", error=str(error))
        except SQLAlchemyError as error:
            left = sum(len(pending.pieces) for pending in self._pending.values())
            log.warning("pieces_not_written", pieces=left, error=type(error).__name__)

    def _waiting(self) -> list[Addressed]:
        with self._changed:
            return [pending.about for pending in self._pending.values() if pending.pieces]

    def _buffer(self, process: Addressed, piece: NewEvent) -> None:
        with self._changed:
            pending = self._of(process)
            if len(pending.pieces) >= MOST_KEPT:
                raise BufferError(f"{MOST_KEPT} pieces of process {process.process_id} wait for Postgres")
            pending.pieces.append(piece)
            full = len(pending.pieces) >= GROUP_OF
            if pending.pieces_at is None:
                pending.pieces_at = clock.monotonic() + GROUP_FOR
                self._wake()
        if full:
            try:
                self._write(process, [])
            except SQLAlchemyError as error:
                if not is_connection_loss(error):
                    raise
                # they are kept, and written once Postgres is back

    def _snapshot(self, process: Addressed, snapshot: NewEvent) -> None:
        with self._database.statement() as connection:
            seconds = process_events.keep_snapshot(
                connection, tenant_id=process.tenant_id, event=snapshot, interval=INTERVAL, attempt=process.attempt
            )
        if seconds is None:
            raise _missing(process)
        if seconds <= 0:
            self._write(process, [], snapshots=True)
            return
        with self._changed:
            pending = self._of(process)
            if pending.snapshot_at is None:
                pending.snapshot_at = clock.monotonic() + seconds
                self._wake()

    def _of(self, process: Addressed) -> _Pending:
        made = _Pending(process)
        return self._pending.setdefault(made.whose, made)

    def _wake(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                now = clock.monotonic()
                moments = [at for pending in self._pending.values() if (at := pending.due_at()) is not None]
                if not moments or min(moments) > now:
                    self._changed.wait(min(moments) - now if moments else None)
                    continue
                due = [one for one in self._pending.values() if (at := one.due_at()) is not None and at <= now]
            for pending in due:
                self._write_late(pending)

    def _write_late(self, pending: _Pending) -> None:
        try:
            self._write(pending.about, [], snapshots=pending.snapshot_at is not None)
        except (ProcessLost, ProcessUnknown):
            self._lost.add(pending.whose)
        except SQLAlchemyError as error:
            log.warning("events_wait", process_id=str(pending.about.process_id), error=type(error).__name__)
            with self._changed:
                again = self._of(pending.about)
                later = clock.monotonic() + AGAIN_AFTER
                again.pieces_at = later if again.pieces else None
                again.snapshot_at = None  # the wake-up publishes it

    def _write(
        self, process: Addressed, events: Sequence[NewEvent], *, snapshots: bool = False, unsure: bool = False
    ) -> None:
        """Write what waits of a process, and these events after it; `unsure`: where they are not there already."""
        with self._writing[hash(process.process_id) % STRIPES]:
            with self._changed:
                pending = _Pending(process)
                pending = self._pending.pop(pending.whose, pending)
                if pending.snapshot_at is not None and not (events or snapshots):
                    self._of(process).snapshot_at = pending.snapshot_at
            try:
                self._write_now(process, pending, events, snapshots=snapshots, unsure=unsure or pending.unsure)
            except SQLAlchemyError as error:
                self._put_back(pending, unsure=is_connection_loss(error))
                raise

    def _write_now(
        self, process: Addressed, pending: _Pending, events: Sequence[NewEvent], *, snapshots: bool, unsure: bool
    ) -> None:
        # One statement that commits itself holds the process' row for as short as can be; others wait for it.
        whole = self._database.transaction if unsure else self._database.statement
        with whole() as connection:
            pieces = pending.pieces
            if unsure:
                there = process_events.written(connection, tenant_id=process.tenant_id, events=[*pieces, *events])
                pieces = [piece for piece in pieces if piece.event_id not in there]
                events = [event for event in events if event.event_id not in there]
            placed = [replace(piece, place=place - len(pieces)) for place, piece in enumerate(pieces)] + list(events)
            if events or snapshots:
                found = process_events.append(
                    connection,
                    tenant_id=process.tenant_id,
                    events=placed,
                    waiting=[process.process_id],
                    attempt=process.attempt,
                    only_due=not events,
                )
                written = len(found)
            elif placed:
                written = process_events.append_pieces(
                    connection,
                    tenant_id=process.tenant_id,
                    process_id=process.process_id,
                    events=placed,
                    attempt=process.attempt,
                )
        if placed and not written:
            raise _missing(process)

    def _put_back(self, failed: _Pending, *, unsure: bool) -> None:
        if not failed.pieces:
            return
        with self._changed:
            newer = self._of(failed.about)
            newer.pieces = failed.pieces + newer.pieces
            newer.unsure = unsure or failed.unsure
            newer.pieces_at = clock.monotonic() + AGAIN_AFTER
            self._wake()
