"""What process trees cost: CPU seconds and resident memory."""

import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

import psutil

MEGABYTE = 2**20
SAMPLE_EVERY = 0.05  # seconds


def tree(pid: int) -> list[psutil.Process]:
    """A process and everything below it."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """CPU that a tree has used, children that ended included."""
    total = 0.0
    for number, process in enumerate(tree(pid)):
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
            if number == 0:
                total += times.children_user + times.children_system
    return total


def resident(pid: int) -> int:
    """Bytes in memory of a tree; pages that its processes share count once for each."""
    total = 0
    for process in tree(pid):
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total


class CpuMeter:
    """CPU seconds of named trees between two moments."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._began = {name: cpu_seconds(pid) for name, pid in pids.items()}

    def read(self) -> dict[str, float]:
        return {name: cpu_seconds(pid) - self._began[name] for name, pid in self._pids.items()}


class PeakMemory:
    """The highest resident memory of a tree while the block runs, in bytes."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)
        self.bytes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY):
            with suppress(psutil.Error):
                self.bytes = max(self.bytes, resident(self._pid))
