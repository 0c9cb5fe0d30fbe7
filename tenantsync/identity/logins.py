"""Logging in, staying in, and being thrown out: where users, sessions, tokens and limits meet."""

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from sqlalchemy import Connection

from db.repositories import identity, tenants
from db.repositories.identity import UserRow
from db.session import Database
from tenantsync.identity import passwords
from tenantsync.identity.roles import Person, Role
from tenantsync.identity.tokens import (
    ACCESS_LIFETIME,
    TokenRefused,
    Tokens,
    Use,
    new_refresh_token,
    refresh_hash,
)

SESSION_LIFETIME = timedelta(days=30)
PAGES_LIFETIME = timedelta(hours=12)
LOST_ANSWER = 20.0  # seconds in which a refresh token may come again, if nobody used what was given for it
ACCOUNT_PACE = (timedelta(seconds=30), 10)
ADDRESS_PACE = (timedelta(seconds=2), 40)
LONGEST_AGENT = 300


class LogInRefused(Exception):
    """Wrong password, unknown or disabled user: nobody learns which."""


class TooManyAttempts(Exception):
    """`retry_after` is in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"too many attempts; the next one may be made in {retry_after:.0f} s")
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A session that has begun, with the token that shows it."""

    user: UserRow
    session_id: UUID
    token: str
    lifetime: timedelta
    refresh_token: str | None
    session_ends: datetime


def log_in(
    database: Database,
    tokens: Tokens,
    *,
    email: str,
    password: str,
    address: str,
    use: Use,
    user_agent: str | None,
) -> LoggedIn:
    """Begin a session. Raises LogInRefused or TooManyAttempts.

    The attempt counts before the password is looked at, for the address it comes from and then for the account, whose
    count is forgotten when its owner gets in. An address that is over its limit uses up nobody's attempts.
    """
    _count(database, "address:" + _network(address), ADDRESS_PACE)
    with database.statement() as connection:
        found = identity.by_email(connection, email=email.strip())
    account = _account(found[0].email if found else email)
    _count(database, account, ACCOUNT_PACE)
    right = passwords.matches(password, found[1] if found else None)
    if found is None or not right or found[0].disabled_at is not None:
        with database.transaction() as connection:  # also for nobody: the same work, and somebody may want to know
            _remember(connection, found[0] if found else None, "user.log_in_refused", use)
        raise LogInRefused
    user = found[0]
    lifetime = SESSION_LIFETIME if use == "access" else PAGES_LIFETIME
    with database.transaction() as connection:
        identity.forgive(connection, key=account)
        session_id, ends = identity.start_session(
            connection, user_id=user.user_id, lifetime=lifetime, user_agent=(user_agent or "")[:LONGEST_AGENT] or None
        )
        refresh = _add_refresh(connection, session_id) if use == "access" else None
        _remember(connection, user, "user.log_in", use)
    return _logged_in(tokens, user, session_id, ends, use=use, refresh_token=refresh)


def refresh(database: Database, tokens: Tokens, *, refresh_token: str) -> LoggedIn:
    """A new access token and a new refresh token for a refresh token. Raises LogInRefused.

    A token that comes a second time was stolen, or its first answer was lost on the way. Within a few seconds, and as
    long as nobody used what was given for it, it is taken for lost and its successor is taken back, which also ends
    what a thief may have got. After that the whole session ends.
    """
    hashed = refresh_hash(refresh_token)
    with database.transaction() as connection:
        taken = identity.take_refresh(connection, token_hash=hashed)
        live = None if taken is None else identity.live_session(connection, session_id=taken.session_id)
        found = None if live is None else identity.by_id(connection, user_id=live.user_id)
        stolen = False
        if taken is not None and taken.used_at is not None and live is not None:
            stolen = (taken.used_for or 0.0) > LOST_ANSWER or not identity.replace_unused(
                connection, session_id=taken.session_id, used_at=taken.used_at
            )
            if stolen:
                identity.revoke_family(connection, session_id=taken.session_id, reason="refresh token used twice")
                _remember(connection, found[0] if found else None, "user.refresh_token_reused", "access")
        if taken is not None and live is not None and found is not None and not stolen:
            identity.use_refresh(connection, session_id=taken.session_id, token_hash=hashed)
            following = _add_refresh(connection, taken.session_id)
            user, session_id, ends = found[0], live.session_id, live.expires_at
        else:
            user = None
    if user is None:
        raise LogInRefused
    return _logged_in(tokens, user, session_id, ends, use="access", refresh_token=following)


def whose(database: Database, tokens: Tokens, *, token: str, use: Use) -> Person:
    """The person behind a token of ours, whose session is looked up. Raises TokenRefused."""
    claims = tokens.read(token, use)
    with database.statement() as connection:
        live = identity.live_session(connection, session_id=claims.session_id)
    if live is None or live.user_id != claims.user_id:
        raise TokenRefused("session is over")
    return Person(
        user_id=str(live.user_id),
        role=Role(live.role),
        tenant_id=live.tenant_id,
        workspace_ids=None,
        name=live.name or live.email,
        language=live.language,
        session_id=live.session_id,
        expires_at=min(claims.expires_at, live.expires_at.timestamp()),
    )


def log_out(database: Database, *, session_id: UUID, user_id: UUID, reason: str = "logged out") -> bool:
    """End a session; False if it is over, or another user's. Its tokens are refused from now on."""
    with database.transaction() as connection:
        found = identity.by_id(connection, user_id=user_id)
        ended = identity.revoke(connection, session_id=session_id, user_id=user_id, reason=reason)
        if ended:
            _remember(connection, found[0] if found else None, "user.log_out", "session")
    return ended


def log_out_everywhere(database: Database, *, user_id: UUID, but: UUID | None = None) -> int:
    """End all sessions of a user; returns how many there were."""
    with database.transaction() as connection:
        found = identity.by_id(connection, user_id=user_id)
        ended = identity.revoke_all(connection, user_id=user_id, reason="logged out everywhere", but=but)
        _remember(connection, found[0] if found else None, "user.log_out", "everywhere")
    return ended


def _count(database: Database, key: str, pace: tuple[timedelta, int]) -> None:
    interval, burst = pace
    with database.statement() as connection:
        wait = identity.attempt(connection, key=key, interval=interval, burst=burst)
    if wait is not None:
        raise TooManyAttempts(wait)


def _account(email: str) -> str:
    """What attempts are counted under: the address as it is stored, for Postgres takes some for one (İ and i, for
    instance) that Python tells apart."""
    return "account:" + hashlib.sha256(email.strip().lower().encode(errors="replace")).hexdigest()


def _network(address: str) -> str:
    """What counts as one place: an IPv4 address, or the /64 that one IPv6 customer has at least."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)
    return str(parsed)


def _add_refresh(connection: Connection, session_id: UUID) -> str:
    token = new_refresh_token()
    identity.add_refresh(connection, session_id=session_id, token_hash=refresh_hash(token))
    return token


def _logged_in(
    tokens: Tokens, user: UserRow, session_id: UUID, ends: datetime, *, use: Use, refresh_token: str | None
) -> LoggedIn:
    lifetime = ACCESS_LIFETIME if use == "access" else PAGES_LIFETIME
    token = tokens.issue(
        use,
        session_id=session_id,
        user_id=user.user_id,
        role=user.role,
        tenant_id=user.tenant_id,
        lifetime=lifetime,
    )
    return LoggedIn(user, session_id, token, lifetime, refresh_token, ends)


def _remember(
    connection: Connection,
    user: UserRow | None,
    action: str,
    how: Use | Literal["session", "everywhere"],
) -> None:
    tenants.write_audit_log(
        connection,
        tenant_id=user.tenant_id if user else None,
        actor=f"user:{user.user_id}" if user else "nobody",
        action=action,
        details={"how": how},
    )
