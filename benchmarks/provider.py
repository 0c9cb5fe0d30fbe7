"""The 50 ms provider as a server of its own."""

import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.request import urlopen

from sandbox.servers.process import ManagedProcess, clean_environment
from sandbox.servers.server import Server

LATENCY = 0.05  # seconds
CHECKOUT = Path(__file__).resolve().parent.parent


class Provider(Server):
    """Answers like Google, for nearly no CPU. `listings`: sizes of the calendars that can be listed in full."""

    kind = "provider"

    def __init__(self, *, folder: Path | None = None, listings: Sequence[int] = (), latency: float = LATENCY) -> None:
        super().__init__(folder=folder)
        self._listings = ",".join(str(count) for count in listings)
        self._latency = latency

    @property
    def api_endpoint(self) -> str:
        return f"http://{self.address}/calendar/v3/"

    @property
    def token_uri(self) -> str:
        return f"http://{self.address}/token"

    def given(self) -> int:
        """Answers given so far."""
        with urlopen(f"http://{self.address}/given", timeout=5) as answer:
            return int(answer.read())

    def _build(self, port: int) -> ManagedProcess:
        self._ready_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "benchmarks.stub", "--port", str(port), "--latency", str(self._latency)]
        return ManagedProcess(
            name=self.name,
            command=[*command, "--listings", self._listings, "--ready-file", self._ready_file],
            log_path=self.log_path,
            hint="It needs nothing but its port.",
            environment=clean_environment(PYTHONPATH=str(CHECKOUT)),
            cwd=CHECKOUT,
        )

    @property
    def _ready_file(self) -> Path:
        return self.folder / "ready"

    def _ready(self, port: int) -> bool:
        return self._ready_file.exists() and self._ready_file.read_text() == str(port)
