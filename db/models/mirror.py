"""The mirror's side in Postgres: what still has to reach Supabase."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base


class OutboxEntry(Base):
    """A key that Supabase does not have yet at this version. Holds no payload."""

    __tablename__ = "outbox"
    __table_args__ = (
        CheckConstraint(
            "entity in ('accounts', 'calendars', 'events', 'tasks', 'processes', 'process_events')", name="entity"
        ),
        Index("outbox_age", "tenant_id", "queued_at"),
        Index(
            "outbox_live",
            "tenant_id",
            "queued_at",
            postgresql_where=text("entity in ('tasks', 'processes', 'process_events')"),
        ),
        {"schema": "mirror"},
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    entity: Mapped[str] = mapped_column(primary_key=True)
    row_id: Mapped[UUID] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger)
    queued_at: Mapped[datetime] = mapped_column(server_default=func.now())


class MirrorTurn(Base):
    """Whether a tenant has rows to send, and who sends them."""

    __tablename__ = "turns"
    __table_args__ = (Index("turns_ready", "ready_at"), {"schema": "mirror"})

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("sync.tenants.tenant_id", ondelete="CASCADE"), primary_key=True)
    ready_at: Mapped[datetime] = mapped_column(server_default="infinity")
    lease_until: Mapped[datetime | None]


class ParkedRow(Base):
    """A row that Supabase refused. It blocks nothing but itself, and waits for a person."""

    __tablename__ = "parked_rows"
    __table_args__ = {"schema": "mirror"}  # noqa: RUF012 — SQLAlchemy's own form

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    entity: Mapped[str] = mapped_column(primary_key=True)
    row_id: Mapped[UUID] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger)
    sqlstate: Mapped[str | None]
    reason: Mapped[str]
    parked_at: Mapped[datetime] = mapped_column(server_default=func.now())
