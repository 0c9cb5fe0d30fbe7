"""What Celery does not tell of its broker: how much waits there."""

from typing import Any

from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError

from config.queues import Queue


def waiting(app: Celery, queue: Queue) -> int:
    """Messages that wait in a queue. Raises kombu's OperationalError."""
    with app.connection_for_read() as connection:
        return length(connection, queue.value)


def lengths(app: Celery) -> dict[str, int]:
    """Messages that wait in each queue. Raises kombu's OperationalError."""
    with app.connection_for_read() as connection:
        return {queue.value: length(connection, queue.value) for queue in Queue}


def length(connection: Connection, queue: str) -> int:
    """Messages that wait in a queue, over a connection that is there. Raises kombu's OperationalError."""
    try:
        channel: Any = connection.default_channel
        return int(channel._size(queue))  # noqa: SLF001 — kombu has no other
    except (*connection.connection_errors, *connection.channel_errors) as error:
        raise OperationalError(f"the broker does not say what waits in {queue} ({type(error).__name__})") from error
