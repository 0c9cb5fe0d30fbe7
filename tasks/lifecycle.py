"""What happens when a worker or beat starts and stops: checks before anything runs, heartbeats while it does."""

import os
import sys
import threading
from typing import Any

import psutil
import structlog
from celery import Celery, bootsteps, signals
from celery.worker import WorkController
from kombu.exceptions import OperationalError
from sqlalchemy.exc import SQLAlchemyError

from beat_schedule import WAKE_UPS
from config.log_setup import setup_logging
from config.queues import Queue
from config.settings import get_settings
from db.repositories import ledger
from db.schema import SchemaOutdated, require_current
from db.session import Database, DatabaseUnreachable
from tasks import stopping, watchdog
from tasks.celery_app import TIMETABLE
from tasks.runtime import close_runtime, name_worker, open_database, runtime
from tasks.work import handlers
from tenantsync import clock
from tenantsync.confinement import is_confined, limit_memory
from tenantsync.mirror.supabase import MirrorError, MirrorUnavailable, Supabase
from tenantsync.schedule.rules import refusals
from tenantsync.work.handlers import HandlersBroken

log = structlog.get_logger(__name__)

START_ATTEMPTS = 5
EXIT_REFUSED = 2
EXIT_UNREACHABLE = 3
HEARTBEAT = 1.0  # seconds

_confined = False


def install(app: Celery) -> None:
    """Register everything with the app."""
    app.steps["worker"].add(Heart)
    stopping.install(app)
    watchdog.install(app)
    signals.setup_logging.connect(_setup_logging, weak=False)
    signals.celeryd_init.connect(_before_worker, weak=False)
    signals.beat_init.connect(_before_beat, weak=False)
    signals.worker_process_init.connect(_after_fork, weak=False)
    signals.worker_process_shutdown.connect(_before_exit, weak=False)
    signals.worker_shutdown.connect(_before_exit, weak=False)


def _setup_logging(**_: Any) -> None:
    setup_logging(get_settings())


def _give_up(message: str, code: int = EXIT_UNREACHABLE) -> None:
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()
    # Celery turns SystemExit inside a signal into a log line, and a worker that cannot work must not linger.
    os._exit(code)


def _before_worker(sender: str, instance: WorkController, options: dict[str, Any], **_: Any) -> None:
    global _confined  # noqa: PLW0603 — set once, before the pool forks
    settings = get_settings()
    name_worker(sender)
    _confined = is_confined(_served(instance.app, options))
    _check_timetable(instance.app)
    _check_handlers()
    database = open_database(settings, purpose="start-up")
    try:
        database.wait_until_reachable(attempts=START_ATTEMPTS)
        require_current(database)
        require_broker(instance.app)
        if _serves(instance.app, options, Queue.MIRROR):
            check_supabase()
    except (DatabaseUnreachable, SchemaOutdated, BrokerUnreachable, MirrorError) as error:
        _give_up(str(error))
    finally:
        database.close()


def _check_timetable(app: Celery) -> None:
    """Refuse to start with a timetable that cannot be followed, naming every entry that is wrong."""
    app.loader.import_default_modules()
    ours = {name for name in app.tasks if not name.startswith("celery.")}
    wrong = refusals(WAKE_UPS, TIMETABLE, ours)
    if wrong:
        _give_up("The timetable cannot be followed:\n" + "\n".join(f"  {line}" for line in wrong), EXIT_REFUSED)


def _check_handlers() -> None:
    """Refuse to start with task handlers that cannot be used. The children get them from here by the fork."""
    try:
        log.info("handlers_loaded", kinds=handlers().kinds)
    except HandlersBroken as error:
        _give_up(str(error), EXIT_REFUSED)


def _before_beat(sender: Any, **_: Any) -> None:
    _check_timetable(sender.app)
    try:
        require_broker(sender.app)
        log.info("beat_started", entries=len(sender.app.conf.beat_schedule))
    except BrokerUnreachable as error:
        _give_up(str(error))


class BrokerUnreachable(Exception):
    """Redis did not answer within the attempts allowed. The message names host and port, never the password."""


def require_broker(app: Celery) -> None:
    """Return once the broker answers; raises BrokerUnreachable after START_ATTEMPTS."""
    with app.connection_for_write() as connection:
        where = f"{connection.hostname}:{connection.port}/{connection.virtual_host}"
        try:
            connection.ensure_connection(max_retries=START_ATTEMPTS, interval_start=1, interval_step=1, timeout=15)
        except (OperationalError, OSError) as error:
            raise BrokerUnreachable(
                f"Redis at {where} did not answer after {START_ATTEMPTS} attempts ({type(error).__name__}). "
                "Check REDIS_URL, and that the server runs and lets us in."
            ) from None


def check_supabase() -> None:
    """Raise MirrorMisconfigured where Supabase refuses our key or lacks our migrations.

    One that is away is no reason not to start: rows wait in the outbox, and the worker may have other queues.
    """
    settings = get_settings()
    supabase = Supabase(settings.supabase_url, settings.supabase_secret_key.get_secret_value())
    try:
        supabase.check()
    except MirrorUnavailable as error:
        log.warning("supabase_away", reason=error.reason, detail=error.detail)
    finally:
        supabase.close()


def _serves(app: Celery, options: dict[str, Any], queue: Queue) -> bool:
    return queue.value in _served(app, options)


def _served(app: Celery, options: dict[str, Any]) -> list[str]:
    chosen = options.get("queues")
    names = chosen.split(",") if isinstance(chosen, str) else chosen
    return list(names or app.amqp.queues)


def _after_fork(**_: Any) -> None:
    stopping.when_asked(runtime().runner.stop)
    if _confined:
        limit_memory(get_settings().sync_isolated_memory)


def _before_exit(**_: Any) -> None:
    close_runtime(stopping.time_left())


class Heart(bootsteps.StartStopStep):
    """Tells Postgres once a second that the worker lives and what it serves; says farewell when it stops.

    It beats in a thread of the main process: dispatch sends batches only to workers that were heard of
    within the last seconds, so a beat must not wait behind the broker.
    """

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, parent: Any) -> None:
        self._stopped.clear()
        self._thread = threading.Thread(target=self._beat, args=(parent,), name="worker-heartbeat", daemon=True)
        self._thread.start()

    def stop(self, parent: Any) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(5)
            self._thread = None

    def _beat(self, parent: Any) -> None:
        settings = get_settings()
        database = Database(settings.database_url, pool_size=1, name="tenantsync heartbeat")
        process = psutil.Process()
        queues = sorted(str(name) for name in parent.app.amqp.queues.consume_from)
        try:
            while True:
                self._tell(database, parent, process, queues)
                if self._stopped.wait(HEARTBEAT):
                    break
            with database.statement() as connection:
                ledger.farewell(connection, worker=parent.hostname)
        except SQLAlchemyError as error:
            log.warning("farewell_failed", error=type(error).__name__)
        finally:
            database.close()

    def _tell(self, database: Database, parent: Any, process: psutil.Process, queues: list[str]) -> None:
        cpu, memory = _usage(process)
        reading = {
            "slots": parent.pool.num_processes if parent.pool else 0,
            "cpu": cpu,
            "memory": memory,
            "active": len(parent.state.active_requests),
            "now": clock.now(),
        }
        try:
            with database.statement() as connection:
                ledger.heartbeat(connection, worker=parent.hostname, queues=queues, reading=reading)
        except SQLAlchemyError as error:
            log.warning("worker_heartbeat_failed", error=type(error).__name__)


def _usage(process: psutil.Process) -> tuple[float, float]:
    """(CPU in per cent of one core, memory in per cent of the machine's), of the worker and its children."""
    cpu = memory = 0.0
    for one in [process, *process.children(recursive=True)]:
        try:
            cpu += one.cpu_percent()
            memory += one.memory_percent()
        except psutil.Error:
            continue
    return min(cpu, 999.99), min(memory, 999.99)
