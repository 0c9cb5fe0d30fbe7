"""The stand-in for Supabase Realtime, as a server of its own in front of a lite."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from sandbox.servers.ports import HOST
from sandbox.servers.process import ManagedProcess, clean_environment
from sandbox.servers.server import PROBE_TIMEOUT, Server

if TYPE_CHECKING:
    from sandbox.servers.lite import SupabaseLite

CHECKOUT = Path(__file__).resolve().parent.parent.parent
HINT = "The database of its project must be running."


class SupabaseGateway(Server):
    """One origin, as a hosted project has it: Realtime by sandbox/realtime, everything else by the lite behind it."""

    kind = "gateway"

    def __init__(
        self, lite: SupabaseLite, *, folder: Path | None = None, port: int | None = None, name: str | None = None
    ) -> None:
        super().__init__(folder=folder, port=port, name=name)
        self.lite = lite
        lite.gateway = self  # tokens name it as their issuer, as a hosted project's name the address that all call

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def _prepare(self) -> None:
        project = {
            "dsn": self.lite.database_url,
            "upstream": self.lite.url,
            "publishable_key": self.lite.publishable_key,
            "secret_key": self.lite.secret_key,
            "jwt_secret": self.lite.jwt_secret,
        }
        self._project_file.touch(mode=0o600)
        self._project_file.write_text(json.dumps(project))

    def _build(self, port: int) -> ManagedProcess:
        return ManagedProcess(
            name=self.name,
            command=[sys.executable, "-m", "sandbox.realtime", "--host", HOST, "--port", str(port)],
            log_path=self.log_path,
            hint=HINT,
            environment=clean_environment(PYTHONPATH=str(CHECKOUT), REALTIME_PROJECT=str(self._project_file)),
            cwd=CHECKOUT,
        )

    @property
    def _project_file(self) -> Path:
        return self.folder / "project.json"

    def _ready(self, port: int) -> bool:
        try:
            answer = httpx.get(f"http://{HOST}:{port}/realtime/v1/health", timeout=PROBE_TIMEOUT, trust_env=False)
            return bool(answer.json()["listening"])
        except (httpx.HTTPError, ValueError, KeyError):
            return False
