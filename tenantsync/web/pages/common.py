"""What all pages share: who may look, what a failure looks like, and how a list goes on."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

import structlog
from fastapi import Depends, Form, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import RedirectResponse, Response

from db.session import is_connection_loss
from tenantsync.identity.roles import Role
from tenantsync.web.pages.rendering import page
from tenantsync.web.problems import Problem
from tenantsync.web.viewers import MaybeSignedIn, Viewer, maybe_signed_in

PAGE = 50
"""Rows of a list."""
log = structlog.get_logger(__name__)

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
KNOWN_STATUSES = frozenset({400, 401, 403, 404, 409, 413, 422, 429, 500, 503})


class LogInFirst(Exception):
    """Nobody is logged in here."""


class PageRoute(APIRoute):
    """A page whose failures are pages too, and which sends strangers to the log-in."""

    def get_route_handler(self) -> Handler:
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await inner(request)
            except LogInFirst:
                here = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
                onward = f"?next={quote(here)}" if request.method == "GET" and here != "/" else ""
                return RedirectResponse(f"/login{onward}", status_code=303)
            except Problem as problem:
                return failure(request, problem.status, problem.headers)
            except RequestValidationError:
                return failure(request, 422)
            except SQLAlchemyError as error:
                if not is_connection_loss(error):
                    raise
                log.warning("web_database_away", kind=type(error).__name__)
                return failure(request, 503, {"Retry-After": "2"})

        return handle


def failure(request: Request, status: int, headers: Any = None) -> Response:
    """A page that says what went wrong. It asks nothing of the database, which may be what is gone."""
    shown = status if status in KNOWN_STATUSES else 500
    response = page(request, None, "problem.html", status=status, code=shown)
    response.headers.update(headers or {})
    return response


def page_viewer(viewer: MaybeSignedIn) -> Viewer:
    """Whoever looks at a page."""
    if viewer is None:
        raise LogInFirst
    return viewer


Looking = Annotated[Viewer, Depends(page_viewer)]


def needs_role(*roles: Role) -> Callable[[Viewer], Viewer]:
    """A dependency for pages that not everybody has: for others they are not there."""

    def check(viewer: Looking) -> Viewer:
        if viewer.role not in roles:
            raise Problem(404)
        return viewer

    return check


OperatorLooking = Annotated[Viewer, Depends(needs_role(Role.OPERATOR))]
ManagerLooking = Annotated[Viewer, Depends(needs_role(Role.OPERATOR, Role.ADMIN))]

__all__ = ["PAGE", "Looking", "ManagerLooking", "OperatorLooking", "PageRoute", "maybe_signed_in"]

Next = Annotated[str, Form(alias="next", max_length=2000)]
"""Where a form wants to be afterwards."""


def uuid_or_404(value: str) -> UUID:
    """The id in an address. Raises a 404: there is nothing of another kind of name."""
    try:
        return UUID(value)
    except ValueError:
        raise Problem(404) from None
