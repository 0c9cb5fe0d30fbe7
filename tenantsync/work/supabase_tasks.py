"""Supabase's table of tasks, as the workers see it: what was asked for, what is to be cancelled."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from tenantsync.mirror.supabase import Supabase
from tenantsync.work.values import BEYOND

TABLE = "tasks"
# The payload as text: a depth or a number that no parser takes would make the whole page unreadable, for everybody.
NEW = "id,tenant_id,workspace_id,kind,payload::text,priority,created_by,created_at,cancel_requested_at"
REFUSED_VERSION = 1
"""What a row gets that is refused without ever having a row here; nobody else gives it a version."""

Row = Mapping[str, Any]


class SupabaseTasks:
    """The table `tasks` of one project. Raises MirrorError."""

    def __init__(self, supabase: Supabase) -> None:
        self._supabase = supabase

    def new(self, *, after: Row | None, limit: int) -> list[dict[str, Any]]:
        """Rows that no worker has told of yet, the most urgent and then the oldest first, behind the row `after`."""
        query = self._supabase.query(TABLE).select(NEW).eq("version", 0)
        if after is not None:
            priority, moment, row = after["priority"], f'"{after["created_at"]}"', after["id"]
            query = query.or_(
                f"priority.gt.{priority},and(priority.eq.{priority},created_at.gt.{moment}),"
                f"and(priority.eq.{priority},created_at.eq.{moment},id.gt.{row})"
            )
        found = self._supabase.found(query.order("priority").order("created_at").order("id").limit(limit))
        return [{**row, "payload": _read(row.get("payload"))} for row in found]

    def to_cancel(self, *, after: Row | None, limit: int) -> list[dict[str, Any]]:
        """Rows taken in that somebody wants cancelled and that are not over, behind the row `after`."""
        query = (
            self._supabase.query(TABLE)
            .select("id,tenant_id,cancel_requested_at")
            .gt("version", 0)
            .in_("status", ["pending", "processing", "waiting"])
        )
        if after is None:
            query = query.not_.is_("cancel_requested_at", "null")
        else:
            moment = f'"{after["cancel_requested_at"]}"'
            query = query.or_(
                f"cancel_requested_at.gt.{moment},and(cancel_requested_at.eq.{moment},id.gt.{after['id']})"
            )
        return self._supabase.found(query.order("cancel_requested_at").order("id").limit(limit))

    def refuse(self, rows: Sequence[tuple[Row, str]], *, now: str) -> None:
        """Fail rows that can have none here, because their tenant is nobody's: (row, reason)."""
        told = [
            {
                "id": row["id"],
                "tenant_id": row["tenant_id"],
                "status": "failed",
                "error_message": reason,
                "completed_at": now,
                "version": REFUSED_VERSION,
            }
            for row, reason in rows
        ]
        self._supabase.apply("tasks", told)


def _read(payload: Any) -> Any:
    """A payload out of its text, or BEYOND where it cannot be read."""
    if not isinstance(payload, str):
        return payload
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return BEYOND
