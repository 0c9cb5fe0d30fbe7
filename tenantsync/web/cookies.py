"""Logging in and out on pages: the session's cookie, and where to go afterwards."""

from urllib.parse import urlsplit
from uuid import UUID

from fastapi import Request
from starlette.responses import Response

from db.repositories.identity import UserRow
from tenantsync.identity import logins
from tenantsync.web.problems import Problem
from tenantsync.web.services import Services
from tenantsync.web.viewers import Viewer, client_address, cookie_name, is_same_origin

HOME = "/"


def log_in(request: Request, response: Response, *, email: str, password: str) -> UserRow:
    """Begin a session and give the response its cookie.

    Raises logins.LogInRefused or logins.TooManyAttempts, and a Problem for a form of another site.
    """
    services: Services = request.app.state.services
    if not is_same_origin(request, services):
        raise Problem(403, detail="This came from a page of another site.", kind="cross-site")
    begun = logins.log_in(
        services.database,
        services.tokens,
        email=email,
        password=password,
        address=client_address(request),
        use="cookie",
        user_agent=request.headers.get("user-agent"),
    )
    name = cookie_name(services)
    response.set_cookie(
        name,
        begun.token,
        max_age=int(begun.lifetime.total_seconds()),
        path="/",
        httponly=True,
        samesite="lax",
        secure=name.startswith("__Host-"),
    )
    return begun.user


def log_out(request: Request, response: Response, viewer: Viewer) -> None:
    """End the viewer's session and take its cookie away."""
    services: Services = request.app.state.services
    if viewer.session_id is not None:
        logins.log_out(services.database, session_id=viewer.session_id, user_id=UUID(viewer.user_id))
    name = cookie_name(services)
    response.delete_cookie(name, path="/", httponly=True, samesite="lax", secure=name.startswith("__Host-"))


def same_site_path(target: str | None) -> str:
    """Where `next` leads, if that is a path of ours; the start page otherwise."""
    if not target or not target.startswith("/") or target[1:2] in ("/", "\\"):
        return HOME
    if not target.isprintable() or "\\" in target:
        return HOME
    parts = urlsplit(target)
    return target if not parts.scheme and not parts.netloc else HOME
