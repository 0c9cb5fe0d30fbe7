"""A process whose wall clock the test steps, by Debian's libfaketime. Its monotonic clock stays true.

libfaketime 0.9.10 answers EINVAL to an absolute sleep on a monotonic clock that it leaves alone, which is how Python
has slept since 3.11; so such a process sleeps by `select`.
"""

from pathlib import Path

LIBRARIES = (
    *Path("/usr/lib").glob("*/faketime/libfaketime.so.1"),
    *Path("/usr/lib").glob("faketime/libfaketime.so.1"),
)
MISSING = "libfaketime is not installed (Debian: apt-get install faketime)"
_SLEEP = """
import select
import time
time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""


class SteppedClock:
    """The wall clock of the processes that are given `environment`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sitecustomize.py").write_text(_SLEEP)
        self._offset = folder / "offset"
        self.environment = {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": str(folder),
        }
        self.step(0)

    def step(self, seconds: int) -> None:
        """Be so far off the true time from now on."""
        fresh = self._offset.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}")
        fresh.replace(self._offset)
