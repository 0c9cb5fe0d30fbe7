"""Telling what happens: with rich on a terminal, in plain lines elsewhere."""

import sys
import time
from collections.abc import Callable

from rich.console import Console

POLL = 0.2  # seconds
STILL = 5.0  # seconds between plain lines about something that takes long


class Teller:
    """Prints steps with the seconds since the start."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def say(self, text: str, style: str = "") -> None:
        self._console.print(f"[dim]{self.seconds:6.1f} s[/dim]  {text}", style=style)
        sys.stdout.flush()

    def chapter(self, text: str) -> None:
        self._console.print()
        self._console.print(f"[bold]{text}[/bold]")

    def wait(self, done: Callable[[], bool], describe: Callable[[], str], *, timeout: float) -> bool:
        """Wait for a condition, showing how it stands; False if it did not come true in time."""
        ends, next_line = time.monotonic() + timeout, time.monotonic() + STILL
        if self._console.is_terminal:
            with self._console.status(describe()) as status:
                while not (met := done()) and time.monotonic() < ends:
                    status.update(describe())
                    time.sleep(POLL)
            return met
        while not (met := done()) and time.monotonic() < ends:
            if time.monotonic() >= next_line:
                self.say(describe())
                next_line += STILL
            time.sleep(POLL)
        return met
