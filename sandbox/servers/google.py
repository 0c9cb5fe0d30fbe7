"""The Google Calendar stand-in as a server of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sandbox.google.control import GoogleControl
from sandbox.servers.ports import HOST
from sandbox.servers.process import ManagedProcess, clean_environment
from sandbox.servers.server import Server

CHECKOUT = Path(__file__).resolve().parent.parent.parent
HINT = "It needs nothing but its port."


class GoogleStandIn(Server):
    """Calendar API and token endpoint; `control()` seeds, edits and misbehaves. Its state ends with the process."""

    kind = "google"

    @property
    def api_endpoint(self) -> str:
        return f"http://{self.address}/calendar/v3/"

    @property
    def token_uri(self) -> str:
        return f"http://{self.address}/token"

    def control(self) -> GoogleControl:
        return GoogleControl(f"http://{self.address}")

    def _build(self, port: int) -> ManagedProcess:
        self._ready_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "sandbox.google", "--host", HOST, "--port", str(port)]
        return ManagedProcess(
            name=self.name,
            command=[*command, "--ready-file", self._ready_file],
            log_path=self.log_path,
            hint=HINT,
            environment=clean_environment(PYTHONPATH=str(CHECKOUT)),
            cwd=CHECKOUT,
        )

    @property
    def _ready_file(self) -> Path:
        return self.folder / "ready.json"

    def _ready(self, port: int) -> bool:
        try:
            return bool(json.loads(self._ready_file.read_text())["port"] == port)
        except (OSError, ValueError):
            return False
