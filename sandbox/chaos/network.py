"""The connections of the storm's processes, each through a listener of the fault proxy of its own.

A listener is called `<process>/<server>`, so that one worker can be cut off (`sync-b/*`) as well as one
server (`*/redis`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from sandbox.chaos.proxy import PASS, Mode, Speaks
from sandbox.servers.ports import HOST
from sandbox.servers.process import clean_environment, launch_command

CHECKOUT = Path(__file__).resolve().parent.parent.parent
EVERYTHING = "*"


class ProxyFailed(RuntimeError):
    """The fault proxy ended or refused a command; the text is its own."""


class Network:
    """The proxy's process and what it is told. Safe to use from several threads."""

    def __init__(self, *, seed: int = 1) -> None:
        self._seed = seed
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        # Of the main thread: Linux ends the child with the thread that started it.
        self._child = subprocess.Popen(
            launch_command([sys.executable, "-m", "sandbox.chaos.proxy", str(self._seed)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
            env=clean_environment(PYTHONPATH=str(CHECKOUT)),
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.stdin is not None:
            child.stdin.close()
        try:
            child.wait(3)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()

    def open(self, name: str, port: int, speaks: Speaks) -> int:
        """The port of a new listener that leads to `port` of this machine."""
        answer = self._do(do="listen", name=name, host=HOST, port=port, speaks=speaks, listen=0)
        return int(answer["port"])

    def set(self, names: str, mode: Mode) -> int:
        """Let matching listeners behave like this from now on; how many connections that reset."""
        plain = {key: value for key, value in asdict(mode).items() if value != float("inf")}
        return int(self._do(do="mode", names=names, mode=plain)["reset"])

    def reset(self, names: str, *, most: int = 1_000_000) -> int:
        """Reset up to `most` connections, once; how many there were."""
        return int(self._do(do="reset", names=names, most=most)["reset"])

    def mend(self, names: str = EVERYTHING) -> None:
        """As if nothing had been."""
        self.set(names, PASS)

    def swallowed(self, names: str = EVERYTHING) -> int:
        """Answers that were dropped or forged so far."""
        return int(self._do(do="counts", names=names)["swallowed"])

    def links(self, names: str = EVERYTHING) -> int:
        """Connections that are open now."""
        return int(self._do(do="counts", names=names)["links"])

    def _do(self, **command: Any) -> dict[str, Any]:
        with self._lock:
            if self._child is None or self._child.stdin is None or self._child.stdout is None:
                raise ProxyFailed("the fault proxy does not run")
            self._child.stdin.write(json.dumps(command) + "\n")
            self._child.stdin.flush()
            line = self._child.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "it ended"}
        if "error" in answer:
            raise ProxyFailed(f"the fault proxy: {answer['error']}")
        return answer
