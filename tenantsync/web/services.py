"""What endpoints work with, one for each web process."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from config.settings import Settings
from db.session import Database
from tenantsync.identity.supabase_tokens import SupabaseTokens
from tenantsync.identity.tokens import Tokens


class SecretKeyMissing(Exception):
    """The web process cannot sign log-ins."""


@dataclass(frozen=True)
class Services:
    """Settings, the pool, and what signs and reads tokens."""

    settings: Settings
    database: Database
    tokens: Tokens
    supabase_tokens: SupabaseTokens


def open_services(settings: Settings, database: Database) -> Services:
    """Raises SecretKeyMissing."""
    if settings.secret_key is None:
        raise SecretKeyMissing(
            "The environment cannot be used:\n  SECRET_KEY: is missing [What log-ins are signed with]\n"
            "python -c 'import secrets; print(secrets.token_urlsafe(48))' makes one; all web processes share it. "
            "See docs/configuration.md and .env.example."
        )
    return Services(settings, database, Tokens(settings.secret_key), SupabaseTokens(settings))


def services_of(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


Parts = Annotated[Services, Depends(services_of)]
"""For an endpoint's signature: `parts: Parts`."""
