"""Handing out tasks: as many as live workers have room for, in turns across tenants.

Run by a tick every second, by any number of beats. A task is marked as sent in the transaction before its message, and
is sent again when it has not begun in time.
"""

import math
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from config.queues import Queue
from db.racepoints import reach
from db.repositories import work
from db.session import Database
from tenantsync.work.handlers import TIMEOUT, Handlers

QUEUE = Queue.TASKS.value
AHEAD = 2
"""Tasks sent beyond the free slots, so that a slot that becomes free finds the next one waiting."""
GRACE = timedelta(seconds=4)
"""After a run's own time until Celery kills the child that is still at it."""


class Publish(Protocol):
    """Sends a process' id; whoever gets it is killed after so many seconds. Raises PublishFailed."""

    def __call__(self, process_id: UUID, *, time_limit: int) -> None: ...


def dispatch(database: Database, publish: Publish, handlers: Handlers) -> int:
    """Send what waits and fits; returns how many."""
    with database.statement() as connection:
        room = work.room(connection, queue=QUEUE)
    free = room.slots + AHEAD - room.busy if room.slots else 0
    if free <= 0:
        return 0
    with database.transaction() as connection:
        sendable = work.send(connection, queue=QUEUE, limit=free)
    reach("task.sending", rows=[one.process_id for one in sendable])
    for one in sendable:
        handler = handlers.get(one.kind)
        timeout = timedelta(seconds=TIMEOUT) if handler is None else handler.timeout
        publish(one.process_id, time_limit=math.ceil((timeout + GRACE).total_seconds()))
    return len(sendable)
