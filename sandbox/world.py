"""The whole world on one machine: databases, Supabase with Realtime, stand-ins for providers, and Celery.

One supervisor starts and stops all of it. No port or folder is assumed free, no Docker and no account is
needed, and nothing is left behind: every part is a context, and whatever ends the supervisor, a signal
included, leaves them in order.
"""

from __future__ import annotations

import base64
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from config.settings import Settings, load_settings
from db import partitions, schema
from db.session import Database
from sandbox import supabase_migrations
from sandbox.servers.google import GoogleStandIn
from sandbox.servers.lite import SupabaseLite
from sandbox.servers.ports import free_port
from sandbox.servers.postgres import Postgres
from sandbox.servers.process import ManagedProcess, ServerFailed, clean_environment
from sandbox.servers.radicale import Radicale
from sandbox.servers.realtime import SupabaseGateway
from sandbox.servers.valkey import Valkey

CHECKOUT = Path(__file__).resolve().parent.parent
WORKER_READY = 60.0  # seconds
WATCH = 0.5  # seconds
FLOWER_USER = "operator"


class World:
    """Servers first (`start`), then as many Celery processes as wanted."""

    def __init__(self, *, folder: Path | None = None, durable: bool = False, overrides: dict[str, str] | None = None):
        self._owns_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="tenantsync-world-"))
        self._durable = durable
        self._overrides = overrides or {}
        self._stack = ExitStack()
        self.processes: dict[str, ManagedProcess] = {}
        self.revived: list[str] = []
        self._ready: dict[str, tuple[Callable[[], bool], float]] = {}
        self._watching = threading.Event()
        self._supabase_watched = False
        self.flower_password = secrets.token_urlsafe(12)
        self.flower_port: int | None = None
        self.web_port: int | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the servers and make both schemas; returns when everything answers."""
        self._stack.callback(self._remove_folder)
        self.postgres = self._stack.enter_context(Postgres(folder=self.folder / "postgres", durable=self._durable))
        self.valkey = Valkey(folder=self.folder / "valkey", appendonly=True)
        self.radicale = Radicale(folder=self.folder / "radicale")
        self.google = GoogleStandIn(folder=self.folder / "google")
        self.supabase = SupabaseLite(self.postgres, folder=self.folder / "supabase")
        self.gateway = SupabaseGateway(self.supabase, folder=self.folder / "gateway")
        for server in (self.valkey, self.radicale, self.google, self.supabase, self.gateway):
            self._stack.callback(server.close)
        with ThreadPoolExecutor(4) as threads:
            starts = [threads.submit(one.start) for one in (self.valkey, self.radicale, self.google, self.supabase)]
            for start in starts:
                start.result()
        supabase_migrations.apply(self.supabase.database_url)
        self.gateway.start()
        self.postgres.create_database("tenantsync")
        schema.upgrade(self.postgres.url("tenantsync"))
        self.environment = self._environment()
        self.settings = self._settings()
        self.database = Database(self.settings.database_url, pool_size=4, name="tenantsync sandbox")
        self._stack.callback(self.database.close)
        with self.database.transaction() as connection:
            partitions.ensure_ahead(connection, now=datetime.now(UTC))

    def stop(self) -> None:
        """Stop everything that was started, the last first."""
        self._stack.close()

    def start_worker(
        self, name: str, queues: str, *, concurrency: int, environment: dict[str, str] | None = None
    ) -> ManagedProcess:
        """A Celery worker, running when Postgres has heard of it."""
        node = f"{name}@tenantsync"
        options = ["worker", "-n", node, "-Q", queues, "-c", str(concurrency), "--without-gossip", "--without-mingle"]
        return self._start_celery(
            name, options, lambda: self.heard_of(node), environment=environment, timeout=WORKER_READY
        )

    def start_beat(self, name: str = "beat", *, environment: dict[str, str] | None = None) -> ManagedProcess:
        """Celery beat, running when it says so in its log."""
        log = self.folder / f"{name}.log"
        return self._start_celery(
            name,
            ["beat"],
            lambda: log.exists() and "beat_started" in log.read_text(errors="replace"),
            environment=environment,
        )

    def start_flower(self) -> ManagedProcess:
        """Flower with a password, running when its health check answers."""
        self.flower_port = self.flower_port or free_port()
        url = f"http://127.0.0.1:{self.flower_port}/healthcheck"
        options = ["flower", "--address=127.0.0.1", f"--port={self.flower_port}"]
        return self._start_celery("flower", options, lambda: _answers(url))

    def start_web(self) -> ManagedProcess:
        """The web process, running when it is ready to work; a restart finds the same port."""
        self.web_port, self.flower_port = self.web_port or free_port(), self.flower_port or free_port()
        url = f"http://127.0.0.1:{self.web_port}/readyz"
        flower = f"http://127.0.0.1:{self.flower_port}/"
        command = [sys.executable, "-m", "tenantsync", "web", "--host", "127.0.0.1", "--port", str(self.web_port)]
        return self._start_process("web", command, lambda: _answers(url), environment={"FLOWER_URL": flower})

    def start_all(self) -> None:
        """The usual set: workers for batches, bulk work, what kills workers, tasks and the house; two beats; Flower."""
        with ThreadPoolExecutor(8) as threads:
            starts = [
                threads.submit(self.start_worker, "sync", "sync", concurrency=2),
                threads.submit(self.start_worker, "bulk", "bulk", concurrency=2),
                threads.submit(self.start_worker, "apart", "quarantine,isolated", concurrency=2),
                threads.submit(self.start_worker, "tasks", "tasks", concurrency=2),
                threads.submit(self.start_worker, "house", "wakeups,mirror,maintenance", concurrency=3),
                threads.submit(self.start_beat),
                threads.submit(self.start_beat, "beat-2"),
                threads.submit(self.start_flower),
            ]
            for start in starts:
                start.result()
        self.keep_alive()

    def product_environment(self) -> dict[str, str]:
        """What a command line of this world needs in its environment."""
        return {name: value for name, value in self.environment.items() if name.lower() in Settings.model_fields}

    def keep_supabase_alive(self) -> None:
        """Start the lite server again when it dies: its Postgres client may crash when Postgres does."""
        if not self._supabase_watched:
            self._supabase_watched = True
            watcher = threading.Thread(target=self._watch_supabase, name="watcher-supabase", daemon=True)
            self._watching.set()
            watcher.start()
            self._stack.callback(watcher.join)
            self._stack.callback(self._watching.clear)

    def _watch_supabase(self) -> None:
        while self._watching.is_set():
            for name, server in (("supabase", self.supabase), ("gateway", self.gateway)):
                if not server.alive and self.postgres.alive and self._watching.is_set():
                    with suppress(ServerFailed):
                        server.start()
                        self.revived.append(name)
            time.sleep(WATCH)

    def keep_alive(self) -> None:
        """From now on restart Celery processes that die, as an orchestrator would; `revived` names them."""
        self.keep_supabase_alive()
        self._watching.set()
        for name in self.processes:  # a watcher each: one that takes long to start holds up no other
            watcher = threading.Thread(target=self._watch, args=(name,), name=f"watcher-{name}", daemon=True)
            watcher.start()
            self._stack.callback(watcher.join)
        self._stack.callback(self._watching.clear)

    def _watch(self, name: str) -> None:
        process = self.processes[name]
        ready, timeout = self._ready[name]
        while self._watching.is_set():
            if not process.alive and self._watching.is_set():
                process.kill()
                with suppress(ServerFailed):
                    process.start(lambda: not self._watching.is_set() or ready(), timeout=timeout)
                    self.revived.append(name)
            time.sleep(WATCH)

    def _start_celery(
        self,
        name: str,
        options: list[str],
        ready: Callable[[], bool],
        *,
        environment: dict[str, str] | None = None,
        timeout: float = 30.0,
    ) -> ManagedProcess:
        command = [sys.executable, "-m", "celery", "-A", "tasks", *options]
        return self._start_process(name, command, ready, environment=environment, timeout=timeout)

    def _start_process(
        self,
        name: str,
        command: list[str],
        ready: Callable[[], bool],
        *,
        environment: dict[str, str] | None = None,
        timeout: float = 30.0,
    ) -> ManagedProcess:
        process = ManagedProcess(
            name=name,
            command=command,
            log_path=self.folder / f"{name}.log",
            hint="Its settings are those of sandbox/world.py.",
            environment={**self.environment, **(environment or {})},
            cwd=CHECKOUT,
        )
        self._stack.callback(process.stop)
        process.start(ready, timeout=timeout)
        self.processes[name] = process
        self._ready[name] = (ready, timeout)
        return process

    def heard_of(self, node: str) -> bool:
        """Whether a worker's heart has beaten within the last seconds."""
        with self.postgres.connect("tenantsync") as connection, connection.cursor() as cursor:
            cursor.execute(
                "select 1 from worker.workers where worker_id = %s and heartbeat_at > now() - interval '3 s'", (node,)
            )
            return cursor.fetchone() is not None

    def _environment(self) -> dict[str, str]:
        key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        return clean_environment(
            **{
                "DATABASE_URL": self.postgres.url("tenantsync"),
                "DIRECT_URL": self.postgres.url("tenantsync"),
                "REDIS_URL": self.valkey.url(0),
                "SUPABASE_URL": self.gateway.url,
                "SUPABASE_SECRET_KEY": self.supabase.secret_key,
                "ENCRYPTION_KEYS": f"1:{key}",
                "SECRET_KEY": secrets.token_urlsafe(48),
                "SUPABASE_JWT_SECRET": self.supabase.jwt_secret,
                "GOOGLE_CLIENT_ID": "stand-in-client",
                "GOOGLE_CLIENT_SECRET": "stand-in-secret",
                "GOOGLE_API_ENDPOINT": self.google.api_endpoint,
                "GOOGLE_TOKEN_URI": self.google.token_uri,
                "OUTBOUND_ALLOWED_NETWORKS": "127.0.0.0/8",
                "FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{self.flower_password}",
                "LOG_FORMAT": "console",
                "TASK_HANDLERS": "sandbox.handlers",
                "PYTHONPATH": str(CHECKOUT),
                **self._overrides,
            }
        )

    def _settings(self) -> Settings:
        """The same settings for code that runs in this process."""
        values = {name.lower(): value for name, value in self.product_environment().items()}
        return load_settings(_env_file=None, **values)

    def _remove_folder(self) -> None:
        if self._owns_folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
