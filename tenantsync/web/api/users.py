"""`/api/v1/users`: the people who log in. Operators see everybody, admins their own tenant's."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field
from sqlalchemy import Connection

from db.repositories import identity
from db.repositories.identity import UserRow
from tenantsync.identity import people
from tenantsync.identity.roles import Role
from tenantsync.web.conditional import TAGGED, Expected, Known, check_match, tagged
from tenantsync.web.fields import Body, Email, Id, Line, Moment, Shown
from tenantsync.web.once import Onced, as_answer
from tenantsync.web.paging import USUAL, Cursor, Limit, Page, before_id, page_of
from tenantsync.web.problems import Problem, not_found, responses
from tenantsync.web.services import Parts
from tenantsync.web.viewers import Manager, Viewer

router = APIRouter(prefix="/users", tags=["users"])

Password = Annotated[str, Field(min_length=1, max_length=512, description="10 characters or more")]
Name = Annotated[Line, Field(max_length=people.LONGEST_NAME)]
Language = Annotated[str, Field(pattern="^(en|ja)$")]


class User(Shown):
    """Somebody who may log in."""

    user_id: UUID
    tenant_id: UUID | None = Field(description="null for operators")
    email: str
    name: str
    role: Role
    language: str
    disabled_at: Moment | None
    last_login_at: Moment | None
    created_at: Moment
    updated_at: Moment

    @classmethod
    def of(cls, row: UserRow) -> "User":
        return cls.model_validate(row)


class NewUser(Body):
    """Somebody who is to log in."""

    email: Email
    password: Password
    role: Role = Role.MEMBER
    name: Name = ""
    language: Language = "en"
    tenant_id: Id | None = Field(None, description="Theirs; none for operators. An admin's is the admin's own")


class UserChange(Body):
    """What is to be different. A new password, another role and being disabled log them out everywhere."""

    name: Name | None = None
    role: Role | None = None
    language: Language | None = None
    disabled: bool | None = Field(None, strict=True)
    password: Password | None = None


def this_user(user_id: Id, viewer: Manager, parts: Parts) -> UserRow:
    """The user that a path names, if they are the viewer's to see."""
    with parts.database.statement() as connection:
        found = identity.by_id(connection, user_id=user_id)
    if found is None or not _manages(viewer, found[0]):
        raise not_found("user")
    return found[0]


def _manages(viewer: Viewer, user: UserRow) -> bool:
    return viewer.role is Role.OPERATOR or (user.tenant_id is not None and user.tenant_id == viewer.tenant_id)


ThisUser = Annotated[UserRow, Depends(this_user)]


@router.get("", operation_id="listUsers", responses=responses(401, 403, 404, 422, 503))
def list_users(
    viewer: Manager,
    parts: Parts,
    tenant_id: Annotated[Id | None, Query(description="Of this tenant")] = None,
    limit: Limit = USUAL,
    cursor: Cursor = None,
) -> Page[User]:
    """People, the newest first."""
    if tenant_id is not None:
        viewer.must_see(tenant_id)
    with parts.database.statement() as connection:
        rows = identity.listed(
            connection, tenant_id=viewer.scope or tenant_id, before=before_id(cursor), limit=limit + 1
        )
    return page_of(rows, limit=limit, shown=User.of, position=lambda row: row.user_id)


@router.post(
    "",
    operation_id="createUser",
    status_code=201,
    response_model=User,
    responses=responses(401, 403, 404, 409, 422, 503),
)
def create_user(new: NewUser, viewer: Manager, once: Onced) -> Response:
    """Add somebody."""
    tenant_id = new.tenant_id
    if viewer.role is Role.ADMIN:
        if new.role is Role.OPERATOR:
            raise Problem(403, detail="Operators are added by operators.")
        tenant_id = tenant_id or viewer.tenant_id
    if tenant_id is not None:
        viewer.must_see(tenant_id)
    try:
        wish = people.checked(email=new.email, name=new.name, role=new.role, language=new.language)
        password_hash = people.hashed(new.password, email=new.email)
    except people.UserRefused as error:
        raise _refused(error) from None

    def added(connection: Connection) -> Response:
        try:
            row = people.add(connection, wish, tenant_id=tenant_id, password_hash=password_hash, by=viewer.actor)
        except people.UserRefused as error:
            raise _refused(error) from None
        return as_answer(User.of(row), status=201, headers={"Location": f"/api/v1/users/{row.user_id}"})

    return once.answer(added)


@router.get(
    "/{user_id}",
    operation_id="getUser",
    response_model=User,
    responses={
        200: {"headers": TAGGED},
        304: {"description": "One has it already"},
        **responses(401, 403, 404, 422, 503),
    },
)
def get_user(row: ThisUser, known: Known) -> Response:
    """One of them."""
    return tagged(User.of(row), known)


@router.patch(
    "/{user_id}",
    operation_id="changeUser",
    response_model=User,
    responses={200: {"headers": TAGGED}, **responses(401, 403, 404, 409, 412, 422, 503)},
)
def change_user(change: UserChange, row: ThisUser, viewer: Manager, parts: Parts, expected: Expected) -> Response:
    """Change somebody, disable them, or set their password."""
    if str(row.user_id) == viewer.user_id and (change.disabled or change.role not in (None, row.role)):
        raise Problem(409, detail="Nobody disables themselves or takes their own role away.", kind="oneself")
    if change.role is Role.OPERATOR and viewer.role is not Role.OPERATOR:
        raise Problem(403, detail="Operators are added by operators.")
    try:
        password_hash = None if change.password is None else people.hashed(change.password, email=row.email)
        with parts.database.transaction() as connection:
            changed = _changed(connection, change, row, viewer, expected, password_hash)
    except people.UserRefused as error:
        raise _refused(error) from None
    return tagged(User.of(changed))


def _changed(
    connection: Connection,
    change: UserChange,
    row: UserRow,
    viewer: Viewer,
    expected: str | None,
    password_hash: str | None,
) -> UserRow:
    now = identity.locked(connection, user_id=row.user_id)
    if now is None or not _manages(viewer, now):
        raise not_found("user")
    check_match(User.of(now), expected)
    if password_hash is not None:
        but = viewer.session_id if str(row.user_id) == viewer.user_id else None
        people.set_password(connection, user=now, password_hash=password_hash, by=viewer.actor, but=but)
    return people.change(
        connection,
        user=now,
        name=None if change.name is None else change.name.strip(),
        role=change.role,
        language=change.language,
        disabled=change.disabled,
        by=viewer.actor,
    )


def _refused(error: people.UserRefused) -> Problem:
    if isinstance(error, people.EmailTaken):
        return Problem(409, detail=str(error), kind="email-taken")
    return Problem(422, "Invalid request", str(error), kind="invalid")
