"""Lists in pages: `limit`, and an opaque `cursor` that names the last row of the page before."""

import base64
from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field

from tenantsync.web.problems import Problem

T = TypeVar("T")
Row = TypeVar("Row")

USUAL = 50
MOST = 200

Limit = Annotated[int, Query(ge=1, le=MOST, description="How many at most")]
Cursor = Annotated[
    str | None,
    Query(max_length=200, pattern="^[A-Za-z0-9_-]+$", description="`next_cursor` of the page before"),
]


class Page(BaseModel, Generic[T]):
    """One page of a list. `next_cursor` is null on the last one."""

    items: list[T]
    next_cursor: str | None = Field(None, description="For the next page: ?cursor=…")


def encoded(position: str) -> str:
    """A cursor for a position."""
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def decoded(cursor: str | None) -> str | None:
    """The position of a cursor. Raises a 422 for one that is not ours."""
    if cursor is None:
        return None
    try:
        return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except ValueError:  # not base64, not ASCII, or not UTF-8 inside
        raise _unknown() from None


def before_id(cursor: str | None) -> UUID | None:
    """The id that a cursor names. Raises a 422 for one that names none."""
    position = decoded(cursor)
    if position is None:
        return None
    try:
        return UUID(position)
    except ValueError:
        raise _unknown() from None


def page_of(
    rows: Sequence[Row], *, limit: int, shown: Callable[[Row], T], position: Callable[[Row], object]
) -> Page[T]:
    """A page of rows, of which one more was asked for than is shown, to know whether there is a next page."""
    visible = rows[:limit]
    more = len(rows) > limit
    return Page(
        items=[shown(row) for row in visible], next_cursor=encoded(str(position(visible[-1]))) if more else None
    )


def _unknown() -> Problem:
    return Problem(422, "Invalid request", "The cursor is not one that this list gave out.", kind="invalid")
