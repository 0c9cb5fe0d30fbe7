"""The ledger, its steps, metrics and the workers: the seeds' worker database."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, Index, Numeric, SmallInteger, String, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base

_PARTITIONED = {"schema": "worker", "postgresql_partition_by": "RANGE (id)"}
_PERCENT = Numeric(5, 2)
_ASKED = "supabase_task_id is not null or requested_by is not null"


class Task(Base):
    """A unit's occurrence, a periodic job's occurrence, or a task taken in from Supabase."""

    __tablename__ = "tasks"
    __table_args__ = (
        CheckConstraint(
            "status in ('pending', 'processing', 'waiting', 'completed', 'failed', 'cancelled', 'superseded', "
            "'skipped')",
            name="status",
        ),
        CheckConstraint("priority between 1 and 10", name="priority"),
        Index("tasks_open", "queue", "status", postgresql_where=text("status in ('pending', 'processing')")),
        Index("tasks_status", "status"),
        Index("tasks_worker", "worker_id"),
        Index("tasks_tenant", "tenant_id", "id"),
        Index("tasks_occurrences", "kind", "due_at", postgresql_where=text("due_at is not null")),
        Index("tasks_asked", "id", postgresql_where=text(_ASKED)),
        Index("tasks_asked_of", "tenant_id", "id", postgresql_where=text(_ASKED)),
        _PARTITIONED,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    supabase_task_id: Mapped[UUID | None]
    tenant_id: Mapped[UUID | None]
    kind: Mapped[str]
    subject_id: Mapped[UUID | None]
    fence: Mapped[int | None] = mapped_column(BigInteger)
    queue: Mapped[str | None]
    worker_id: Mapped[str] = mapped_column(String(255), server_default="unassigned")
    status: Mapped[str] = mapped_column(String(50), server_default="pending")
    lease_until: Mapped[datetime | None]
    due_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    result: Mapped[dict[str, Any] | None]
    error_log: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    workspace_id: Mapped[UUID | None]
    payload: Mapped[dict[str, Any] | None]
    requested_by: Mapped[str | None]
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class TaskKey(Base):
    """What may exist once over all months; the ledger's partitions cannot hold such a promise themselves."""

    __tablename__ = "task_keys"
    __table_args__ = {"schema": "worker"}  # noqa: RUF012 — SQLAlchemy's own form

    key: Mapped[str] = mapped_column(primary_key=True)
    task_id: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Bell(Base):
    """Something outside that rang, because there is something to fetch, and when it was last answered."""

    __tablename__ = "bells"
    __table_args__ = {"schema": "worker"}  # noqa: RUF012 — SQLAlchemy's own form

    bell: Mapped[str] = mapped_column(primary_key=True)
    rung_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    answered_at: Mapped[datetime] = mapped_column(server_default="-infinity")


class Schedule(Base):
    """An entry of the timetable as it is followed: what it promises since when, and what became of it.

    `earlier` is what the entry's former rules promised until `since`, in occurrences.
    """

    __tablename__ = "schedules"
    __table_args__ = (
        CheckConstraint("every > interval '0'", name="every"),
        CheckConstraint("policy in ('latest', 'all', 'skip')", name="policy"),
        {"schema": "worker"},
    )

    entry: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(unique=True)
    every: Mapped[timedelta]
    policy: Mapped[str]
    since: Mapped[datetime] = mapped_column(server_default=func.now())
    last_tick: Mapped[datetime] = mapped_column(server_default=func.now())
    earlier: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    done: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    failed: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    skipped: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    superseded: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class ExecutionLog(Base):
    """A step of a task, with its milliseconds."""

    __tablename__ = "execution_logs"
    __table_args__ = (Index("execution_logs_task", "task_id"), _PARTITIONED)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    task_id: Mapped[UUID]
    tenant_id: Mapped[UUID | None]
    step_name: Mapped[str] = mapped_column(String(255))
    execution_time: Mapped[int | None]
    success: Mapped[bool | None]
    details: Mapped[dict[str, Any] | None]
    logged_at: Mapped[datetime] = mapped_column(server_default=func.now())


class SystemMetric(Base):
    """A reading: of a worker, of the fleet, or of a tenant's freshness."""

    __tablename__ = "system_metrics"
    __table_args__ = (
        CheckConstraint("scope in ('worker', 'fleet', 'tenant')", name="scope"),
        Index("system_metrics_worker", "worker_id", "id"),
        Index("system_metrics_fleet", "id", postgresql_where=text("scope = 'fleet'")),
        _PARTITIONED,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    scope: Mapped[str] = mapped_column(server_default="worker")
    worker_id: Mapped[str] = mapped_column(String(255))
    tenant_id: Mapped[UUID | None]
    cpu_usage: Mapped[Decimal | None] = mapped_column(_PERCENT)
    memory_usage: Mapped[Decimal | None] = mapped_column(_PERCENT)
    active_tasks: Mapped[int | None]
    details: Mapped[dict[str, Any] | None]
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())


class AuditLog(Base):
    """Who did what by hand."""

    __tablename__ = "audit_logs"
    __table_args__ = (Index("audit_logs_tenant", "tenant_id", "id"), _PARTITIONED)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID | None]
    actor: Mapped[str]
    action: Mapped[str]
    details: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Worker(Base):
    """A live Celery worker: what it serves and when it was last heard of."""

    __tablename__ = "workers"
    __table_args__ = {"schema": "worker"}  # noqa: RUF012 — SQLAlchemy's own form

    worker_id: Mapped[str] = mapped_column(primary_key=True)
    queues: Mapped[list[str]] = mapped_column(ARRAY(Text))
    slots: Mapped[int]
    cpu_usage: Mapped[Decimal | None] = mapped_column(_PERCENT)
    memory_usage: Mapped[Decimal | None] = mapped_column(_PERCENT)
    active_tasks: Mapped[int] = mapped_column(server_default=text("0"))
    clock_skew_ms: Mapped[int | None]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.now())
