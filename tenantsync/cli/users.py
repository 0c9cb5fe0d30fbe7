"""`tenantsync user`: people who log in. Passwords come on standard input, never in argv."""

import sys
from typing import Annotated

import typer
from sqlalchemy import Connection

from db.repositories import identity
from db.repositories.identity import UserRow
from tenantsync.cli.common import JsonFlag, Refusal, actor, answering, opened, say, table, the_tenant
from tenantsync.identity import people
from tenantsync.identity.roles import Role

app = typer.Typer(no_args_is_help=True)

Email = Annotated[str, typer.Argument(help="E-mail address.")]
LISTED = 10_000


def _password() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("password", hide_input=True))
    given = sys.stdin.readline().rstrip("\r\n")
    if not given:
        raise Refusal("Give the password on standard input, as one line.")
    return given


def _the_user(connection: Connection, email: str) -> UserRow:
    found = identity.by_email(connection, email=email)
    if found is None:
        raise Refusal(f"Nobody logs in as {email!r}. `tenantsync user list` shows who does.")
    return found[0]


@app.command()
def add(
    email: Email,
    role: Annotated[Role, typer.Option(help="What they may do.")] = Role.MEMBER,
    tenant: Annotated[str | None, typer.Option(help="Name or id of their tenant; operators have none.")] = None,
    name: Annotated[str, typer.Option(help="Name to show.")] = "",
    language: Annotated[str, typer.Option(help="en or ja.")] = "en",
    json: JsonFlag = False,
) -> None:
    """Add somebody who may log in. The password is read from standard input."""
    with answering(as_json=json), opened() as (_, database):
        try:
            wish = people.checked(email=email, name=name, role=role, language=language)
            password_hash = people.hashed(_password(), email=wish.email)
            with database.transaction() as connection:
                tenant_id = None if tenant is None else the_tenant(connection, tenant)[0]
                user = people.add(connection, wish, tenant_id=tenant_id, password_hash=password_hash, by=actor())
        except people.UserRefused as error:
            raise Refusal(str(error)) from None
        say({"user_id": user.user_id, "email": user.email}, f"{user.role} {user.email} added", as_json=json)


@app.command("list")
def list_users(json: JsonFlag = False) -> None:
    """List who may log in."""
    with answering(as_json=json), opened() as (_, database):
        with database.reading() as connection:
            rows = identity.listed(connection, tenant_id=None, before=None, limit=LISTED)
        shown = [
            {
                "user_id": row.user_id,
                "email": row.email,
                "name": row.name,
                "role": row.role,
                "tenant_id": row.tenant_id,
                "disabled": row.disabled_at is not None,
                "last_login_at": row.last_login_at,
            }
            for row in rows
        ]
        lines = [(one["email"], one["name"], one["role"], one["tenant_id"], one["disabled"] or "") for one in shown]
        say({"users": shown}, table(("e-mail", "name", "role", "tenant", "disabled"), lines), as_json=json)


@app.command()
def disable(
    email: Email,
    undo: Annotated[bool, typer.Option("--undo", help="Let them in again.")] = False,
    json: JsonFlag = False,
) -> None:
    """Keep somebody out, at once: their sessions end."""
    with answering(as_json=json), opened() as (_, database):
        with database.transaction() as connection:
            user = _the_user(connection, email)
            people.set_disabled(connection, user=user, disabled=not undo, by=actor())
        word = "may log in again" if undo else "is out, and their sessions have ended"
        say({"user_id": user.user_id, "disabled": not undo}, f"{user.email} {word}", as_json=json)


@app.command()
def password(email: Email, json: JsonFlag = False) -> None:
    """Set somebody's password, read from standard input. Their sessions end."""
    with answering(as_json=json), opened() as (_, database):
        with database.reading() as connection:
            user = _the_user(connection, email)
        try:
            password_hash = people.hashed(_password(), email=user.email)
        except people.UserRefused as error:
            raise Refusal(str(error)) from None
        with database.transaction() as connection:
            people.set_password(connection, user=user, password_hash=password_hash, by=actor())
        say({"user_id": user.user_id}, f"{user.email} has a new password; their sessions have ended", as_json=json)
