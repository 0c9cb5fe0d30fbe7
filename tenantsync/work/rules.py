"""Whether a row that a web app inserted is a task that can be done, and what to tell it if not. Pure.

Reasons name fields and rules, never what somebody wrote into them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel, ValidationError

from tenantsync.work.handlers import KIND_LENGTH, Handler, Handlers
from tenantsync.work.values import NotJson, as_object, as_text

REASONS = 5  # fields that a refusal names; the first few are what a person mends first
LONGEST_ERROR = 2000  # characters of an error_message
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,60}")
_OWN_RULES = {"value_error", "assertion_error"}
"""Texts of a model's own validators may quote what they were given. One that wants to be heard raises
PydanticCustomError."""

NO_TENANT = "the workers know no such tenant"
NO_WORKSPACE = "the tenant has no such workspace"
CANCELLED = "cancelled before it was taken in"


class Unreadable(ValueError):
    """A row that is no task at all: without an id or a tenant."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A row of Supabase's table as it was inserted."""

    id: UUID
    tenant_id: UUID
    workspace_id: UUID | None
    kind: str
    payload: Any
    priority: int
    created_by: str | None
    """As the API names somebody of Supabase; never what could be taken for one of our own users."""
    cancelled: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a row: pending, or over at once with an error."""

    status: str
    error: str | None = None
    payload: Mapping[str, Any] | None = None


def read(row: Mapping[str, Any]) -> Asked:
    """A row as it came over the network. Raises Unreadable."""
    try:
        workspace = row.get("workspace_id")
        return Asked(
            id=UUID(row["id"]),
            tenant_id=UUID(row["tenant_id"]),
            workspace_id=None if workspace is None else UUID(workspace),
            kind=as_text(str(row.get("kind", "")))[:KIND_LENGTH],
            payload=row.get("payload"),
            priority=min(10, max(1, int(row.get("priority") or 5))),
            created_by=None if row.get("created_by") is None else f"supabase:{as_text(str(row['created_by']))}"[:255],
            cancelled=row.get("cancel_requested_at") is not None,
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Unreadable("a task without a usable id or tenant") from None


def judge(asked: Asked, handlers: Handlers, workspaces: frozenset[UUID] | set[UUID]) -> Verdict:
    """What becomes of a task of a tenant that exists and has these workspaces (of those that were asked about)."""
    if asked.cancelled:
        return Verdict("cancelled", CANCELLED)
    if asked.workspace_id is not None and asked.workspace_id not in workspaces:
        return Verdict("failed", NO_WORKSPACE)
    handler = handlers.get(asked.kind)
    if handler is None:
        return Verdict("failed", nobody_handles(asked.kind, handlers))
    try:
        payload = as_object(asked.payload, about="the payload")
        parse(handler, payload)
    except (NotJson, Unfitting) as error:
        return Verdict("failed", str(error))
    return Verdict("pending", payload=payload)


class Unfitting(ValueError):
    """A payload that is not what the handler of its kind takes."""


def parse(handler: Handler, payload: Mapping[str, Any] | None) -> BaseModel:
    """The payload as the handler's model. Raises Unfitting."""
    try:
        return handler.payload.model_validate_json(orjson.dumps(payload if payload is not None else {}))
    except ValidationError as error:
        reasons = [_reason(one) for one in error.errors(include_url=False, include_context=False, include_input=False)]
        more = f"; and {len(reasons) - REASONS} more" if len(reasons) > REASONS else ""
        raise Unfitting(f"the payload does not fit {handler.kind}: {'; '.join(reasons[:REASONS])}{more}") from None


def _reason(problem: Any) -> str:
    """One of pydantic's errors, without what somebody wrote: keys that look like a field's name stay."""
    parts = [str(one) if isinstance(one, int) or _FIELD.fullmatch(str(one)) else "…" for one in problem["loc"]]
    rule = "is refused by its rule" if problem["type"] in _OWN_RULES else str(problem["msg"])
    return f"{'.'.join(parts) or 'it'}: {rule}"


def nobody_handles(kind: str, handlers: Handlers) -> str:
    """What to tell of a kind without a handler. Kinds are names that programs give, so this one is repeated."""
    shown = kind if re.fullmatch(r"[\w.:-]{1,100}", kind) else "…"
    return f"nobody handles tasks of the kind {shown!r}; there are {', '.join(handlers.kinds)}"


def failure(error: BaseException, handler: Handler) -> str:
    """What is told of a handler's exception: its type, and its message where the handler calls it safe."""
    name = type(error).__name__
    if not isinstance(error, handler.safe):
        return f"{name}: the handler of {handler.kind} failed; the worker's log says where"
    message = as_text(str(error))[:LONGEST_ERROR].strip()
    return f"{name}: {message}" if message else name


def unfinished(seconds: float) -> str:
    """What is told of a run that took too long."""
    return f"did not finish within {seconds:g} s"
