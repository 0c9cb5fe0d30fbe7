"""How workers come back to a broker that was away."""

from typing import Any

from celery.app.amqp import AMQP
from kombu import Connection

RETRY = 1.0  # seconds; recovery is promised within ten


class PromptConnection(Connection):
    """Tries at short, equal intervals. Celery's grow to 30 s, and so long a worker idles beside a live broker."""

    def _ensure_connection(self, *args: Any, **options: Any) -> Any:
        return super()._ensure_connection(
            *args, **({"interval_start": RETRY, "interval_step": 0, "interval_max": RETRY} | options)
        )


class PromptAmqp(AMQP):
    """Celery's way to the broker, by such connections."""

    Connection = PromptConnection
