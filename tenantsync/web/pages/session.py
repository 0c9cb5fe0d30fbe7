"""Logging in and out, and what is remembered of a browser: language and theme."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from db.repositories import identity
from tenantsync.identity import logins, people
from tenantsync.identity.people import LANGUAGES
from tenantsync.web.cookies import log_in, log_out, same_site_path
from tenantsync.web.pages.common import Looking, Next, PageRoute
from tenantsync.web.pages.rendering import (
    A_YEAR,
    LANGUAGE_COOKIE,
    THEME_COOKIE,
    THEMES,
    back,
    language_of,
    page,
    set_cookie,
)
from tenantsync.web.pages.texts import speaker
from tenantsync.web.problems import Problem
from tenantsync.web.services import Parts
from tenantsync.web.viewers import MaybeSignedIn, is_same_origin

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/login")
def log_in_page(request: Request, viewer: MaybeSignedIn) -> Response:
    """The form; whoever is in already goes on."""
    target = same_site_path(request.query_params.get("next"))
    if viewer is not None:
        return RedirectResponse(target, status_code=303)
    return _form(request, target)


def _form(request: Request, target: str, *, email: str = "", error: str = "", status: int = 200) -> Response:
    return page(request, None, "login.html", status=status, next=target, email=email, error=error)


@router.post("/login")
def begin(
    request: Request,
    email: Annotated[str, Form(max_length=254)] = "",
    password: Annotated[str, Form(max_length=512)] = "",
    onward: Next = "/",
) -> Response:
    """Begin a session, or say why not."""
    target = same_site_path(onward)
    response = RedirectResponse(target, status_code=303)
    speak = speaker(language_of(request, None))
    try:
        log_in(request, response, email=email, password=password)
    except logins.LogInRefused:
        return _form(request, target, email=email, error=speak("login.refused"), status=401)
    except logins.TooManyAttempts as error:
        wait = speak("login.too_many", seconds=f"{error.retry_after:.0f}")
        return _form(request, target, email=email, error=wait, status=429)
    return response


@router.post("/logout")
def end(request: Request, viewer: Looking) -> Response:
    """End the session."""
    response = RedirectResponse("/login", status_code=303)
    log_out(request, response, viewer)
    return response


@router.post("/preferences")
def prefer(
    request: Request,
    parts: Parts,
    viewer: MaybeSignedIn,
    language: Annotated[str | None, Form(max_length=10)] = None,
    theme: Annotated[str | None, Form(max_length=10)] = None,
    onward: Next = "/",
) -> Response:
    """Remember a language or a theme; a person's language is theirs on every machine."""
    if not is_same_origin(request, parts):
        raise Problem(403)
    response = back(request, onward)
    if language in LANGUAGES:
        set_cookie(request, response, LANGUAGE_COOKIE, language, A_YEAR)
        if viewer is not None and viewer.session_id is not None and viewer.language != language:
            _keep_language(parts, UUID(viewer.user_id), language, viewer.actor)
    if theme in THEMES:
        set_cookie(request, response, THEME_COOKIE, theme, A_YEAR)
    return response


def _keep_language(parts: Parts, user_id: UUID, language: str, by: str) -> None:
    with parts.database.transaction() as connection:
        found = identity.by_id(connection, user_id=user_id)
        if found is not None:
            people.change(connection, user=found[0], name=None, role=None, language=language, disabled=None, by=by)
