"""Tenants, workspaces, and the units and turns by which their work is scheduled."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    SmallInteger,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, TenantScoped

_LANES = "lane in ('sync', 'bulk', 'quarantine', 'isolated')"


class Tenant(Base):
    """A customer."""

    __tablename__ = "tenants"
    __table_args__ = (
        UniqueConstraint("name"),
        CheckConstraint("weight > 0 and weight <= 100", name="weight"),
        {"schema": "sync"},
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    paused: Mapped[bool] = mapped_column(server_default=text("false"))
    pause_reason: Mapped[str | None]
    weight: Mapped[float] = mapped_column(REAL, server_default=text("1"))
    isolated_until: Mapped[datetime | None]
    isolated_reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Pause(Base, TenantScoped):
    """A time in which nothing is expected of a tenant."""

    __tablename__ = "pauses"
    __table_args__ = (
        Index("pauses_open", "tenant_id", unique=True, postgresql_where=text("resumed_at is null")),
        Index("pauses_tenant", "tenant_id", "paused_at"),
        ForeignKeyConstraint(["tenant_id"], ["sync.tenants.tenant_id"], ondelete="CASCADE"),
        {"schema": "sync"},
    )

    pause_id: Mapped[UUID] = mapped_column(primary_key=True)
    paused_at: Mapped[datetime] = mapped_column(server_default=func.now())
    resumed_at: Mapped[datetime | None]
    paused_by: Mapped[str]
    reason: Mapped[str | None]


class Incident(Base, TenantScoped):
    """A unit killed the worker that ran it alone."""

    __tablename__ = "incidents"
    __table_args__ = (
        Index("incidents_recent", "happened_at"),
        Index("incidents_tenant", "tenant_id", "happened_at"),
        ForeignKeyConstraint(["tenant_id"], ["sync.tenants.tenant_id"], ondelete="CASCADE"),
        {"schema": "sync"},
    )

    incident_id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))
    unit_id: Mapped[UUID]
    lane: Mapped[str]
    worker_id: Mapped[str | None]
    happened_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Policy(Base):
    """How often a unit is expected to run, and since when."""

    __tablename__ = "policies"
    __table_args__ = (CheckConstraint("every > interval '0'", name="every"), {"schema": "sync"})

    since: Mapped[datetime] = mapped_column(primary_key=True)
    every: Mapped[timedelta]


class Workspace(Base):
    """A part of a customer. It has exactly one unit, which bears its id."""

    __tablename__ = "workspaces"
    __table_args__ = (
        UniqueConstraint("tenant_id", "name"),
        UniqueConstraint("tenant_id", "workspace_id"),
        {"schema": "sync"},
    )

    workspace_id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("sync.tenants.tenant_id", ondelete="CASCADE"))
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Unit(Base, TenantScoped):
    """The smallest thing that is scheduled, leased, limited, parked and blamed."""

    __tablename__ = "units"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "unit_id"],
            ["sync.workspaces.tenant_id", "sync.workspaces.workspace_id"],
            ondelete="CASCADE",
        ),
        CheckConstraint(_LANES, name="lane"),
        CheckConstraint("state in ('idle', 'dispatched', 'running', 'parked')", name="state"),
        Index("units_due", "tenant_id", "lane", "next_due_at"),
        {"schema": "sync"},
    )

    unit_id: Mapped[UUID] = mapped_column(primary_key=True)
    lane: Mapped[str] = mapped_column(server_default="bulk")
    state: Mapped[str] = mapped_column(server_default="idle")
    next_due_at: Mapped[datetime] = mapped_column(server_default="infinity")
    lease_until: Mapped[datetime | None]
    fence: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    crashes: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    suspicions: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    """How often it was in a process that died with others in it, since its last success."""
    wanted: Mapped[bool] = mapped_column(server_default=text("false"))
    """Somebody asked for a run since the last one started: one more follows, however fresh the rows are."""
    worker_id: Mapped[str | None]
    parked_reason: Mapped[str | None]
    parked_at: Mapped[datetime | None]
    provider: Mapped[str | None]
    """The one provider of the unit's calendars; None where they have several."""
    owed: Mapped[float] = mapped_column(REAL, server_default=text("0"))
    """What the last run cost beyond a turn; the next claim charges it to the tenant's debt."""
    accounted_to: Mapped[datetime] = mapped_column(server_default=func.now())
    """Expected occurrences up to here are accounted for, in the four counts below."""
    rest: Mapped[str | None]
    """Why the unit rests where it does: what occurrences until then are skipped for."""
    slots_done: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    slots_failed: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    slots_skipped: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    slots_superseded: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    quiet_runs: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    changed_runs: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    failed_runs: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Turn(Base):
    """A tenant's place in the ring of one lane."""

    __tablename__ = "turns"
    __table_args__ = (
        CheckConstraint(_LANES, name="lane"),
        CheckConstraint("cap between 1 and 1000", name="cap"),
        CheckConstraint("weight > 0 and weight <= 100", name="weight"),
        Index("turns_ready", "lane", "ready_at", postgresql_where=text("not paused")),
        {"schema": "sync"},
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("sync.tenants.tenant_id", ondelete="CASCADE"), primary_key=True)
    lane: Mapped[str] = mapped_column(primary_key=True)
    weight: Mapped[float] = mapped_column(REAL, server_default=text("1"))
    cap: Mapped[int] = mapped_column(server_default=text("50"))
    paused: Mapped[bool] = mapped_column(server_default=text("false"))
    at_cap: Mapped[bool] = mapped_column(server_default=text("false"))
    debt: Mapped[float] = mapped_column(REAL, server_default=text("0"))
    """What the tenant has had beyond its share, in the cost of quiet runs."""
    ready_at: Mapped[datetime] = mapped_column(server_default="infinity")
