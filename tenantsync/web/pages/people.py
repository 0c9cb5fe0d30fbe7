"""`/people`: who logs in. Operators see everybody, admins their own tenant's."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from db.repositories import identity, tenant_lists, tenants
from db.repositories.identity import UserRow
from tenantsync.identity import people
from tenantsync.identity.people import UserRefused
from tenantsync.identity.roles import Role
from tenantsync.web.pages.common import PAGE, ManagerLooking, Next, PageRoute, uuid_or_404
from tenantsync.web.pages.rendering import back, bad, good, language_of, page, query
from tenantsync.web.paging import before_id, encoded
from tenantsync.web.problems import not_found
from tenantsync.web.services import Parts
from tenantsync.web.viewers import Viewer

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/people")
def listed(request: Request, viewer: ManagerLooking, parts: Parts) -> Response:
    """Everybody who may log in, the newest first."""
    return _show(request, viewer, parts)


def _show(
    request: Request, viewer: Viewer, parts: Parts, *, error: str = "", given: dict[str, str] | None = None
) -> Response:
    asked = request.query_params
    with parts.database.statement() as connection:
        rows = identity.listed(
            connection, tenant_id=viewer.scope, before=before_id(asked.get("cursor")), limit=PAGE + 1
        )
        names = tenant_lists.names(connection, ids={row.tenant_id for row in rows if row.tenant_id is not None})
    return page(
        request,
        viewer,
        "people.html",
        status=422 if error else 200,
        rows=rows[:PAGE],
        names=names,
        roles=_roles(viewer),
        error=error,
        given=given or {},
        first="?" if asked.get("cursor") else None,
        next=query(cursor=encoded(str(rows[PAGE - 1].user_id))) if len(rows) > PAGE else None,
    )


def _roles(viewer: Viewer) -> list[str]:
    return [role.value for role in Role if role is not Role.OPERATOR or viewer.role is Role.OPERATOR]


@router.post("/people")
def add(
    request: Request,
    viewer: ManagerLooking,
    parts: Parts,
    email: Annotated[str, Form(max_length=300)] = "",
    name: Annotated[str, Form(max_length=300)] = "",
    role: Annotated[str, Form(max_length=20)] = Role.MEMBER.value,
    password: Annotated[str, Form(max_length=512)] = "",
    tenant: Annotated[str, Form(max_length=300)] = "",
) -> Response:
    """Add somebody."""
    given = {"email": email, "name": name, "role": role, "tenant": tenant}
    try:
        chosen = _role(viewer, role)
        wish = people.checked(email=email, name=name, role=chosen, language=language_of(request, viewer))
        tenant_id = _tenant(parts, viewer, wish.role, tenant)
        hashed = people.hashed(password, email=wish.email)
        with parts.database.transaction() as connection:
            people.add(connection, wish, tenant_id=tenant_id, password_hash=hashed, by=viewer.actor)
    except UserRefused as error:
        return _show(request, viewer, parts, error=str(error), given=given)
    return back(request, "/people", good("flash.person_added"))


def _role(viewer: Viewer, named: str) -> Role:
    if named not in _roles(viewer):
        raise UserRefused("Choose one of the roles.")
    return Role(named)


def _tenant(parts: Parts, viewer: Viewer, role: Role, named: str) -> UUID | None:
    if viewer.role is not Role.OPERATOR:
        return viewer.tenant_id
    if role is Role.OPERATOR:
        return None
    with parts.database.statement() as connection:
        found = tenants.find_tenant(connection, named.strip())
    if found is None:
        raise UserRefused("There is no such tenant.")
    return found[0]


@router.post("/people/{user}/{wish}")
def steer(user: str, wish: str, request: Request, viewer: ManagerLooking, parts: Parts, onward: Next) -> Response:
    """Keep somebody out at once, or let them in again."""
    if wish not in ("disable", "enable"):
        raise not_found("page")
    user_id = uuid_or_404(user)
    if str(user_id) == viewer.user_id:
        return back(request, onward, bad("flash.not_yourself"))
    with parts.database.transaction() as connection:
        found = identity.by_id(connection, user_id=user_id)
        if found is None or not _manages(viewer, found[0]):
            raise not_found("user")
        people.set_disabled(connection, user=found[0], disabled=wish == "disable", by=viewer.actor)
    return back(request, onward, good("flash.person_disabled" if wish == "disable" else "flash.person_enabled"))


def _manages(viewer: Viewer, user: UserRow) -> bool:
    return viewer.role is Role.OPERATOR or (user.tenant_id is not None and user.tenant_id == viewer.tenant_id)
