"""People who log in, their sessions and refresh tokens, and what they may try."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from db.ids import new_id
from db.session import violated

_COLUMNS = (
    "user_id, tenant_id, email, name, role, language, disabled_at, last_login_at, created_at, updated_at, "
    "password_hash is not null as has_password"
)

ADD_USER = text(f"""
insert into identity.users (user_id, tenant_id, email, name, role, password_hash, language)
values (:id, :tenant, :email, :name, :role, :password_hash, :language)
returning {_COLUMNS}
""")
BY_EMAIL = text(f"select {_COLUMNS}, password_hash from identity.users where lower(email) = lower(:email)")
BY_ID = text(f"select {_COLUMNS}, password_hash from identity.users where user_id = :id")
LOCKED = text(f"select {_COLUMNS} from identity.users where user_id = :id for update")
LISTED = text(f"""
select {_COLUMNS} from identity.users
 where (cast(:tenant as uuid) is null or tenant_id = cast(:tenant as uuid))
   and (cast(:before as uuid) is null or user_id < cast(:before as uuid))
 order by user_id desc limit :n
""")
UPDATE_USER = text(f"""
update identity.users
   set name = coalesce(:name, name), role = coalesce(:role, role), language = coalesce(:language, language),
       disabled_at = case when cast(:disabled as boolean) is null then disabled_at
                          when cast(:disabled as boolean) then coalesce(disabled_at, now()) end,
       password_hash = coalesce(:password_hash, password_hash), updated_at = now()
 where user_id = :id
returning {_COLUMNS}
""")
LOGGED_IN = text("update identity.users set last_login_at = now() where user_id = :id")

START_SESSION = text("""
insert into identity.sessions (session_id, user_id, expires_at, user_agent)
values (:id, :user, now() + :lifetime, :user_agent) returning expires_at
""")
LIVE = text("""
select s.session_id, s.expires_at, u.user_id, u.tenant_id, u.email, u.name, u.role, u.language
  from identity.sessions s join identity.users u on u.user_id = s.user_id
 where s.session_id = :id and s.revoked_at is null and s.expires_at > now() and u.disabled_at is null
""")
LIVE_AMONG = text("""
select s.session_id from identity.sessions s join identity.users u on u.user_id = s.user_id
 where s.session_id = any(cast(:ids as uuid[])) and s.revoked_at is null and s.expires_at > now()
   and u.disabled_at is null
""")
SESSIONS = text("""
select session_id, created_at, expires_at, last_used_at, user_agent from identity.sessions
 where user_id = :user and revoked_at is null and expires_at > now() order by session_id desc limit :n
""")
REVOKE = text("""
update identity.sessions set revoked_at = now(), revoked_reason = :reason
 where session_id = :id and user_id = :user and revoked_at is null
""")
REVOKE_ALL = text("""
update identity.sessions set revoked_at = now(), revoked_reason = :reason
 where user_id = :user and revoked_at is null and (cast(:but as uuid) is null or session_id <> cast(:but as uuid))
""")
REVOKE_FAMILY = text("""
update identity.sessions set revoked_at = now(), revoked_reason = :reason where session_id = :id and revoked_at is null
""")

ADD_REFRESH = text("insert into identity.refresh_tokens (token_hash, session_id) values (:hash, :session)")
# The session's row is locked first, so that two uses of one token are told apart.
TAKE_REFRESH = text("""
select r.session_id, s.user_id, r.used_at, extract(epoch from now() - r.used_at)::float8 as used_for
  from identity.refresh_tokens r join identity.sessions s on s.session_id = r.session_id
 where r.token_hash = :hash for update of s
""")
USED_REFRESH = text("update identity.refresh_tokens set used_at = now() where token_hash = :hash and used_at is null")
# A token's next ones that nobody has used: the answer that held them may have been lost.
DROP_UNUSED = text("delete from identity.refresh_tokens where session_id = :session and used_at is null")
UNUSED_ONLY = text("""
select not exists (select from identity.refresh_tokens
                    where session_id = :session and used_at is not null and issued_at >= :after)
""")
TOUCH = text("update identity.sessions set last_used_at = now() where session_id = :id")

# GCRA: one row a key; nothing comes back where the attempt is one too many.
ATTEMPT = text("""
insert into identity.attempts as a (key, tat) values (:key, now() + :interval)
on conflict (key) do update set tat = greatest(a.tat, now()) + :interval
 where greatest(a.tat, now()) - now() <= :tolerance
returning tat
""")
WAIT = text("""
select extract(epoch from tat - now() - :tolerance)::float8 from identity.attempts where key = :key
""")
FORGIVE = text("delete from identity.attempts where key = :key")

FORGET = text("""
with attempts as (delete from identity.attempts where tat < now() returning 1),
sessions as (delete from identity.sessions where expires_at < now() - interval '7 days' returning 1),
answers as (delete from identity.idempotency_keys where created_at < now() - interval '1 day' returning 1)
select (select count(*) from attempts) + (select count(*) from sessions) + (select count(*) from answers)
""")

FLEET_QUERIES: tuple[str, ...] = ()


class EmailTaken(Exception):
    """Somebody logs in with this address already."""


class NoSuchTenant(Exception):
    """The tenant that a user was to belong to is not there."""


@dataclass(frozen=True, slots=True)
class UserRow:
    """A person, without the password's hash."""

    user_id: UUID
    tenant_id: UUID | None
    email: str
    name: str
    role: str
    language: str
    disabled_at: datetime | None
    last_login_at: datetime | None
    created_at: datetime
    updated_at: datetime
    has_password: bool


@dataclass(frozen=True, slots=True)
class LiveSession:
    """A log-in that is neither over nor revoked, of somebody who is not disabled."""

    session_id: UUID
    expires_at: datetime
    user_id: UUID
    tenant_id: UUID | None
    email: str
    name: str
    role: str
    language: str


@dataclass(frozen=True, slots=True)
class RefreshUse:
    """A refresh token that came in: whose it is, and when it was used before."""

    session_id: UUID
    user_id: UUID
    used_at: datetime | None
    used_for: float | None


def _user(row: Any) -> UserRow:
    return UserRow(**{name: row[name] for name in UserRow.__dataclass_fields__})


def add_user(
    connection: Connection,
    *,
    tenant_id: UUID | None,
    email: str,
    name: str,
    role: str,
    password_hash: str | None,
    language: str,
) -> UserRow:
    """Add a person. Raises EmailTaken or NoSuchTenant, and leaves the transaction usable."""
    parameters = {
        "id": new_id(),
        "tenant": tenant_id,
        "email": email,
        "name": name,
        "role": role,
        "password_hash": password_hash,
        "language": language,
    }
    try:
        with connection.begin_nested():
            return _user(connection.execute(ADD_USER, parameters).mappings().one())
    except IntegrityError as error:
        if violated(error) == "users_email":
            raise EmailTaken from None
        if violated(error) == "users_tenant_id_fkey":
            raise NoSuchTenant from None
        raise


def by_email(connection: Connection, *, email: str) -> tuple[UserRow, str | None] | None:
    """Who logs in with this address, and the password's hash."""
    row = connection.execute(BY_EMAIL, {"email": email}).mappings().first()
    return None if row is None else (_user(row), row["password_hash"])


def by_id(connection: Connection, *, user_id: UUID) -> tuple[UserRow, str | None] | None:
    """A person, and the password's hash."""
    row = connection.execute(BY_ID, {"id": user_id}).mappings().first()
    return None if row is None else (_user(row), row["password_hash"])


def locked(connection: Connection, *, user_id: UUID) -> UserRow | None:
    """A person, who stays as they are until commit."""
    row = connection.execute(LOCKED, {"id": user_id}).mappings().first()
    return None if row is None else _user(row)


def listed(connection: Connection, *, tenant_id: UUID | None, before: UUID | None, limit: int) -> list[UserRow]:
    """People, the newest first; of everybody where no tenant is named."""
    found = connection.execute(LISTED, {"tenant": tenant_id, "before": before, "n": limit}).mappings()
    return [_user(row) for row in found]


def update_user(
    connection: Connection,
    *,
    user_id: UUID,
    name: str | None = None,
    role: str | None = None,
    language: str | None = None,
    disabled: bool | None = None,
    password_hash: str | None = None,
) -> UserRow | None:
    """Change what is given."""
    parameters = {
        "id": user_id,
        "name": name,
        "role": role,
        "language": language,
        "disabled": disabled,
        "password_hash": password_hash,
    }
    row = connection.execute(UPDATE_USER, parameters).mappings().first()
    return None if row is None else _user(row)


def start_session(
    connection: Connection, *, user_id: UUID, lifetime: timedelta, user_agent: str | None
) -> tuple[UUID, datetime]:
    """Begin a log-in; returns its id and its end."""
    session_id = new_id()
    parameters = {"id": session_id, "user": user_id, "lifetime": lifetime, "user_agent": user_agent}
    expires_at: datetime = connection.execute(START_SESSION, parameters).scalar_one()
    connection.execute(LOGGED_IN, {"id": user_id})
    return session_id, expires_at


def live_session(connection: Connection, *, session_id: UUID) -> LiveSession | None:
    """The session with its user, unless it is over, revoked, or the user disabled."""
    row = connection.execute(LIVE, {"id": session_id}).mappings().first()
    return None if row is None else LiveSession(**row)


def live_among(connection: Connection, *, session_ids: Iterable[UUID]) -> set[UUID]:
    """Those of the sessions that are not over."""
    return set(connection.execute(LIVE_AMONG, {"ids": list(session_ids)}).scalars())


def sessions(connection: Connection, *, user_id: UUID, limit: int) -> Sequence[dict[str, Any]]:
    """A user's open sessions, the newest first."""
    return [dict(row) for row in connection.execute(SESSIONS, {"user": user_id, "n": limit}).mappings()]


def revoke(connection: Connection, *, session_id: UUID, user_id: UUID, reason: str) -> bool:
    """End one session of a user."""
    parameters = {"id": session_id, "user": user_id, "reason": reason}
    return connection.execute(REVOKE, parameters).rowcount > 0


def revoke_all(connection: Connection, *, user_id: UUID, reason: str, but: UUID | None = None) -> int:
    """End all sessions of a user, but for one if it is named."""
    return connection.execute(REVOKE_ALL, {"user": user_id, "reason": reason, "but": but}).rowcount


def revoke_family(connection: Connection, *, session_id: UUID, reason: str) -> None:
    """End the session that a stolen token belonged to."""
    connection.execute(REVOKE_FAMILY, {"id": session_id, "reason": reason})


def add_refresh(connection: Connection, *, session_id: UUID, token_hash: bytes) -> None:
    connection.execute(ADD_REFRESH, {"session": session_id, "hash": token_hash})


def take_refresh(connection: Connection, *, token_hash: bytes) -> RefreshUse | None:
    """Look a refresh token up, and hold its session until commit."""
    row = connection.execute(TAKE_REFRESH, {"hash": token_hash}).mappings().first()
    return None if row is None else RefreshUse(**row)


def use_refresh(connection: Connection, *, session_id: UUID, token_hash: bytes) -> None:
    """Mark a refresh token as used."""
    connection.execute(USED_REFRESH, {"hash": token_hash})
    connection.execute(TOUCH, {"id": session_id})


def replace_unused(connection: Connection, *, session_id: UUID, used_at: datetime) -> bool:
    """Take back the successors of a token whose answer was lost; False when one of them was used already."""
    unused: bool = connection.execute(UNUSED_ONLY, {"session": session_id, "after": used_at}).scalar_one()
    if unused:
        connection.execute(DROP_UNUSED, {"session": session_id})
    return unused


def attempt(connection: Connection, *, key: str, interval: timedelta, burst: int) -> float | None:
    """Count an attempt. None: it may be made; otherwise the seconds after which one may."""
    tolerance = interval * (burst - 1)
    parameters = {"key": key, "interval": interval, "tolerance": tolerance}
    if connection.execute(ATTEMPT, parameters).first() is not None:
        return None
    left = connection.execute(WAIT, {"key": key, "tolerance": tolerance}).scalar()
    return max(float(left or 0.0), 0.0)


def forgive(connection: Connection, *, key: str) -> None:
    """Forget a key's attempts."""
    connection.execute(FORGIVE, {"key": key})


def forget_old(connection: Connection) -> int:
    """Drop attempts, sessions and kept answers that are over."""
    return int(connection.execute(FORGET).scalar_one())
