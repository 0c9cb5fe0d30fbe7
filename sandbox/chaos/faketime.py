"""Another clock for one process: Debian's libfaketime, installed or fetched with apt-get into the cache.

The library is preloaded and reads its offset from a file, so a process' clock can be stepped while it runs.
Monotonic clocks are left alone: a step of the wall clock never moves those. For that Python's `time.sleep` needs
the help of `stepped/sitecustomize.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

HELP = Path(__file__).parent / "stepped"
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "faketime"
LIBRARY = "libfaketimeMT.so.1"
INSTALLED = "/usr/lib/*/faketime/" + LIBRARY
TIMEOUT = 60.0  # seconds


class NoFaketime(Exception):
    """The library is not to be had; the text says why."""


def find() -> Path:
    """The library: the system's, the cached one, or one fetched now. Raises NoFaketime."""
    if sys.platform != "linux":
        raise NoFaketime("libfaketime is preloaded in Debian's way, which only Linux knows")
    for root, pattern in ((Path("/"), INSTALLED.lstrip("/")), (CACHE, INSTALLED.lstrip("/"))):
        for found in root.glob(pattern):
            return found
    return _fetch()


def _fetch() -> Path:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise NoFaketime("neither libfaketime nor apt-get is installed")
    with tempfile.TemporaryDirectory(prefix="tenantsync-faketime-") as folder:
        _run(["apt-get", "download", "libfaketime"], Path(folder))
        for package in Path(folder).glob("libfaketime_*.deb"):
            _run(["dpkg", "-x", str(package), folder + "/unpacked"], Path(folder))
            for found in Path(folder, "unpacked").glob(INSTALLED.lstrip("/")):
                kept = CACHE / found.relative_to(Path(folder, "unpacked"))
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(found, kept)
                return kept
    raise NoFaketime("apt-get fetched no package with " + LIBRARY)


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoFaketime(f"{command[0]} did not run ({type(error).__name__})") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise NoFaketime(f"{' '.join(command[:2])} failed: {last}")


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
