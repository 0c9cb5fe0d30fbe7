"""What every embedded server has in common: a folder, a port it keeps, a life cycle."""

from __future__ import annotations

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Self

from sandbox.servers.ports import HOST, free_port
from sandbox.servers.process import ManagedProcess, PortTaken

PORT_ATTEMPTS = 5
PROBE_TIMEOUT = 2  # seconds: whoever holds our port may accept and say nothing


class Server(ABC):
    """Start, stop and start again: port, secrets and data stay, for as long as the folder does.

    Without a `folder` the server makes one below the system's temporary folder, which `close` removes again.
    A folder holds one server. Its port is remembered there, as a wish: if it is in use, another is taken.
    """

    kind: str
    start_timeout = 60.0

    def __init__(self, *, folder: Path | None = None, port: int | None = None, name: str | None = None) -> None:
        self.name = name or self.kind
        self._owns_folder = folder is None
        self.folder = (folder or Path(tempfile.mkdtemp(prefix=f"tenantsync-{self.kind}-"))).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._port = port
        self._process: ManagedProcess | None = None

    @property
    def log_path(self) -> Path:
        return self.folder / "log"

    @property
    def port(self) -> int:
        """Fixed by the first successful start; a restart that finds it taken fails rather than moves."""
        if self._port is None:
            raise RuntimeError(f"{self.name} has no port before its first start")
        return self._port

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.alive

    def start(self) -> None:
        if self._process is not None:
            if self._process.alive:
                raise RuntimeError(f"{self.name} is running already")
            self.kill()  # it crashed; nothing of it may stand in the way of the next start
        self._prepare()
        if self._port is not None:
            self._start_on(self._port)
        else:
            self._start_on_any_port()

    def _start_on_any_port(self) -> None:
        wishes = [self._remembered_port(), *(None,) * PORT_ATTEMPTS]
        for attempt, wish in enumerate(wishes, 1):
            try:
                self._start_on(wish or free_port())
            except PortTaken:
                if attempt == len(wishes):
                    raise
            else:
                return

    def _start_on(self, port: int) -> None:
        process = self._build(port)
        process.start(lambda: self._ready(port), timeout=self.start_timeout)
        self._process, self._port = process, port
        (self.folder / "port").write_text(str(port))

    def _remembered_port(self) -> int | None:
        try:
            return int((self.folder / "port").read_text())
        except (OSError, ValueError):
            return None

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
        self._process = None

    def kill(self) -> None:
        """As a crash would: no goodbye to clients, nothing flushed."""
        if self._process is not None:
            self._process.kill()
        self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Hang: connections stay open and nothing is answered until `thaw`."""
        if self._process is not None:
            self._process.freeze()

    def thaw(self) -> None:
        if self._process is not None:
            self._process.thaw()

    def close(self) -> None:
        """Stop for good: a folder that the server made itself is removed."""
        try:
            self.stop()
        finally:
            if self._owns_folder:
                shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self) -> None:  # noqa: B027 — most servers have nothing to prepare
        """Before every start: whatever must exist that does not depend on the port."""

    @abstractmethod
    def _build(self, port: int) -> ManagedProcess: ...

    @abstractmethod
    def _ready(self, port: int) -> bool:
        """Asked again and again. True only of *our* server: it has to show that it knows a secret of ours."""


def remembered(path: Path, make: Callable[[], str]) -> str:
    """The secret in `path`, made at the first call and readable by its owner alone."""
    try:
        return path.read_text()
    except FileNotFoundError:
        secret = make()
        path.touch(mode=0o600)
        path.write_text(secret)
        return secret
