"""Celery's own settings. The reasons and the figures behind them: docs/decisions/0004-celery-on-redis.md."""

from typing import Any

from kombu import Exchange
from kombu import Queue as BrokerQueue

from config.queues import ROUTES, Lane, Queue
from config.settings import Settings

BROKER_TIMEOUT = 5.0  # seconds; without one a frozen broker holds a publisher for ever (celery #4627)
CHILD_MEMORY = 1_000_000  # KiB; a child that has grown so large is replaced when its message is done
HARD_LIMIT_MARGIN = 30  # seconds after a run's own deadline until Celery kills the child as a last resort


def hard_limits(settings: Settings) -> dict[Lane, int]:
    """Seconds after which Celery kills the child that runs a message of a lane.

    A run's own deadline ends it long before; this is for a child whose loop stands still.
    """
    deadlines = {
        Lane.SYNC: settings.sync_unit_deadline,
        Lane.BULK: settings.sync_bulk_deadline,
        Lane.QUARANTINE: settings.sync_bulk_deadline,
        Lane.ISOLATED: settings.sync_isolated_deadline,
    }
    return {lane: int(deadline.total_seconds()) + HARD_LIMIT_MARGIN for lane, deadline in deadlines.items()}


def celery_config(settings: Settings) -> dict[str, Any]:
    """Settings for `app.conf.update`: early acknowledgement, no results, no retries of Celery's own."""
    return {
        "broker_url": settings.redis_url,
        "broker_transport_options": {
            "global_keyprefix": "tenantsync:",
            "visibility_timeout": 24 * 3600,  # nothing is redelivered by Redis: a lease that ends is the way back
            "socket_timeout": BROKER_TIMEOUT,
            "socket_connect_timeout": BROKER_TIMEOUT,
            "socket_keepalive": True,
            "max_connections": 100,
            "priority_steps": [0],
        },
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_pool_acquire_timeout": BROKER_TIMEOUT,
        # An exchange each: on a shared one every queue bound with the default key would get every message.
        "task_queues": [
            BrokerQueue(name=queue.value, exchange=Exchange(queue.value), routing_key=queue.value) for queue in Queue
        ],
        "task_routes": {name: {"queue": queue.value} for name, queue in ROUTES.items()},
        "task_default_queue": Queue.MAINTENANCE.value,
        "task_create_missing_queues": False,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "task_acks_late": False,
        "task_publish_retry": False,
        "task_time_limit": max(hard_limits(settings).values()),
        "worker_max_memory_per_child": CHILD_MEMORY,
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        "worker_hijack_root_logger": False,
        "worker_proc_alive_timeout": 30,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "beat_scheduler": "tasks.beat:Metronome",
        "beat_max_loop_interval": 1,
        "enable_utc": True,
        "timezone": "UTC",
    }
