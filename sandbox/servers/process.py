"""A child process that is started, watched and stopped without anything being left behind."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from sandbox.servers.identity import Identity


LAUNCHER = Path(__file__).with_name("launch.py")
TAIL_LINES = 25
_IN_USE = re.compile(r"address already in use|port \d+ is already in use", re.IGNORECASE)
_KEPT_VARIABLES = ("PATH", "HOME", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT")


class ServerFailed(RuntimeError):
    """A server that did not come up; says which, what it last wrote and what to do."""


class PortTaken(ServerFailed):
    """Someone else listens on the port that the server was given."""


def clean_environment(**extra: str) -> dict[str, str]:
    """For a server, which the caller's PGPORT, NODE_OPTIONS or locale must not steer."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC", **extra}


class _Forker:
    """Starts every child from one thread that lives as long as the process.

    Linux sends the parent-death signal when the *thread* that forked ends, so a server started from a thread
    of a pool would be killed as soon as that thread is done.
    """

    def __init__(self) -> None:
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[subprocess.Popen[bytes]], Callable[[], subprocess.Popen[bytes]]]]
        self._jobs = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def run(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="server-forker", daemon=True)
                self._thread.start()
        future: Future[subprocess.Popen[bytes]] = Future()
        self._jobs.put((future, start))
        return future.result()

    def _serve(self) -> None:
        while True:
            future, start = self._jobs.get()
            try:
                future.set_result(start())
            except BaseException as error:  # noqa: BLE001 — it is raised in whoever asked
                future.set_exception(error)


_forker = _Forker()


def launch_command(
    command: Sequence[str | Path],
    *,
    identity: Identity | None = None,
    search: bool = False,
    death_signal: signal.Signals = signal.SIGKILL,
) -> list[str]:
    """`command`, run through launch.py: it dies with us and drops root for `identity`."""
    numbers = [os.getpid(), int(death_signal)]
    if identity is not None:
        numbers += [identity.uid, identity.gid, int(search)]
    interpreter = [sys.executable, "-I", "-S", str(LAUNCHER)]
    return [*interpreter, *map(str, numbers), "--", *map(str, command)]


@dataclass
class ManagedProcess:
    """One command in a session of its own. `stop` and `kill` may be called at any time and repeatedly."""

    name: str
    command: Sequence[str | Path]
    log_path: Path
    hint: str
    environment: Mapping[str, str] = field(default_factory=clean_environment)
    cwd: Path = Path("/")
    identity: Identity | None = None
    search: bool = False
    death_signal: signal.Signals = signal.SIGKILL
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _log_start: int = field(default=0, init=False, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)

    @property
    def pid(self) -> int:
        if self._child is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._child.pid

    @property
    def alive(self) -> bool:
        """A zombie counts as dead. It is reaped by `stop`, so that until then no stranger gets its number."""
        return self._child is not None and not _has_exited(self._child.pid)

    def start(self, ready: Callable[[], bool], *, timeout: float = 30.0) -> None:
        """Start and return once `ready` holds; when it never does, nothing is left running."""
        with self._lock:
            if self._child is not None:
                raise RuntimeError(f"{self.name} was started already; stop it first")
            try:
                self._child = self._spawn()
                self._await(ready, time.monotonic() + timeout, timeout)
            except BaseException:
                self.stop(self.death_signal, grace=3)
                raise

    def _spawn(self) -> subprocess.Popen[bytes]:
        self.log_path.touch(mode=0o600)  # servers greet with their keys
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            command = launch_command(
                self.command, identity=self.identity, search=self.search, death_signal=self.death_signal
            )
            return _forker.run(
                lambda: subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=dict(self.environment),
                    cwd=self.cwd,
                    start_new_session=True,
                )
            )

    def _await(self, ready: Callable[[], bool], deadline: float, timeout: float) -> None:
        pause = 0.005
        while True:
            answered = ready()
            if not self.alive:  # asked last: whoever answered may be a stranger on our port
                raise self._failure("ended while it was starting")
            if answered:
                return
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready within {timeout:g} s")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)

    def _failure(self, what: str) -> ServerFailed:
        written = self._written()
        tail = "\n".join(f"    {line}" for line in written.splitlines()[-TAIL_LINES:]) or "    (nothing)"
        kind = PortTaken if _IN_USE.search(written) else ServerFailed
        return kind(f"{self.name} {what}. Its log, {self.log_path}, ends:\n{tail}\n{self.hint}")

    def _written(self) -> str:
        with contextlib.suppress(OSError), self.log_path.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")
        return ""

    def stop(self, sent: signal.Signals = signal.SIGTERM, *, grace: float = 10.0) -> None:
        """Ask, wait up to `grace`, then kill whatever is left of the whole tree."""
        with self._lock:
            if self._child is None:
                return
            family = _descendants(self._child.pid)
            self.send(sent)
            self.thaw()  # a frozen process cannot hear the request
            _wait_until_exited(self._child.pid, grace)
            self._finish(self._child, family)

    def kill(self) -> None:
        """SIGKILL for all of it at once."""
        with self._lock:
            if self._child is not None:
                self._finish(self._child, _descendants(self._child.pid))

    def _finish(self, child: subprocess.Popen[bytes], family: list[psutil.Process]) -> None:
        """End the session, then what left it (each PostgreSQL backend is a session of its own), then reap."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        _signal(family, signal.SIGKILL)
        child.wait()
        for member in family:  # not psutil.wait_procs: an orphan may stay a zombie until a lazy init reaps it
            _wait_until_exited(member.pid, 5)
        self._child = None

    def send(self, number: signal.Signals) -> None:
        """To the process itself, not to its children."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child.pid, number)

    def freeze(self) -> None:
        """SIGSTOP: the process hangs with its sockets open, which is not the same as being dead."""
        self._signal_tree(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_tree(signal.SIGCONT)

    def _signal_tree(self, number: signal.Signals) -> None:
        self.send(number)
        if self._child is not None:
            _signal(_descendants(self._child.pid), number)


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _has_exited(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _wait_until_exited(pid: int, timeout: float) -> None:
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: _has_exited(pid), timeout=timeout)


def wait_until(condition: Callable[[], bool], *, timeout: float = 10.0, what: str = "the condition") -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not hold within {timeout:g} s")
        time.sleep(0.01)
