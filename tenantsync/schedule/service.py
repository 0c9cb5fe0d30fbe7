"""The tick: write down what the timetable owes by now, and send what waits.

Woken every second by any number of beats, at once or never; whoever comes second finds nothing to do. An occurrence
is sent after its row is committed, and again when it has not begun in time or its worker was lost: so neither a
crash between the two nor a message that was dropped loses one.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol, cast
from uuid import UUID

import structlog
from sqlalchemy import Connection

from config.timetable import Entry, Policy
from db.racepoints import reach
from db.repositories import schedules
from db.repositories.schedules import EntryReading
from db.session import Database
from tenantsync.schedule import rules

log = structlog.get_logger(__name__)

RETIRED_AFTER = timedelta(hours=1)
"""Longer than a rolling deploy, in which old workers do not know an entry that new ones follow."""
SUPERSEDED = "given up: a later occurrence was due before a worker took it"
RETIRED = "given up: its entry is no longer in the timetable"


class Publish(Protocol):
    """Sends an occurrence's id to the queue of its entry. Raises PublishFailed."""

    def __call__(self, entry: Entry, occurrence: UUID) -> None: ...


def tick(database: Database, publish: Publish, timetable: Mapping[str, Entry]) -> int:
    """Follow the timetable up to now; returns how many occurrences were sent.

    Raises PublishFailed when the broker takes nothing; what was not sent is sent by a later tick.
    """
    readings = _readings(database, timetable)
    sendable: list[tuple[Entry, UUID]] = []
    for name, entry in timetable.items():
        if _needs_a_look(readings[name], entry):
            with database.transaction() as connection:
                occurrence = _follow(connection, name, entry)
            reach("occurrence.planned", entry=name, task=occurrence)
            if occurrence is not None:
                sendable.append((entry, occurrence))
    for reading in readings.values():
        if reading.entry not in timetable:
            _retire(database, reading)
    for entry, occurrence in sendable:
        publish(entry, occurrence)
        reach("occurrence.published", task=occurrence)
    return len(sendable)


def _readings(database: Database, timetable: Mapping[str, Entry]) -> dict[str, EntryReading]:
    with database.statement() as connection:
        found = {one.entry: one for one in schedules.standings(connection)}
    if all(name in found and found[name].kind == entry.task for name, entry in timetable.items()):
        return found
    rows = [
        {"entry": name, "kind": entry.task, "seconds": entry.every.total_seconds(), "policy": entry.policy}
        for name, entry in timetable.items()
    ]
    with database.transaction() as connection:
        schedules.register(connection, rows)
        found = {one.entry: one for one in schedules.standings(connection)}
    log.info("timetable_followed", entries=sorted(timetable))
    return found


def _needs_a_look(reading: EntryReading, entry: Entry) -> bool:
    """Whether a tick has passed, an occurrence may be sent, or the entry was edited."""
    edited = (reading.every, reading.policy) != (entry.every, entry.policy)
    passed = rules.tick_number(reading.now, reading.every) > rules.tick_number(reading.last_tick, reading.every)
    return edited or passed or (reading.free_at is not None and reading.free_at <= reading.now)


def _follow(connection: Connection, name: str, entry: Entry) -> UUID | None:
    """Bring one entry up to now under its lock; the occurrence to send, if one is."""
    locked = schedules.lock(connection, kind=entry.task)
    if locked is None:
        return None
    rule = rules.Rule(locked.every, cast("Policy", locked.policy))
    standing = rules.Standing(rule, locked.since, locked.last_tick, locked.earlier)
    room = rules.OPEN_AT_ONCE - schedules.waiting(connection, kind=entry.task)
    plan = rules.plan(standing, rule=rules.Rule(entry.every, entry.policy), now=locked.now, room=room)
    _record(connection, name, entry, plan)
    if rule.policy != "all" and plan.newest is not None:
        schedules.supersede(connection, kind=entry.task, before=plan.newest, reason=SUPERSEDED)
    schedules.give_up(connection, kind=entry.task)
    return schedules.next_to_send(connection, kind=entry.task)


def _record(connection: Connection, name: str, entry: Entry, plan: rules.Plan) -> None:
    rows: list[dict[str, Any]] = [_row(name, tick, "pending") for tick in plan.due]
    skipped = plan.skipped
    if skipped is not None:
        span = {"ticks": skipped.ticks, "from": skipped.first.isoformat(), "to": skipped.last.isoformat()}
        rows.append(_row(name, skipped.last, "skipped", result=span, error=skipped.reason))
        log.info("occurrences_skipped", entry=name, **span)
    if rows:
        schedules.open_occurrences(connection, kind=entry.task, queue=entry.queue.value, rows=rows)
    after = plan.after
    schedules.follow(
        connection,
        kind=entry.task,
        every=after.rule.every,
        policy=after.rule.policy,
        since=after.since,
        last_tick=after.last_tick,
        earlier=after.earlier,
        skipped=skipped.ticks if skipped is not None else 0,
    )


def _row(
    name: str, tick: datetime, status: str, *, result: Mapping[str, Any] | None = None, error: str | None = None
) -> dict[str, Any]:
    moment = tick.isoformat()
    return {"key": f"{name}@{moment}", "due_at": moment, "status": status, "result": result, "error": error}


def _retire(database: Database, reading: EntryReading) -> None:
    """Close the books on what an entry still owed when it left the timetable."""
    if reading.free_at is None or reading.now - reading.free_at < RETIRED_AFTER:
        return
    with database.transaction() as connection:
        if schedules.lock(connection, kind=reading.kind) is not None:
            schedules.supersede(connection, kind=reading.kind, before=reading.now, reason=RETIRED)
