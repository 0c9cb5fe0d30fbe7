"""Processes, their numbered events, and the questions that people answer."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import REAL
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, TenantScoped

_OPEN = "state in ('pending', 'running', 'waiting', 'paused')"
_PROCESS = "process.processes.process_id"


class Process(Base, TenantScoped):
    """What people watch and answer. `memo` holds the results of finished steps; `attempt` is its fence."""

    __tablename__ = "processes"
    __table_args__ = (
        CheckConstraint(
            "state in ('pending', 'running', 'waiting', 'paused', 'completed', 'failed', 'cancelled')", name="state"
        ),
        CheckConstraint("percentage between 0 and 100", name="percentage"),
        CheckConstraint("priority between 1 and 10", name="priority"),
        Index("processes_tenant", "tenant_id", "process_id"),
        Index("processes_open", "state", "lease_until", postgresql_where=text(_OPEN)),
        Index(
            "processes_to_run",
            "queue",
            "tenant_id",
            "priority",
            "process_id",
            postgresql_where=text("state = 'pending'"),
        ),
        Index("processes_subject", "subject_id", postgresql_where=text("subject_id is not null")),
        Index("processes_parent", "parent_id", postgresql_where=text("parent_id is not null")),
        Index("processes_closed", "completed_at", postgresql_where=text("completed_at is not null")),
        Index(
            "processes_once",
            "kind",
            "subject_id",
            unique=True,
            postgresql_where=text(f"subject_id is not null and {_OPEN}"),
        ),
        {"schema": "process"},
    )

    process_id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("sync.tenants.tenant_id", ondelete="CASCADE"))
    workspace_id: Mapped[UUID | None]
    kind: Mapped[str]
    subject_id: Mapped[UUID | None]
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey(_PROCESS, ondelete="SET NULL"))
    title: Mapped[str] = mapped_column(server_default="")
    state: Mapped[str] = mapped_column(server_default="pending")
    step: Mapped[str | None]
    step_started_at: Mapped[datetime | None]
    step_durations: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    completed_steps: Mapped[int] = mapped_column(server_default=text("0"))
    total_steps: Mapped[int | None]
    percentage: Mapped[float | None] = mapped_column(REAL)
    estimated_completion_at: Mapped[datetime | None]
    priority: Mapped[int] = mapped_column(SmallInteger, server_default=text("5"))
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    retry_count: Mapped[int] = mapped_column(server_default=text("0"))
    max_retries: Mapped[int] = mapped_column(server_default=text("3"))
    pause_requested: Mapped[bool] = mapped_column(server_default=text("false"))
    cancel_requested: Mapped[bool] = mapped_column(server_default=text("false"))
    queue: Mapped[str | None]
    deadline_at: Mapped[datetime | None]
    memo: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    result: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    worker_id: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    last_sequence: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    started_by: Mapped[str] = mapped_column(server_default="system")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ProcessEvent(Base, TenantScoped):
    """What happened in a process, numbered from 1 without gaps."""

    __tablename__ = "events"
    __table_args__ = (
        CheckConstraint("priority between 1 and 10", name="priority"),
        Index("events_created", "created_at"),
        Index(
            "events_to_archive",
            "created_at",
            postgresql_where=text("not archived and category in ('system', 'debug')"),
        ),
        {"schema": "process", "postgresql_partition_by": "RANGE (process_id)"},
    )

    process_id: Mapped[UUID] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    event_id: Mapped[UUID]
    event_type: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    category: Mapped[str]
    priority: Mapped[int] = mapped_column(SmallInteger)
    source: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    archived: Mapped[bool] = mapped_column(server_default=text("false"))


class Snapshot(Base):
    """The newest of a chatty type of event, while it waits for its turn."""

    __tablename__ = "snapshots"
    __table_args__ = (
        Index("snapshots_due", "due_at", postgresql_where=text("due_at is not null")),
        {"schema": "process"},
    )

    process_id: Mapped[UUID] = mapped_column(ForeignKey(_PROCESS, ondelete="CASCADE"), primary_key=True)
    event_type: Mapped[str] = mapped_column(primary_key=True)
    published_at: Mapped[datetime]
    pending: Mapped[dict[str, Any] | None]
    due_at: Mapped[datetime | None]


class Question(Base, TenantScoped):
    """What a process asks a person, and what came of it."""

    __tablename__ = "questions"
    __table_args__ = (
        CheckConstraint("state in ('open', 'answered', 'expired', 'withdrawn')", name="state"),
        UniqueConstraint("process_id", "name"),
        Index("questions_open", "process_id", unique=True, postgresql_where=text("state = 'open'")),
        Index("questions_tenant", "tenant_id", "question_id", postgresql_where=text("state = 'open'")),
        Index("questions_due", text("LEAST(remind_at, expires_at)"), postgresql_where=text("state = 'open'")),
        {"schema": "process"},
    )

    question_id: Mapped[UUID] = mapped_column(primary_key=True)
    process_id: Mapped[UUID] = mapped_column(ForeignKey(_PROCESS, ondelete="CASCADE"))
    name: Mapped[str]
    input_type: Mapped[str]
    prompt: Mapped[str] = mapped_column(server_default="")
    options: Mapped[dict[str, Any]] = mapped_column(server_default=text("'[]'"))
    actions: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    answer_schema: Mapped[dict[str, Any] | None]
    state: Mapped[str] = mapped_column(server_default="open")
    asked_at: Mapped[datetime] = mapped_column(server_default=func.now())
    remind_at: Mapped[datetime | None]
    reminded_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    default_answer: Mapped[dict[str, Any] | None]
    answer: Mapped[dict[str, Any] | None]
    answered_by: Mapped[str | None]
    answered_at: Mapped[datetime | None]


class Acknowledgement(Base):
    """Up to which event a reader has confirmed that it read."""

    __tablename__ = "acknowledgements"
    __table_args__ = {"schema": "process"}  # noqa: RUF012 — SQLAlchemy's own form

    process_id: Mapped[UUID] = mapped_column(ForeignKey(_PROCESS, ondelete="CASCADE"), primary_key=True)
    reader: Mapped[str] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger)
    acknowledged_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Delivery(Base):
    """Up to which event Supabase has a process."""

    __tablename__ = "deliveries"
    __table_args__ = {"schema": "process"}  # noqa: RUF012 — SQLAlchemy's own form

    process_id: Mapped[UUID] = mapped_column(ForeignKey(_PROCESS, ondelete="CASCADE"), primary_key=True)
    delivered_sequence: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str | None]
    delivered_at: Mapped[datetime | None]


class DeliveryLog(Base):
    """A call that delivered events: how many, how large, and how old each was when it arrived, in milliseconds."""

    __tablename__ = "delivery_log"
    __table_args__ = {"schema": "process", "postgresql_partition_by": "RANGE (id)"}  # noqa: RUF012

    id: Mapped[UUID] = mapped_column(primary_key=True)
    target: Mapped[str]
    events: Mapped[int]
    failed: Mapped[int] = mapped_column(server_default=text("0"))
    bytes: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    milliseconds: Mapped[list[int]] = mapped_column(ARRAY(Integer), server_default=text("'{}'"))
    logged_at: Mapped[datetime] = mapped_column(server_default=func.now())
