"""The TypeScript client, built and run by Node."""

import json
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sandbox.servers.node import find_node, install
from tests.support.waiting import wait_until

CLIENT = Path(__file__).parents[2] / "clients" / "typescript"


def installed(folder: Path) -> Path:
    """A copy of the client beside the packages that its tests and its compiler need."""
    modules = install(find_node(), with_cli=True, packages=CLIENT) / "node_modules"
    copy = folder / "client"
    shutil.copytree(CLIENT, copy, ignore=shutil.ignore_patterns("node_modules"))
    (copy / "node_modules").symlink_to(modules)
    return copy


def run(folder: Path, *arguments: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Node, in the folder."""
    return subprocess.run(
        [find_node().executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=timeout, env=_clean()
    )


class Follower:
    """What a script that follows a process says, line by line."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._said: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.append(json.loads(line))

    def say(self, word: str) -> None:
        assert self._process.stdin is not None
        os.write(self._process.stdin.fileno(), f"{word}\n".encode())

    def all(self, what: str) -> list[Any]:
        """Everything of one kind that was said until now."""
        return [one[what] for one in list(self._said) if what in one]

    def numbers(self, what: str = "event") -> list[int]:
        return [one["event_sequence"] for one in self.all(what)]

    def wait_for(self, count: int, what: str = "event") -> None:
        wait_until(lambda: len(self.all(what)) >= count, about=f"{what} {count} (said: {self._said[-5:]})")

    def wait_for_state(self, name: str) -> None:
        wait_until(lambda: name in self.all("state")[-1:], about=f"state {name} (said: {self._said[-5:]})")


@contextmanager
def following(command: list[str | Path], folder: Path, **options: object) -> Iterator[Follower]:
    """A process that follows as the options say; asked to end, unless it has, and awaited at the end of the block."""
    environment = _clean() | {"FOLLOW": json.dumps(options)}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        follower = Follower(process)
        try:
            yield follower
            with suppress(BrokenPipeError):  # whoever is refused for good ends by itself
                follower.say("close")
            assert process.wait(10) == 0
        finally:
            process.kill()


def _clean() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
