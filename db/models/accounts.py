"""Accounts at providers and their calendars."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, TenantScoped


def _belongs_to_workspace() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["tenant_id", "workspace_id"],
        ["sync.workspaces.tenant_id", "sync.workspaces.workspace_id"],
        ondelete="CASCADE",
    )


class Account(Base, TenantScoped):
    """Credentials at one provider, sealed (tenantsync/vault.py), belonging to a workspace."""

    __tablename__ = "accounts"
    __table_args__ = (
        UniqueConstraint("tenant_id", "account_id"),
        _belongs_to_workspace(),
        CheckConstraint("provider in ('google', 'caldav')", name="provider"),
        CheckConstraint("state in ('connected', 'needs_reauth', 'unusable', 'removed')", name="state"),
        Index(
            "accounts_identity",
            "workspace_id",
            "provider",
            "identity",
            unique=True,
            postgresql_where=text("state <> 'removed'"),
        ),
        Index("accounts_deleted", "deleted_at", postgresql_where=text("deleted_at is not null")),
        {"schema": "sync"},
    )

    account_id: Mapped[UUID] = mapped_column(primary_key=True)
    workspace_id: Mapped[UUID]
    provider: Mapped[str]
    identity: Mapped[str]
    endpoint: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default="connected")
    state_reason: Mapped[str | None]
    state_since: Mapped[datetime] = mapped_column(server_default=func.now())
    credentials: Mapped[bytes | None] = mapped_column(LargeBinary)
    access_token: Mapped[bytes | None] = mapped_column(LargeBinary)
    access_expires_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]


class Calendar(Base, TenantScoped):
    """One remote calendar of an account. Cursor, backoff and outcome are its own."""

    __tablename__ = "calendars"
    __table_args__ = (
        UniqueConstraint("tenant_id", "calendar_id"),
        UniqueConstraint("account_id", "provider_key"),
        ForeignKeyConstraint(
            ["tenant_id", "account_id"],
            ["sync.accounts.tenant_id", "sync.accounts.account_id"],
            ondelete="CASCADE",
        ),
        _belongs_to_workspace(),
        CheckConstraint("state in ('new', 'synced', 'resync', 'confirming', 'lost', 'removed')", name="state"),
        Index("calendars_unit", "workspace_id"),
        Index("calendars_deleted", "deleted_at", postgresql_where=text("deleted_at is not null")),
        {"schema": "sync"},
    )

    calendar_id: Mapped[UUID] = mapped_column(primary_key=True)
    workspace_id: Mapped[UUID]
    account_id: Mapped[UUID]
    provider_key: Mapped[str]
    name: Mapped[str] = mapped_column(server_default="")
    time_zone: Mapped[str | None]
    access_role: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default="new")
    state_reason: Mapped[str | None]
    state_since: Mapped[datetime] = mapped_column(server_default=func.now())
    cursor: Mapped[str | None]
    query_version: Mapped[int | None]
    next_due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str | None]
    last_attempt_at: Mapped[datetime | None]
    last_success_at: Mapped[datetime | None]
    listed_at: Mapped[datetime | None]
    event_count: Mapped[int] = mapped_column(server_default=text("0"))
    runs: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    api_calls: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    bytes_in: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    full_calls: Mapped[int] = mapped_column(server_default=text("0"))
    full_bytes: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    saved_calls: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    saved_bytes: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]
