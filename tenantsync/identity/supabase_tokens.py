"""Tokens of the Supabase project's users: so that a tenant's web app calls the API with what it has.

What somebody may do here stands in `app_metadata`, which only the project's service role writes: `tenant_id`, `role`
(admin or member) and `workspace_ids`. Whoever is kept to workspaces is a member: an admin answers for the whole tenant.
`user_metadata` is the user's own to write, and is not read.
"""

from typing import Any
from uuid import UUID

import jwt

from config.settings import Settings
from tenantsync.identity.public_keys import ALGORITHMS, PublicKeys
from tenantsync.identity.roles import Person, Role
from tenantsync.identity.tokens import LEEWAY, TokenExpired, TokenRefused

AUDIENCE = "authenticated"
MOST_WORKSPACES = 1000


class SupabaseTokens:
    """Reads the tokens of one project. Without a secret and without keys it takes none."""

    def __init__(self, settings: Settings) -> None:
        self.issuer = settings.supabase_url.rstrip("/") + "/auth/v1"
        self._secret = settings.supabase_jwt_secret
        self._keys = PublicKeys(settings.supabase_jwks_url) if settings.supabase_jwks_url else None

    def whose(self, token: str) -> Person:
        """The person that a token stands for. Raises TokenRefused, or TokenExpired."""
        try:
            claims = self._claims(token)
            return _person(claims)
        except jwt.ExpiredSignatureError:
            raise TokenExpired("expired") from None
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise TokenRefused(type(error).__name__) from None

    def _claims(self, token: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        key, algorithm = self._key(header.get("alg"), header.get("kid"))
        return jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=AUDIENCE,
            issuer=self.issuer,
            leeway=LEEWAY,
            options={"require": ["iss", "aud", "sub", "exp"]},
        )

    def _key(self, algorithm: object, kid: object) -> tuple[Any, str]:
        """The one key, and the one algorithm, that may have signed: what a token asks for only chooses between the
        shared secret and a public key, and a public key is never taken for a secret."""
        if algorithm == "HS256" and self._secret is not None:
            return self._secret.get_secret_value().encode(), "HS256"
        if algorithm in ALGORITHMS and isinstance(kid, str) and self._keys is not None:
            key = self._keys.find(kid)
            if key is not None and key.algorithm_name == algorithm:
                return key, key.algorithm_name
        raise TokenRefused("algorithm or key")


def _person(claims: dict[str, Any]) -> Person:
    given = claims.get("app_metadata")
    if claims.get("role") != AUDIENCE or not isinstance(given, dict):
        raise TokenRefused("role")
    everywhere = "workspace_ids" not in given
    workspaces = given.get("workspace_ids") or []  # null gives none, as the policies at Supabase read it
    if not isinstance(workspaces, list) or len(workspaces) > MOST_WORKSPACES:
        raise TokenRefused("workspaces")
    email = claims.get("email")
    return Person(
        user_id=f"supabase:{UUID(claims['sub'])}",
        role=Role.ADMIN if given.get("role") == Role.ADMIN and everywhere else Role.MEMBER,
        tenant_id=UUID(given["tenant_id"]),
        workspace_ids=None if everywhere else frozenset(UUID(one) for one in workspaces),
        name=email if isinstance(email, str) and email else "Supabase user",
        language="en",
        session_id=None,
        expires_at=float(claims["exp"]),
    )
