"""The queues, and what each of them is for."""

from enum import StrEnum


class Queue(StrEnum):
    """A Celery queue. A worker names the ones it serves with `-Q`; without `-Q` it serves them all."""

    WAKEUPS = "wakeups"
    """Wake-ups from beat: short, few, and never behind real work."""
    SYNC = "sync"
    """Batches of units that are expected to be quiet or nearly so."""
    BULK = "bulk"
    """One unit a message: first syncs and resyncs, which parse a lot."""
    QUARANTINE = "quarantine"
    """One unit a message: units whose worker died while it ran them."""
    ISOLATED = "isolated"
    """One unit a message, in children of limited memory: tenants whose units kill workers again and again."""
    MIRROR = "mirror"
    """Draining the outbox to Supabase."""
    TASKS = "tasks"
    """Tasks that web apps ask for: one a message, each with a time limit of its kind."""
    MAINTENANCE = "maintenance"
    """Cleanup, partitions, metrics, and looking for what is asked for."""


class Lane(StrEnum):
    """Where a unit runs. Every lane is the queue of the same name, and has turns of its own."""

    SYNC = "sync"
    BULK = "bulk"
    QUARANTINE = "quarantine"
    ISOLATED = "isolated"

    @property
    def queue(self) -> Queue:
        return Queue(self.value)


ROUTES = {
    "sync.dispatch": Queue.WAKEUPS,
    "sync.run_batch": Queue.SYNC,  # each batch says which lane's queue it goes to
    "mirror.drain": Queue.MIRROR,
    "schedule.tick": Queue.WAKEUPS,
    "work.dispatch": Queue.WAKEUPS,
    "work.run": Queue.TASKS,
    "work.answer": Queue.MAINTENANCE,
}
"""The queue of each task that is no occurrence, by the task's name; an occurrence's stands in beat_schedule.py."""
