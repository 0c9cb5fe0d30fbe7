"""People who may log in to a sandbox: an operator, and an admin and a member of two tenants. Passwords are made up."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.population import Planted
from sandbox.world import World
from tenantsync.identity import people
from tenantsync.identity.roles import Role

TENANTS = 2


@dataclass(frozen=True, slots=True)
class LogIn:
    """What somebody logs in with."""

    email: str
    password: str
    role: Role
    tenant: str


def settle(world: World, planted: Sequence[Planted]) -> list[LogIn]:
    """Add the people, and say what they log in with."""
    wanted: list[tuple[Role, Planted | None]] = [(Role.OPERATOR, None)]
    wanted += [(role, one) for one in planted[:TENANTS] for role in (Role.ADMIN, Role.MEMBER)]
    made = []
    for role, tenant in wanted:
        name = "" if tenant is None else tenant.name
        email = f"{role}@{name.lower().replace(' ', '-') or 'tenantsync'}.example"
        password = secrets.token_urlsafe(12)
        wish = people.checked(email=email, name=f"{name} {role}".strip().capitalize(), role=role, language="en")
        hashed = people.hashed(password, email=email)
        with world.database.transaction() as connection:
            people.add(
                connection,
                wish,
                tenant_id=None if tenant is None else tenant.tenant_id,
                password_hash=hashed,
                by="sandbox",
            )
        made.append(LogIn(email, password, role, name))
    return made
