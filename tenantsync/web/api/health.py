"""`/healthz`: this process lives. `/readyz`: it can do its work."""

import threading
from typing import Literal

import redis
from fastapi import APIRouter, Request, Response
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy.exc import SQLAlchemyError

from config.settings import Settings
from db import schema
from db.session import Database
from tenantsync import clock
from tenantsync.web.fields import Shown
from tenantsync.web.services import Parts

router = APIRouter(tags=["health"])
KEPT_FOR = 1.0  # seconds: whoever asks more often asks nobody
BROKER_TIME = 1.0  # seconds


class Health(Shown):
    """It answers."""

    status: Literal["ok"] = "ok"


class Readiness(Shown):
    """What of it works. Without the broker the web process does all that it promises, and others do not."""

    status: Literal["ready", "not ready"]
    database: Literal["ok", "away"]
    migrations: Literal["ok", "outdated", "unknown"]
    broker: Literal["ok", "away"]


class Watch:
    """Looks at what the process needs, once a second at most and one caller at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: Readiness | None = None
        self._at = 0.0

    def look(self, settings: Settings, database: Database) -> Readiness:
        with self._lock:
            if self._known is None or clock.monotonic() - self._at >= KEPT_FOR:
                self._known = _readiness(settings, database)
                self._at = clock.monotonic()
            return self._known


@router.get("/healthz", operation_id="getHealth")
async def healthz() -> Health:
    """Whether the process lives. Answered in the event loop: a busy pool of threads is not a dead process."""
    return Health()


@router.get("/readyz", operation_id="getReadiness", responses={503: {"model": Readiness, "description": "Not ready"}})
def readyz(request: Request, parts: Parts, response: Response) -> Readiness:
    """Whether the process can do its work."""
    watch: Watch = request.app.state.watch
    found = watch.look(parts.settings, parts.database)
    if found.status != "ready":
        response.status_code = 503
    return found


def _readiness(settings: Settings, database: Database) -> Readiness:
    broker: Literal["ok", "away"] = "ok" if _broker_answers(settings.redis_url) else "away"
    try:
        current, head = schema.revisions(database)
    except SQLAlchemyError:
        return Readiness(status="not ready", database="away", migrations="unknown", broker=broker)
    if current != head:
        return Readiness(status="not ready", database="ok", migrations="outdated", broker=broker)
    return Readiness(status="ready", database="ok", migrations="ok", broker=broker)


def _broker_answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(
            url, socket_timeout=BROKER_TIME, socket_connect_timeout=BROKER_TIME, retry=Retry(NoBackoff(), 0)
        ) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
