"""The storm's world: the demo's servers, four workers and two beats, and a fault proxy on every connection.

Every process comes to Postgres under a role of its own, so that the database itself can say which of them
wrote what.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg2
from psycopg2 import sql

from config.queues import Lane, Queue
from sandbox.chaos.network import Network
from sandbox.chaos.proxy import Speaks
from sandbox.servers.process import ManagedProcess
from sandbox.world import World

HOUSE = ",".join(queue.value for queue in Queue if queue.value not in set(Lane))
WORKERS = {
    "sync-a": ("sync,bulk", 2),
    "sync-b": ("sync,bulk,quarantine,isolated", 2),
    "house-a": (f"{HOUSE},quarantine,isolated", 3),
    "house-b": (HOUSE, 2),
}
"""Queues and children of each worker. Whatever one of them does, another can do too."""
BEATS = ("beat-a", "beat-b")
FLEET_READY = 30.0  # seconds
BATCH_RUNNERS = ("sync-a", "sync-b")
ROUTES: dict[str, tuple[Speaks, tuple[str, ...]]] = {
    "postgres": ("postgres", ("DATABASE_URL", "DIRECT_URL")),
    "redis": ("redis", ("REDIS_URL",)),
    "supabase": ("http", ("SUPABASE_URL",)),
    "google": ("http", ("GOOGLE_API_ENDPOINT", "GOOGLE_TOKEN_URI")),
}
"""What leads to each server: the settings that name it."""
INTERVAL = 3.0  # seconds between two polls of a calendar
GOOGLE_LATENCY = 120.0  # milliseconds, so that runs are under way when something strikes
USER_BUDGET = 120  # requests a minute: small enough that the account with many calendars meets it
OVERRIDES = {
    "SYNC_INTERVAL": f"{INTERVAL:g}s",
    "SYNC_UNIT_DEADLINE": "8s",
    "SYNC_CONFIRM_EMPTY_AFTER": "5s",
    "WORKER_BATCH_SIZE": "25",
    "GOOGLE_USER_QUOTA_PER_MINUTE": str(USER_BUDGET),
    "LOG_FORMAT": "json",
}


def role_of(process: str) -> str:
    """Under which name a process comes to Postgres."""
    return "chaos_" + process.replace("-", "_")


def process_of(role: str) -> str:
    return role.removeprefix("chaos_").replace("_", "-")


def node_of(worker: str) -> str:
    return f"{worker}@tenantsync"


class StormWorld(World):
    """A World whose processes are cut off, stopped and killed."""

    def __init__(self, *, seed: int = 1, interval: float = INTERVAL) -> None:
        self.interval = interval
        super().__init__(overrides={**OVERRIDES, "SYNC_INTERVAL": f"{interval:g}s"})
        self._seed = seed

    def start(self) -> None:
        """Servers, schemas, roles and the proxy; then `start_fleet`."""
        super().start()
        self.network = self._stack.enter_context(Network(seed=self._seed))
        self.radicale_port = self.network.open("everybody/radicale", self.radicale.port, "http")
        for process in (*WORKERS, *BEATS):
            self._add_role(role_of(process))
        self.routes = {process: self._route(process) for process in (*WORKERS, *BEATS)}
        with self.google.control() as google:
            google.configure(latency_ms=GOOGLE_LATENCY, log_size=200_000)

    @property
    def caldav_url(self) -> str:
        """Radicale, through the proxy."""
        return f"http://127.0.0.1:{self.radicale_port}/"

    def start_fleet(self) -> None:
        """All workers and beats, kept alive from then on as an orchestrator would."""
        with ThreadPoolExecutor(len(WORKERS) + len(BEATS)) as threads:
            starts = [
                threads.submit(self.start_worker, name, queues, concurrency=children)
                for name, (queues, children) in WORKERS.items()
            ]
            starts += [threads.submit(self.start_beat, name) for name in BEATS]
            for start in starts:
                start.result()
        self._stack.callback(self.stop_fleet)
        self.keep_alive()

    def children(self, worker: str) -> list[psutil.Process]:
        """The pool's processes of a worker, without helpers such as a resource tracker."""
        with suppress(psutil.NoSuchProcess, RuntimeError):
            return [
                one
                for one in psutil.Process(self.processes[worker].pid).children()
                if "celery" in " ".join(one.cmdline()) and "resource_tracker" not in " ".join(one.cmdline())
            ]
        return []

    def kill_process(self, name: str) -> None:
        """SIGKILL for the process itself, none of its children."""
        self.processes[name].send(signal.SIGKILL)

    def kill_group(self, name: str) -> None:
        """SIGKILL for its whole process group at once."""
        with suppress(ProcessLookupError, RuntimeError):
            os.killpg(self.processes[name].pid, signal.SIGKILL)

    def await_fleet(self, *, timeout: float = FLEET_READY) -> bool:
        """Wait until every process runs and every worker was heard of lately; False if that does not happen."""
        ends = time.monotonic() + timeout
        while time.monotonic() < ends:
            if all(process.alive for process in self.processes.values()) and self._heard_of_all():
                return True
            time.sleep(0.1)
        return False

    def heard_of(self, node: str) -> bool:
        """As in every world, and False while Postgres does not answer."""
        with suppress(psycopg2.Error):
            return super().heard_of(node)
        return False

    def _heard_of_all(self) -> bool:
        return all(self.heard_of(node_of(worker)) for worker in WORKERS)

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of a query on the worker database, on a connection of its own and past the proxy."""
        with self.postgres.connect("tenantsync") as connection, connection.cursor() as cursor:
            cursor.execute(query, values)
            return list(cursor.fetchall())

    def _start_celery(
        self,
        name: str,
        options: list[str],
        ready: Callable[[], bool],
        *,
        environment: dict[str, str] | None = None,
        timeout: float = 30.0,
    ) -> ManagedProcess:
        scraps = self.folder / "tmp"  # what a killed process leaves there goes with the world
        scraps.mkdir(exist_ok=True)
        routed = {**self.routes[name], "TMPDIR": str(scraps), **(environment or {})}
        return super()._start_celery(name, options, ready, environment=routed, timeout=timeout)

    def _add_role(self, role: str) -> None:
        self.postgres.execute(
            "tenantsync",
            sql.SQL("create role {} login superuser password {}").format(
                sql.Identifier(role), sql.Literal(self.postgres.password)
            ),
        )

    def _route(self, process: str) -> dict[str, str]:
        """The environment that leads a process through listeners of its own."""
        ports = {
            "postgres": self.postgres.port,
            "redis": self.valkey.port,
            "supabase": self.supabase.port,
            "google": self.google.port,
        }
        routed = {}
        for server, (speaks, names) in ROUTES.items():
            through = self.network.open(f"{process}/{server}", ports[server], speaks)
            for name in names:
                routed[name] = self.environment[name].replace(f":{ports[server]}/", f":{through}/")
                if urlsplit(routed[name]).port != through:  # an address without a path
                    routed[name] = self.environment[name].replace(f":{ports[server]}", f":{through}")
        for name in ROUTES["postgres"][1]:
            routed[name] = routed[name].replace("//postgres:", f"//{role_of(process)}:", 1)
        return routed

    def stop_fleet(self) -> None:
        """All at once; one after another they would take their grace one after another."""
        self._watching.clear()
        with ThreadPoolExecutor(len(self.processes)) as threads:
            list(threads.map(lambda process: process.stop(), self.processes.values()))
