"""Every table, so that the metadata is whole."""

import re

from db.base import Base
from db.models.accounts import Account, Calendar
from db.models.events import Budget, Cooldown, Event, Hold, QuarantinedItem, StagedEvent, Tombstone
from db.models.identity import Attempt, IdempotencyKey, RefreshToken, Session, User
from db.models.ledger import AuditLog, Bell, ExecutionLog, Schedule, SystemMetric, Task, TaskKey, Worker
from db.models.mirror import MirrorTurn, OutboxEntry, ParkedRow
from db.models.processes import Acknowledgement, Delivery, DeliveryLog, Process, ProcessEvent, Question, Snapshot
from db.models.tenants import Incident, Pause, Policy, Tenant, Turn, Unit, Workspace

_PARTITION = re.compile(r"_(?:\d{4}_\d{2}|default)$")


def is_partition(table: str) -> bool:
    """Whether the name is a month's or the default partition's."""
    return _PARTITION.search(table) is not None


__all__ = [
    "Account",
    "Acknowledgement",
    "Attempt",
    "AuditLog",
    "Base",
    "Bell",
    "Budget",
    "Calendar",
    "Cooldown",
    "Delivery",
    "DeliveryLog",
    "Event",
    "ExecutionLog",
    "Hold",
    "IdempotencyKey",
    "Incident",
    "MirrorTurn",
    "OutboxEntry",
    "ParkedRow",
    "Pause",
    "Policy",
    "Process",
    "ProcessEvent",
    "QuarantinedItem",
    "Question",
    "RefreshToken",
    "Schedule",
    "Session",
    "Snapshot",
    "StagedEvent",
    "SystemMetric",
    "Task",
    "TaskKey",
    "Tenant",
    "Tombstone",
    "Turn",
    "Unit",
    "User",
    "Worker",
    "Workspace",
    "is_partition",
]
