"""Events, what is left of deleted ones, and what stands between a provider's page and a row."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, TenantScoped


class Event(Base, TenantScoped):
    """One event as the provider has it: a single event, a series master, or an override of one instance.

    `provider_key` identifies it within its calendar; `resource` is what the provider creates, changes
    and deletes as a whole (at Google the same, at CalDAV the .ics file that holds a series and its
    overrides). Every other column is derived from `raw`.
    """

    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("calendar_id", "provider_key"),
        Index("events_series", "calendar_id", "series_key", postgresql_where=text("series_key is not null")),
        Index("events_resource", "calendar_id", "resource", postgresql_where=text("resource <> provider_key")),
        {"schema": "sync"},
    )

    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    calendar_id: Mapped[UUID]
    provider_key: Mapped[str]
    resource: Mapped[str]
    etag: Mapped[str | None]
    uid: Mapped[str | None]
    series_key: Mapped[str | None]
    status: Mapped[str]
    title: Mapped[str | None]
    description: Mapped[str | None]
    location: Mapped[str | None]
    starts_at: Mapped[datetime | None]
    ends_at: Mapped[datetime | None]
    all_day: Mapped[bool]
    time_zone: Mapped[str | None]
    recurrence: Mapped[Any | None] = mapped_column(JSONB)
    original_start: Mapped[datetime | None]
    original_all_day: Mapped[bool | None]
    organizer: Mapped[str | None]
    attendees: Mapped[Any | None] = mapped_column(JSONB)
    link: Mapped[str | None]
    transparency: Mapped[str | None]
    visibility: Mapped[str | None]
    provider_updated_at: Mapped[datetime | None]
    raw: Mapped[dict[str, Any]]
    digest: Mapped[str]
    version: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Tombstone(Base, TenantScoped):
    """A deleted event: its id and the version at which it went."""

    __tablename__ = "tombstones"
    __table_args__ = (
        UniqueConstraint("calendar_id", "provider_key"),
        Index("tombstones_age", "deleted_at"),
        {"schema": "sync"},
    )

    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    calendar_id: Mapped[UUID]
    provider_key: Mapped[str]
    version: Mapped[int] = mapped_column(BigInteger)
    deleted_at: Mapped[datetime] = mapped_column(server_default=func.now())


class StagedEvent(Base):
    """A line of a listing under way. `kind`: u upsert, k kept as it is, d deleted, q set aside."""

    __tablename__ = "staged_events"
    __table_args__ = (
        Index("staged_events_run", "calendar_id", "fence"),
        {"schema": "sync", "prefixes": ["UNLOGGED"]},
    )
    __mapper_args__ = {"primary_key": ["calendar_id", "fence", "seq"]}  # noqa: RUF012 — SQLAlchemy's own form

    calendar_id: Mapped[UUID]
    fence: Mapped[int] = mapped_column(BigInteger)
    seq: Mapped[int]
    kind: Mapped[str]
    event_id: Mapped[UUID | None]
    provider_key: Mapped[str | None]
    resource: Mapped[str]
    etag: Mapped[str | None]
    uid: Mapped[str | None]
    series_key: Mapped[str | None]
    status: Mapped[str | None]
    title: Mapped[str | None]
    description: Mapped[str | None]
    location: Mapped[str | None]
    starts_at: Mapped[datetime | None]
    ends_at: Mapped[datetime | None]
    all_day: Mapped[bool | None]
    time_zone: Mapped[str | None]
    recurrence: Mapped[Any | None] = mapped_column(JSONB)
    original_start: Mapped[datetime | None]
    original_all_day: Mapped[bool | None]
    organizer: Mapped[str | None]
    attendees: Mapped[Any | None] = mapped_column(JSONB)
    link: Mapped[str | None]
    transparency: Mapped[str | None]
    visibility: Mapped[str | None]
    provider_updated_at: Mapped[datetime | None]
    raw: Mapped[Any | None] = mapped_column(JSONB)
    digest: Mapped[str | None]


class QuarantinedItem(Base, TenantScoped):
    """Something a provider sent that cannot be an event: set aside with its reason, the rest goes on."""

    __tablename__ = "quarantined_items"
    __table_args__ = {"schema": "sync"}  # noqa: RUF012 — SQLAlchemy's own form

    calendar_id: Mapped[UUID] = mapped_column(primary_key=True)
    resource: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str]
    etag: Mapped[str | None]
    excerpt: Mapped[str | None]
    first_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Cooldown(Base):
    """A scope that is closed until a moment, because the provider said so."""

    __tablename__ = "cooldowns"
    __table_args__ = (
        CheckConstraint("scope in ('account', 'tenant', 'project', 'provider')", name="scope"),
        {"schema": "sync"},
    )

    scope: Mapped[str] = mapped_column(primary_key=True)
    scope_id: Mapped[str] = mapped_column(primary_key=True)
    until: Mapped[datetime]
    reason: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    probe_until: Mapped[datetime | None]
    """Once `until` has passed, one run at a time may try; it holds the scope until then."""
    closures: Mapped[int] = mapped_column(server_default=text("1"))


_LIMITED = "scope in ('account', 'server', 'project')"


class Budget(Base):
    """A budget of requests at a provider, as its theoretical arrival time (GCRA)."""

    __tablename__ = "budgets"
    __table_args__ = (CheckConstraint(_LIMITED, name="scope"), {"schema": "sync"})

    scope: Mapped[str] = mapped_column(primary_key=True)
    scope_id: Mapped[str] = mapped_column(primary_key=True)
    tat: Mapped[datetime]


class Hold(Base):
    """How much of "so many at a time" a worker process holds, until when."""

    __tablename__ = "holds"
    __table_args__ = (
        CheckConstraint(_LIMITED, name="scope"),
        CheckConstraint("held >= 0", name="held"),
        {"schema": "sync"},
    )

    scope: Mapped[str] = mapped_column(primary_key=True)
    scope_id: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str] = mapped_column(primary_key=True)
    held: Mapped[int]
    until: Mapped[datetime]
