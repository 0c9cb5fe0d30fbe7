"""Our own tokens: JWTs for access, signed with keys derived from SECRET_KEY, and opaque ones for refreshing.

HS256 and nothing else; every token names who issued it, whom it is for, and when it ends. Access tokens live for
fifteen minutes and cookies for as long as their session, but both only as long as the session itself: it is looked up
with every request.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

import jwt
from pydantic import SecretStr

from db.ids import new_id
from tenantsync import clock

ISSUER = "tenantsync"
ALGORITHM = "HS256"
ACCESS_LIFETIME = timedelta(minutes=15)
LEEWAY = 5  # seconds that the clocks of web processes may differ
LONGEST_TOKEN = 8192

Use = Literal["access", "cookie"]
_AUDIENCES: dict[Use, str] = {"access": "tenantsync:api", "cookie": "tenantsync:pages"}


class TokenRefused(Exception):
    """The token is not good. The reason is for logs; whoever sent it learns only that it is not."""


class TokenExpired(TokenRefused):
    """It was good once."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a good token of ours says."""

    session_id: UUID
    user_id: UUID
    expires_at: float


def derived(secret: SecretStr, purpose: str) -> bytes:
    """A key for one purpose alone."""
    return hmac.digest(secret.get_secret_value().encode(), f"tenantsync/{purpose}".encode(), hashlib.sha256)


class Tokens:
    """Issues and reads our tokens."""

    def __init__(self, secret: SecretStr) -> None:
        self._key = derived(secret, "jwt")
        self._csrf = derived(secret, "csrf")
        self._fingerprints = derived(secret, "fingerprint")
        self._kid = hashlib.sha256(self._key).hexdigest()[:16]

    def issue(
        self, use: Use, *, session_id: UUID, user_id: UUID, role: str, tenant_id: UUID | None, lifetime: timedelta
    ) -> str:
        """A token for one session."""
        now = clock.now()
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": _AUDIENCES[use],
            "sub": str(user_id),
            "sid": str(session_id),
            "role": role,
            "jti": str(new_id()),
            "iat": int(now.timestamp()),
            "exp": int((now + lifetime).timestamp()),
        }
        if tenant_id is not None:
            claims["tenant_id"] = str(tenant_id)
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"kid": self._kid})

    def read(self, token: str, use: Use) -> Claims:
        """What a token says. Raises TokenRefused, or TokenExpired."""
        try:
            if jwt.get_unverified_header(token).get("kid") != self._kid:
                raise TokenRefused("kid")
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[ALGORITHM],
                audience=_AUDIENCES[use],
                issuer=ISSUER,
                leeway=LEEWAY,
                options={"require": ["iss", "aud", "sub", "sid", "jti", "iat", "exp"]},
            )
            return Claims(UUID(claims["sid"]), UUID(claims["sub"]), float(claims["exp"]))
        except jwt.ExpiredSignatureError:
            raise TokenExpired("expired") from None
        except (jwt.InvalidTokenError, ValueError, TypeError, AttributeError) as error:
            raise TokenRefused(type(error).__name__) from None

    def csrf(self, session_id: UUID) -> str:
        """The token that forms of a session carry."""
        return hmac.new(self._csrf, session_id.bytes, hashlib.sha256).hexdigest()

    def fingerprint(self, told: bytes) -> str:
        """What is stored of a request, which may hold a password: nobody can guess at it without SECRET_KEY."""
        return hmac.digest(self._fingerprints, told, hashlib.sha256).hex()

    def is_csrf(self, session_id: UUID, token: str) -> bool:
        return hmac.compare_digest(self.csrf(session_id).encode(), token.encode())


def issuer_of(token: str) -> str | None:
    """Who a token says it is from: to know whom to ask about it, and for nothing else."""
    try:
        issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        return None
    return issuer if isinstance(issuer, str) else None


def new_refresh_token() -> str:
    """An opaque token. Only its hash is stored."""
    return "tsr_" + secrets.token_urlsafe(32)


def refresh_hash(token: str) -> bytes:
    """What is stored of a refresh token; it is random, so it needs no slow hash."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
