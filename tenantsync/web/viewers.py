"""Who asks: a browser with a cookie, or a program with a bearer token; and what they may."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum
from typing import Annotated, Literal
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPBearer

from tenantsync.identity import logins
from tenantsync.identity.roles import Person, Role
from tenantsync.identity.tokens import ISSUER, LONGEST_TOKEN, TokenRefused, issuer_of
from tenantsync.web.problems import Problem, not_found
from tenantsync.web.services import Parts, Services

COOKIE = "tenantsync"
SECURE_COOKIE = "__Host-tenantsync"
CSRF_FIELD = "csrf_token"
CSRF_HEADER = "X-CSRF-Token"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
LONGEST_FORM_FIELDS = 100


class _Whatever(Enum):
    """Stands for "in whichever workspace", which is not the same as "in none"."""

    WORKSPACE = "workspace"


ANY = _Whatever.WORKSPACE
Workspace = UUID | None | Literal[_Whatever.WORKSPACE]

bearer_scheme = HTTPBearer(
    scheme_name="bearer",
    bearerFormat="JWT",
    description="An access token of `POST /api/v1/auth/login`, or one of the Supabase project's users.",
    auto_error=False,
)
cookie_scheme = APIKeyCookie(
    name=COOKIE,
    scheme_name="cookie",
    description=f"The dashboard's session. Unsafe methods need its CSRF token in `{CSRF_HEADER}` besides.",
    auto_error=False,
)


@dataclass(frozen=True, slots=True)
class Viewer(Person):
    """Whoever makes this request. Streams end with their token."""

    via: Literal["cookie", "bearer"]

    def sees(self, tenant_id: UUID, workspace_id: Workspace = ANY) -> bool:
        """Whether the tenant is theirs to see, or a row of it: of a workspace, or with None the whole tenant's.

        As at Supabase, what is the whole tenant's is not for those who are kept to workspaces.
        """
        if self.role is Role.OPERATOR:
            return True
        if tenant_id != self.tenant_id:
            return False
        return workspace_id is ANY or self.workspace_ids is None or workspace_id in self.workspace_ids

    def must_see(self, tenant_id: UUID, workspace_id: Workspace = ANY, *, what: str = "tenant") -> None:
        """Raise a 404 unless this is theirs to see."""
        if not self.sees(tenant_id, workspace_id):
            raise not_found(what)

    @property
    def scope(self) -> UUID | None:
        """The tenant whose rows a list shows; None is every tenant's, for operators."""
        return None if self.role is Role.OPERATOR else self.tenant_id

    @property
    def actor(self) -> str:
        """How the audit log and processes name them."""
        return self.user_id if ":" in self.user_id else f"user:{self.user_id}"


def own_origin(request: Request, services: Services) -> str:
    """The origin that our pages are loaded from."""
    if services.settings.public_url:
        parts = urlsplit(services.settings.public_url)
        return f"{parts.scheme}://{parts.netloc}"
    return f"{request.url.scheme}://{request.url.netloc}"


def is_same_origin(request: Request, services: Services) -> bool:
    """Whether a browser says that one of our own pages sent this; programs say nothing and may pass."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    return origin is None or origin == own_origin(request, services)


def cookie_name(services: Services) -> str:
    """With TLS a name that no other host of the domain can set."""
    return SECURE_COOKIE if (services.settings.public_url or "").startswith("https://") else COOKIE


async def _form_token(request: Request) -> str | None:
    """The CSRF token that an unsafe request carries, in its header or in its form."""
    if request.method in SAFE or request.headers.get("authorization"):
        return None
    sent = request.headers.get(CSRF_HEADER)
    if sent is not None:
        return sent
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        value = (await request.form(max_fields=LONGEST_FORM_FIELDS)).get(CSRF_FIELD)
        return value if isinstance(value, str) else None
    return None


def _unauthorised(detail: str) -> Problem:
    return Problem(401, detail=detail, headers={"WWW-Authenticate": 'Bearer realm="tenantsync"'})


def maybe_signed_in(
    request: Request,
    parts: Parts,
    form_token: Annotated[str | None, Depends(_form_token)],
    _bearer: Annotated[object, Depends(bearer_scheme)],
    _cookie: Annotated[object, Depends(cookie_scheme)],
) -> Viewer | None:
    """The viewer, or None for somebody who shows nothing or something that is not good."""
    authorization = request.headers.get("authorization")
    try:
        if authorization is not None:
            return _by_bearer(parts, authorization)
        token = request.cookies.get(cookie_name(parts))
        if token is None:
            return None
        person = logins.whose(parts.database, parts.tokens, token=token, use="cookie")
    except TokenRefused:
        return None
    if request.method not in SAFE:
        _check_forgery(request, parts, person, form_token)
    return _viewer(person, "cookie")


def signed_in(viewer: Annotated[Viewer | None, Depends(maybe_signed_in)]) -> Viewer:
    """The viewer. Answers 401 to everybody else."""
    if viewer is None:
        raise _unauthorised("Log in, or send a token that is still good.")
    return viewer


def needs(*roles: Role) -> Callable[[Viewer], Viewer]:
    """A dependency: the viewer, if they have one of these roles."""

    def check(viewer: Annotated[Viewer, Depends(signed_in)]) -> Viewer:
        if viewer.role not in roles:
            raise Problem(403, detail=f"This needs the role {' or '.join(roles)}.")
        return viewer

    return check


SignedIn = Annotated[Viewer, Depends(signed_in)]
MaybeSignedIn = Annotated[Viewer | None, Depends(maybe_signed_in)]
Operator = Annotated[Viewer, Depends(needs(Role.OPERATOR))]
Manager = Annotated[Viewer, Depends(needs(Role.OPERATOR, Role.ADMIN))]
"""For an endpoint's signature: `viewer: SignedIn`."""


def csrf_token(request: Request, viewer: Viewer) -> str:
    """What the forms and scripts of a page send along."""
    services: Services = request.app.state.services
    return services.tokens.csrf(viewer.session_id) if viewer.session_id is not None else ""


def client_address(request: Request) -> str:
    """Where a request comes from; uvicorn has put a trusted proxy's word in already."""
    return request.client.host if request.client else ""


def _by_bearer(parts: Services, authorization: str) -> Viewer:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise TokenRefused("scheme")
    token = token.strip()
    if len(token) > LONGEST_TOKEN:
        raise TokenRefused("length")
    if issuer_of(token) == ISSUER:
        return _viewer(logins.whose(parts.database, parts.tokens, token=token, use="access"), "bearer")
    return _viewer(parts.supabase_tokens.whose(token), "bearer")


def _check_forgery(request: Request, parts: Services, person: Person, form_token: str | None) -> None:
    if not is_same_origin(request, parts):
        raise Problem(403, detail="This came from a page of another site.", kind="cross-site")
    if person.session_id is None or form_token is None or not parts.tokens.is_csrf(person.session_id, form_token):
        raise Problem(
            403, detail="The form is too old, or not ours. Load the page again and send it anew.", kind="csrf"
        )


def _viewer(person: Person, via: Literal["cookie", "bearer"]) -> Viewer:
    return Viewer(**{one.name: getattr(person, one.name) for one in fields(Person)}, via=via)
