"""pytest-celery's nodes as processes: the same API, with a process where it expects a container.

`pytest_celery` drives brokers and workers through `CeleryTestNode`, which only ever talks to a
`CeleryTestContainer`. `ProcessContainer` answers for an embedded server or a Celery process.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_celery import CeleryTestContainer, CeleryTestSetup, CeleryTestWorker, RedisTestBroker

from config.celery_settings import celery_config
from config.settings import Settings
from sandbox.servers.process import ManagedProcess
from sandbox.servers.valkey import Valkey

START = 60.0  # seconds


class ProcessContainer(CeleryTestContainer):
    """A node's container that is a process of this machine."""

    def __init__(
        self,
        name: str,
        log: Path,
        *,
        pid: Callable[[], int],
        alive: Callable[[], bool],
        start: Callable[[], None],
        stop: Callable[[], None],
        config: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        # No super().__init__: it wants a Docker engine.
        self._name, self._log = name, log
        self._pid, self._alive, self._start, self._stop = pid, alive, start, stop
        self._config = config

    @property
    def id(self) -> str:
        return self._name

    @property
    def name(self) -> str:
        return self._name

    @property
    def status(self) -> str:
        return "running" if self._alive() else "exited"

    @property
    def celeryconfig(self) -> dict[str, Any]:
        return self._config()

    def ready(self) -> bool:
        return self._alive()

    def logs(self) -> str:
        return self._log.read_text(errors="replace")

    def kill(self, signal: str | int = "SIGKILL") -> None:
        """Send a signal to the process alone, as `docker kill` does; its children see their parent die."""
        os.kill(self._pid(), _number(signal))

    def reload(self) -> None:
        """A process has no stale view of itself."""

    def restart(self, timeout: int = 10) -> None:
        self._stop()
        self._start()

    def teardown(self) -> None:
        """Whoever made the process ends it."""


def _number(name: str | int) -> int:
    return name if isinstance(name, int) else int(getattr(signal, name))


class ProcessWorker(CeleryTestWorker):
    """A worker of ours; its name is Celery's node name."""

    def hostname(self) -> str:
        return self.container.name


class ProductSetup(CeleryTestSetup):
    """A setup whose app speaks as the product's processes do."""

    settings: Settings

    @classmethod
    def update_app_config(cls, app: Any) -> None:
        app.conf.update(celery_config(cls.settings))


def broker_node(server: Valkey) -> RedisTestBroker:
    """The broker of a world."""
    url = server.url(0)
    config = {"url": url, "host_url": url, "hostname": "127.0.0.1", "port": server.port, "vhost": "0"}
    return RedisTestBroker(
        ProcessContainer(
            server.name,
            server.log_path,
            pid=lambda: server.pid,
            alive=lambda: server.alive,
            start=server.start,
            stop=server.kill,
            config=lambda: dict(config),
        )
    )


def worker_node(process: ManagedProcess, node_name: str, ready: Callable[[], bool], app: Any) -> ProcessWorker:
    """A Celery process of a world."""
    return ProcessWorker(
        ProcessContainer(
            node_name,
            process.log_path,
            pid=lambda: process.pid,
            alive=lambda: process.alive,
            start=lambda: process.start(ready, timeout=START),
            stop=process.kill,
        ),
        app,
    )
