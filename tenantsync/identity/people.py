"""Adding, changing and disabling the people who log in. Every change is written into the audit log."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from db.repositories import identity, tenants
from db.repositories.identity import UserRow
from tenantsync.identity import passwords
from tenantsync.identity.roles import Role

LANGUAGES = ("en", "ja")
LONGEST_NAME = 100
LONGEST_EMAIL = 254
_EMAIL = re.compile(r"[^@\s<>\"(),:;\\\[\]]{1,64}@[^@\s<>\"(),:;\\\[\]]{1,189}")


class UserRefused(Exception):
    """A person who cannot be added or changed like this; says why."""


class EmailTaken(UserRefused):
    """Somebody logs in with this address already."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Somebody who is to be added, checked."""

    email: str
    name: str
    role: Role
    language: str


def checked(*, email: str, name: str, role: Role, language: str) -> Wish:
    """Raises UserRefused for what no person can have."""
    email, name = email.strip(), name.strip()
    if not _EMAIL.fullmatch(email) or len(email) > LONGEST_EMAIL or not email.isprintable():
        raise UserRefused("This is not an e-mail address.")
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise UserRefused(f"A name should have at most {LONGEST_NAME} printable characters.")
    if language not in LANGUAGES:
        raise UserRefused(f"The language should be one of {', '.join(LANGUAGES)}.")
    return Wish(email, name, role, language)


def hashed(password: str, *, email: str) -> str:
    """What is stored of a password. Raises UserRefused for one that is unfit."""
    try:
        passwords.check_fit(password, email=email)
    except passwords.PasswordUnfit as error:
        raise UserRefused(f"{str(error)[0].upper()}{str(error)[1:]}.") from None
    return passwords.hashed(password)


def add(connection: Connection, wish: Wish, *, tenant_id: UUID | None, password_hash: str | None, by: str) -> UserRow:
    """Add somebody. Raises UserRefused."""
    if (wish.role is Role.OPERATOR) != (tenant_id is None):
        raise UserRefused("Operators belong to no tenant, everybody else to one.")
    try:
        user = identity.add_user(
            connection,
            tenant_id=tenant_id,
            email=wish.email,
            name=wish.name,
            role=wish.role,
            password_hash=password_hash,
            language=wish.language,
        )
    except identity.EmailTaken:
        raise EmailTaken("Somebody logs in with this address already.") from None
    except identity.NoSuchTenant:
        raise UserRefused("There is no such tenant.") from None
    _remember(connection, user, "user.add", by, {"role": user.role})
    return user


def change(
    connection: Connection,
    *,
    user: UserRow,
    name: str | None,
    role: Role | None,
    language: str | None,
    disabled: bool | None,
    by: str,
) -> UserRow:
    """Change what is given. Whoever is disabled, or gets another role, is logged out. Raises UserRefused."""
    if role is not None and (role is Role.OPERATOR) != (user.tenant_id is None):
        raise UserRefused("Operators belong to no tenant, everybody else to one: add them anew.")
    changed = identity.update_user(
        connection,
        user_id=user.user_id,
        name=name,
        role=role,
        language=language,
        disabled=disabled,
    )
    if changed is None:
        raise UserRefused("They are not there any more.")
    if disabled or (role is not None and role != user.role):
        identity.revoke_all(connection, user_id=user.user_id, reason="disabled" if disabled else "another role")
    given = {"role": role, "disabled": disabled, "language": language, "name": None if name is None else "changed"}
    _remember(connection, user, "user.change", by, {key: value for key, value in given.items() if value is not None})
    return changed


def set_disabled(connection: Connection, *, user: UserRow, disabled: bool, by: str) -> UserRow:
    """Keep somebody out at once, or let them in again."""
    return change(connection, user=user, name=None, role=None, language=None, disabled=disabled, by=by)


def set_password(
    connection: Connection, *, user: UserRow, password_hash: str, by: str, but: UUID | None = None
) -> None:
    """Set a password. All sessions end, but for the one named."""
    identity.update_user(connection, user_id=user.user_id, password_hash=password_hash)
    identity.revoke_all(connection, user_id=user.user_id, reason="new password", but=but)
    _remember(connection, user, "user.password", by, {})


def _remember(connection: Connection, user: UserRow, action: str, by: str, details: Mapping[str, Any]) -> None:
    tenants.write_audit_log(
        connection,
        tenant_id=user.tenant_id,
        actor=by,
        action=action,
        details={"user_id": str(user.user_id), **details},
    )
