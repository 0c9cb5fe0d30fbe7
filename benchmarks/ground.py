"""The ground that benchmarks stand on: durable Postgres, Valkey, the 50 ms provider, and the product's processes."""

import base64
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

from benchmarks.provider import Provider
from config.settings import Settings, load_settings
from db import partitions, schema
from db.session import Database
from sandbox import supabase_migrations
from sandbox.servers.lite import SupabaseLite
from sandbox.servers.ports import free_port
from sandbox.servers.postgres import Postgres
from sandbox.servers.process import ManagedProcess, clean_environment
from sandbox.servers.valkey import Valkey
from tenantsync.vault import Vault

CHECKOUT = Path(__file__).resolve().parent.parent
SHARED_BUFFERS = min(4096, psutil.virtual_memory().total // 4 // 2**20)
POSTGRES = {
    "shared_buffers": f"{SHARED_BUFFERS}MB",  # a quarter of the memory, as its documentation advises
    "max_wal_size": "16GB",
    "checkpoint_timeout": "30min",
    "maintenance_work_mem": "256MB",
}
WORKER_READY = 60.0  # seconds
SECRET_KEY = secrets.token_urlsafe(48)


class Ground:
    """Everything that a benchmark needs, on this machine, for as long as the block runs."""

    def __init__(self, *, listings: Sequence[int] = (), supabase: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tenantsync-bench-"))
        self._listings = listings
        self._with_supabase = supabase
        self._stack = ExitStack()
        self._celery: list[ManagedProcess] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.postgres = self._stack.enter_context(
            Postgres(folder=self.folder / "postgres", durable=True, settings=POSTGRES)
        )
        self.valkey = self._stack.enter_context(Valkey(folder=self.folder / "valkey", appendonly=True))
        self.provider = self._stack.enter_context(Provider(folder=self.folder / "provider", listings=self._listings))
        self.url = self.postgres.create_database("tenantsync")
        schema.upgrade(self.url)
        key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        self._environment = {
            "DATABASE_URL": self.url,
            "REDIS_URL": self.valkey.url(0),
            "SUPABASE_URL": "http://127.0.0.1:1",
            "SUPABASE_SECRET_KEY": "sb_secret_of_nobody",
            "ENCRYPTION_KEYS": f"1:{key}",
            "GOOGLE_CLIENT_ID": "bench-client",
            "GOOGLE_CLIENT_SECRET": "bench-secret",
            "GOOGLE_API_ENDPOINT": self.provider.api_endpoint,
            "GOOGLE_TOKEN_URI": self.provider.token_uri,
            "GOOGLE_QUOTA_PER_MINUTE": "10000000",  # reserved and counted like any, and never reached
            "GOOGLE_USER_QUOTA_PER_MINUTE": "1000000",
        }
        if self._with_supabase:
            self.supabase = self._stack.enter_context(SupabaseLite(self.postgres, folder=self.folder / "supabase"))
            supabase_migrations.apply(self.supabase.database_url)
            self._environment |= {
                "SUPABASE_URL": self.supabase.url,
                "SUPABASE_SECRET_KEY": self.supabase.secret_key,
            }
        self.settings = self._settings()
        self.vault = Vault(self.settings.encryption_keys)
        self.database = Database(self.url, pool_size=4, name="benchmarks")
        self._stack.callback(self.database.close)
        with self.database.transaction() as connection:
            partitions.ensure_ahead(connection, now=datetime.now(UTC))

    def _settings(self) -> Settings:
        return load_settings(_env_file=None, **{name.lower(): value for name, value in self._environment.items()})

    def start_worker(
        self, name: str, queues: str, *, concurrency: int, app: str = "tasks", **settings: str
    ) -> ManagedProcess:
        """A worker of the product, running when Postgres has heard of it. Keyword arguments are settings."""
        node = f"{name}@bench"
        options = ["worker", "-n", node, "-Q", queues, "-c", str(concurrency), "--without-gossip", "--without-mingle"]
        return self.start_celery(name, app, options, lambda: self._heard_of(node), **settings)

    def start_beat(self, **settings: str) -> ManagedProcess:
        return self.start_celery("beat", "tasks", ["beat"], lambda: "beat_started" in self.log("beat"), **settings)

    def start_celery(
        self, name: str, app: str, options: Sequence[str], ready: Callable[[], bool], **environment: str
    ) -> ManagedProcess:
        """A Celery process of any app, stopped when the block ends if not before."""
        process = self._start_process(name, ["celery", "-A", app, *options], ready, LOG_FORMAT="console", **environment)
        self._celery.append(process)
        return process

    def start_web(self) -> str:
        """The web process, running when it is ready; returns its address. `web` is the process."""
        port = free_port()
        command = ["tenantsync", "web", "--host", "127.0.0.1", "--port", str(port)]
        address = f"http://127.0.0.1:{port}"
        self.web = self._start_process("web", command, lambda: _answers(f"{address}/readyz"), SECRET_KEY=SECRET_KEY)
        return address

    def _start_process(
        self, name: str, command: Sequence[str], ready: Callable[[], bool], **environment: str
    ) -> ManagedProcess:
        process = ManagedProcess(
            name=name,
            command=[sys.executable, "-m", *command],
            log_path=self.folder / f"{name}.log",
            hint="Its settings are those of benchmarks/ground.py.",
            environment=clean_environment(**{**self._environment, "PYTHONPATH": str(CHECKOUT), **environment}),
            cwd=CHECKOUT,
        )
        self._stack.callback(process.stop)
        process.start(ready, timeout=WORKER_READY)
        return process

    def stop_celery(self) -> None:
        """Stop every Celery process; the servers go on."""
        for process in self._celery:
            process.stop()

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _heard_of(self, node: str) -> bool:
        with self.postgres.connect("tenantsync") as connection, connection.cursor() as cursor:
            cursor.execute(
                "select 1 from worker.workers where worker_id = %s and heartbeat_at > now() - interval '3 s'", (node,)
            )
            return cursor.fetchone() is not None


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
