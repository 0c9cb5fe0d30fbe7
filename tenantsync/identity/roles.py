"""Who somebody is to us."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class Role(StrEnum):
    """What a person may do. Each role may do what the next one may."""

    OPERATOR = "operator"
    """Runs this installation, sees every tenant."""
    ADMIN = "admin"
    """Answers for one tenant: its people, accounts, tasks and processes."""
    MEMBER = "member"
    """Belongs to one tenant, watches its processes, answers their questions, asks for tasks."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whose token was good. `session_id` is None where another system vouches for them.

    `workspace_ids` is None for all workspaces of the tenant.
    """

    user_id: str
    role: Role
    tenant_id: UUID | None
    workspace_ids: frozenset[UUID] | None
    name: str
    language: str
    session_id: UUID | None
    expires_at: float
    """Seconds since 1970, when the token ends."""
