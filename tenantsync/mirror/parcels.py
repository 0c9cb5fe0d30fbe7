"""What a call carries: rows as the outbox knows them, as they travel, and what a refusal means for them. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from db.repositories.deliveries import Settled
from db.repositories.mirroring import Key
from tenantsync.mirror.supabase import Rejected

Row = dict[str, Any]

PROCESS_EVENTS = "process_events"


def travelling(entity: str, rows: Sequence[Row]) -> Sequence[Row]:
    """Rows as Supabase wants them."""
    if entity == "tasks":
        return [{**row, "id": row["supabase_task_id"]} for row in rows]
    if entity == PROCESS_EVENTS:
        return [event for row in rows for event in row["events"]]
    return rows


def refusals(entity: str, rows: Sequence[Row], rejected: Iterable[Rejected]) -> dict[str, str]:
    """SQLSTATEs by the outbox' row id."""
    by_name = {row["supabase_task_id"]: row["id"] for row in rows} if entity == "tasks" else {}
    return {by_name.get(one.row_id, one.row_id): one.sqlstate for one in rejected}


def unstopped(rows: Sequence[Row], before: Sequence[Row], rejected: Iterable[Rejected]) -> list[Row]:
    """Of rows that follow, those that may still be sent: no event goes after one of its process that was refused."""
    names = {one.row_id for one in rejected}
    stopped = {row["process_id"] for row in before if "process_id" in row and row["id"] in names}
    return [row for row in rows if row.get("process_id") not in stopped] if stopped else list(rows)


def settled(keys: Iterable[Key], rows: Sequence[Row], rejected: Iterable[Rejected]) -> list[Settled]:
    """What a call with events of processes came to, a process at a time."""
    known = {row["id"]: row for row in rows}
    sqlstates = {one.row_id: one.sqlstate for one in rejected}
    return [_settled(key, known.get(str(key.row_id)), sqlstates) for key in keys]


def _settled(key: Key, row: Row | None, sqlstates: Mapping[str, str]) -> Settled:
    if row is None:  # what it had to say is delivered already, or was cleaned away
        return Settled(key.tenant_id, key.row_id, key.version)
    if row["held"]:
        return Settled(key.tenant_id, key.row_id, key.version, held=True)
    for event in row["events"]:
        if event["id"] in sqlstates:
            last = max(key.version, int(row["version"]))
            return Settled(key.tenant_id, key.row_id, last, event["sequence"] - 1, sqlstates[event["id"]])
    return Settled(key.tenant_id, key.row_id, int(row["version"]), int(row["version"]))


def arrived(rows: Sequence[Row], told: Iterable[Settled]) -> list[Row]:
    """The events that Supabase has now."""
    upto: dict[str, int] = defaultdict(int)
    upto |= {str(one.row_id): one.delivered or 0 for one in told}
    return [event for row in rows for event in row["events"] if event["sequence"] <= upto[row["id"]]]


def parked(told: Iterable[Settled]) -> list[Row]:
    """Rows for mirror.parked_rows."""
    return [
        {
            "tenant_id": one.tenant_id,
            "entity": PROCESS_EVENTS,
            "row_id": one.row_id,
            "version": one.version,
            "sqlstate": one.sqlstate,
            "reason": f"Supabase refuses event {(one.delivered or 0) + 1} of the process; later ones wait behind it",
        }
        for one in told
        if one.sqlstate is not None
    ]
