"""Another clock for one process: Debian's libfaketime, installed or fetched with apt-get into the cache.

The library is preloaded and reads its offset from a file, so a process' clock can be stepped while it runs.
Monotonic clocks are left alone: a step of the wall clock never moves those. For that Python's `time.sleep` needs
the help of `stepped/sitecustomize.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from sandbox.servers import debian
from sandbox.servers.debian import NotFetched

HELP = Path(__file__).parent / "stepped"
LIBRARY = "libfaketimeMT.so.1"
INSTALLED = "usr/lib/*/faketime/" + LIBRARY


class NoFaketime(Exception):
    """The library is not to be had; the text says why."""


def find() -> Path:
    """The library: the system's, the cached one, or one fetched now. Raises NoFaketime."""
    if sys.platform != "linux":
        raise NoFaketime("libfaketime is preloaded in Debian's way, which only Linux knows")
    for found in Path("/").glob(INSTALLED):
        return found
    try:
        for found in debian.fetched("libfaketime").glob(INSTALLED):
            return found
    except NotFetched as error:
        raise NoFaketime(f"libfaketime is not installed and could not be fetched: {error}") from None
    raise NoFaketime(f"Debian's package has no {LIBRARY}")


class Clock:
    """The offset that processes see which were started with `environment`."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self._library = library
        self.step(0)

    def environment(self, plain: Mapping[str, str]) -> dict[str, str]:
        """A process' environment, with this clock in it."""
        return {
            **plain,
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": os.pathsep.join((str(HELP), plain["PYTHONPATH"])),
        }

    def step(self, seconds: float) -> None:
        """From now on (within a second) the clock is this far from the true one."""
        draft = self._file.with_suffix(".new")
        draft.write_text(f"{seconds:+.0f}\n")
        draft.replace(self._file)
