"""`/api/v1/auth`: logging in and out, staying in, and who one is."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from db.repositories import identity
from tenantsync.identity import logins
from tenantsync.identity.logins import LoggedIn
from tenantsync.identity.roles import Role
from tenantsync.web.fields import Body, Email, Flag, Id, Moment, Shown
from tenantsync.web.problems import Problem, not_found, responses
from tenantsync.web.services import Parts
from tenantsync.web.viewers import SignedIn, Viewer, client_address

router = APIRouter(prefix="/auth", tags=["auth"])
MOST_SESSIONS = 100


class Credentials(Body):
    """What somebody logs in with."""

    email: Email
    password: str = Field(min_length=1, max_length=512, examples=["correct horse battery staple"])


class RefreshRequest(Body):
    """The token of the answer before."""

    refresh_token: str = Field(min_length=1, max_length=200)


class TokenPair(Shown):
    """An access token for the header `Authorization: Bearer …`, and what gets the next one."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 — the name of a kind
    expires_in: int = Field(description="Seconds that the access token is good for")
    refresh_token: str = Field(description="Good once. One that comes again ends the session")
    session_ends: Moment


class Me(Shown):
    """Who a token or cookie stands for."""

    user_id: str
    role: Role
    tenant_id: UUID | None
    workspace_ids: list[UUID] | None = Field(description="null: all of the tenant's")
    name: str
    language: str
    session_id: UUID | None


class Session(Shown):
    """A log-in."""

    session_id: UUID
    created_at: Moment
    expires_at: Moment
    last_used_at: Moment
    user_agent: str | None
    current: bool


class Sessions(Shown):
    """One's log-ins, the newest first."""

    items: list[Session]
    next_cursor: None = None


@router.post("/login", operation_id="logIn", responses=responses(401, 422, 429))
def log_in(credentials: Credentials, request: Request, parts: Parts) -> TokenPair:
    """Log in with e-mail address and password."""
    try:
        begun = logins.log_in(
            parts.database,
            parts.tokens,
            email=credentials.email,
            password=credentials.password,
            address=client_address(request),
            use="access",
            user_agent=request.headers.get("user-agent"),
        )
    except logins.TooManyAttempts as error:
        raise too_many(error) from None
    except logins.LogInRefused:
        raise Problem(401, detail="E-mail address and password do not belong together.", kind="credentials") from None
    return _pair(begun)


@router.post("/refresh", operation_id="refreshTokens", responses=responses(401, 422))
def refresh(given: RefreshRequest, parts: Parts) -> TokenPair:
    """Exchange a refresh token for new tokens."""
    try:
        return _pair(logins.refresh(parts.database, parts.tokens, refresh_token=given.refresh_token))
    except logins.LogInRefused:
        raise Problem(401, detail="The refresh token is not good any more. Log in.", kind="credentials") from None


@router.post(
    "/logout", operation_id="logOut", status_code=204, response_class=Response, responses=responses(401, 403, 409, 422)
)
def log_out(
    viewer: SignedIn,
    parts: Parts,
    everywhere: Annotated[Flag, Query(description="End all of one's sessions")] = False,
) -> Response:
    """End this session, or all of one's sessions."""
    user_id, session_id = _own(viewer)
    if everywhere:
        logins.log_out_everywhere(parts.database, user_id=user_id)
    else:
        logins.log_out(parts.database, session_id=session_id, user_id=user_id)
    return Response(status_code=204)


@router.get("/me", operation_id="getMe", responses=responses(401))
def me(viewer: SignedIn) -> Me:
    """Who one is."""
    workspaces = None if viewer.workspace_ids is None else sorted(viewer.workspace_ids)
    return Me(
        user_id=viewer.user_id,
        role=viewer.role,
        tenant_id=viewer.tenant_id,
        workspace_ids=workspaces,
        name=viewer.name,
        language=viewer.language,
        session_id=viewer.session_id,
    )


@router.get("/sessions", operation_id="listSessions", responses=responses(401, 409))
def sessions(viewer: SignedIn, parts: Parts) -> Sessions:
    """One's open sessions."""
    user_id, session_id = _own(viewer)
    with parts.database.statement() as connection:
        rows = identity.sessions(connection, user_id=user_id, limit=MOST_SESSIONS)
    return Sessions(items=[Session(**row, current=row["session_id"] == session_id) for row in rows])


@router.delete(
    "/sessions/{session_id}",
    operation_id="endSession",
    status_code=204,
    response_class=Response,
    responses=responses(401, 403, 404, 409, 422),
)
def end_session(session_id: Id, viewer: SignedIn, parts: Parts) -> Response:
    """End one of one's sessions."""
    user_id, _ = _own(viewer)
    if not logins.log_out(parts.database, session_id=session_id, user_id=user_id, reason="ended by its owner"):
        raise not_found("session")
    return Response(status_code=204)


def too_many(error: logins.TooManyAttempts) -> Problem:
    """The 429 of a log-in that came too soon."""
    wait = max(1, round(error.retry_after + 0.5))
    return Problem(
        429,
        detail=f"Too many attempts to log in. The next one may be made in {wait} s.",
        kind="attempts",
        headers={"Retry-After": str(wait)},
    )


def _own(viewer: Viewer) -> tuple[UUID, UUID]:
    if viewer.session_id is None:
        raise Problem(409, detail="Supabase keeps your sessions. End them there.", kind="foreign-session")
    return UUID(viewer.user_id), viewer.session_id


def _pair(begun: LoggedIn) -> TokenPair:
    return TokenPair(
        access_token=begun.token,
        expires_in=int(begun.lifetime.total_seconds()),
        refresh_token=begun.refresh_token or "",
        session_ends=begun.session_ends,
    )
