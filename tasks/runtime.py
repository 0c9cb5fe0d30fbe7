"""What a worker process holds: made after the fork, once, and taken down when the process ends."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from config.settings import Settings, get_settings
from db import racepoints
from db.session import Database, is_connection_loss
from tenantsync.calendars.runner import Runner
from tenantsync.errors import PublishFailed
from tenantsync.mirror.supabase import Supabase
from tenantsync.processes.publishing import Publisher

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Runtime:
    """A process's connections. `pid` tells a forked child that these are its parent's."""

    pid: int
    worker: str
    settings: Settings
    database: Database
    replica: Database
    """The same database where there is no replica."""
    runner: Runner
    supabase: Supabase
    publisher: Publisher

    def close(self, grace: float) -> None:
        self.runner.close(grace)
        self.publisher.close()
        self.supabase.close()
        self.database.close()
        if self.replica is not self.database:
            self.replica.close()


_lock = threading.Lock()
_current: Runtime | None = None
_worker = f"celery@{socket.gethostname()}"


def name_worker(name: str) -> None:
    """Remember the Celery node's name, before the pool forks."""
    global _worker  # noqa: PLW0603 — one value a process, set once
    _worker = name


def worker_name() -> str:
    return _worker


def open_database(settings: Settings, *, purpose: str) -> Database:
    """A pool for this process, recognisable in pg_stat_activity."""
    return Database(settings.database_url, pool_size=settings.worker_db_pool_size, name=f"tenantsync {purpose}")


def _replica(settings: Settings, database: Database) -> Database:
    if settings.replica_url is None:
        return database
    return Database(settings.replica_url, pool_size=1, name="tenantsync metrics")


def runtime() -> Runtime:
    """This process's runtime, made on first use."""
    global _current  # noqa: PLW0603 — one value a process
    with _lock:
        if _current is None or _current.pid != os.getpid():
            settings = get_settings()
            if settings.trace_file is not None:
                racepoints.install(racepoints.Recorder(settings.trace_file))
            database = open_database(settings, purpose="worker")
            secret = settings.supabase_secret_key.get_secret_value()
            _current = Runtime(
                pid=os.getpid(),
                worker=_worker,
                settings=settings,
                database=database,
                replica=_replica(settings, database),
                runner=Runner(settings, database, worker=_worker),
                supabase=Supabase(settings.supabase_url, secret),
                publisher=Publisher(database),
            )
        return _current


@contextmanager
def wake_up(name: str) -> Iterator[None]:
    """A wake-up at work. One that loses Postgres or the broker says so in a line: the next one does its work."""
    try:
        yield
    except PublishFailed as error:
        log.warning("wake_up_cut_short", task=name, error=str(error))
    except Exception as error:
        if not is_connection_loss(error):
            raise
        log.warning("wake_up_cut_short", task=name, error=type(error).__name__)


def close_runtime(grace: float) -> None:
    """Take this process's runtime down, if it has one of its own."""
    global _current
    with _lock:
        ours, _current = _current, None
    if ours is not None and ours.pid == os.getpid():
        ours.close(grace)
