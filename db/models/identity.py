"""People who log in, their sessions, and the answers kept for repeated requests."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, SmallInteger, func, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base


class User(Base):
    """A person. An operator belongs to no tenant, everybody else to one."""

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("role in ('operator', 'admin', 'member')", name="role"),
        CheckConstraint("(role = 'operator') = (tenant_id is null)", name="tenant"),
        Index("users_email", text("lower(email)"), unique=True),
        Index("users_tenant", "tenant_id", "user_id"),
        {"schema": "identity"},
    )

    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey("sync.tenants.tenant_id", ondelete="CASCADE"))
    email: Mapped[str]
    name: Mapped[str] = mapped_column(server_default="")
    role: Mapped[str]
    password_hash: Mapped[str | None]
    language: Mapped[str] = mapped_column(server_default="en")
    disabled_at: Mapped[datetime | None]
    last_login_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Session(Base):
    """A log-in, and every refresh token that followed from it."""

    __tablename__ = "sessions"
    __table_args__ = (
        Index("sessions_user", "user_id"),
        Index("sessions_expired", "expires_at"),
        {"schema": "identity"},
    )

    session_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("identity.users.user_id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now())
    revoked_at: Mapped[datetime | None]
    revoked_reason: Mapped[str | None]
    user_agent: Mapped[str | None]


class RefreshToken(Base):
    """The hash of a refresh token; one that is used twice was stolen."""

    __tablename__ = "refresh_tokens"
    __table_args__ = (Index("refresh_tokens_session", "session_id"), {"schema": "identity"})

    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    session_id: Mapped[UUID] = mapped_column(ForeignKey("identity.sessions.session_id", ondelete="CASCADE"))
    issued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    used_at: Mapped[datetime | None]


class Attempt(Base):
    """Log-in attempts of an address or an account, as their theoretical arrival time (GCRA)."""

    __tablename__ = "attempts"
    __table_args__ = {"schema": "identity"}  # noqa: RUF012 — SQLAlchemy's own form

    key: Mapped[str] = mapped_column(primary_key=True)
    tat: Mapped[datetime]


class IdempotencyKey(Base):
    """The first answer to a request that may come again."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("idempotency_keys_age", "created_at"), {"schema": "identity"})

    viewer: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    status: Mapped[int | None] = mapped_column(SmallInteger)
    headers: Mapped[dict[str, Any] | None]
    body: Mapped[bytes | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
