"""Queries with a parameter that nobody reads are refused: it was a typing error, or was meant to narrow something."""

from collections.abc import Iterator
from typing import Any

from fastapi import Request

from tenantsync.web.problems import Problem

_known: dict[int, frozenset[str]] = {}


async def known_query(request: Request) -> None:
    """A dependency of every route of the API."""
    if not request.query_params:
        return
    names = _names(request.scope["route"])
    unknown = [name for name in request.query_params if name not in names]
    if unknown:
        errors = [
            {"loc": ["query", name if name.isidentifier() else "?"], "msg": "is not a parameter", "type": "unknown"}
            for name in unknown[:5]
        ]
        raise Problem(422, "Invalid request", "See errors for each parameter.", kind="invalid", errors=errors)


def _names(route: Any) -> frozenset[str]:
    found = _known.get(id(route))
    if found is None:
        found = _known[id(route)] = frozenset(_read(route.dependant))
    return found


def _read(dependant: Any) -> Iterator[str]:
    """The names that an endpoint and everything that it depends on read."""
    yield from (field.alias for field in dependant.query_params)
    for below in dependant.dependencies:
        yield from _read(below)
