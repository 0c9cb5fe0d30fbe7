"""How long the command line takes to answer, with Redis as it should be and with Redis frozen."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from sandbox.chaos.world import StormWorld
from sandbox.servers.process import clean_environment
from sandbox.world import CHECKOUT

ALLOWED = 1.0  # seconds above a plain start
GIVEN_UP = 20.0  # seconds
COMMANDS = {
    "status": ("status", "--json"),
    "doctor": ("doctor", "--json"),
    "why": ("why", "storm-000", "--json"),
}
UNKNOWN = 2  # the exit code of a command that does not exist


def seconds(world: StormWorld, *, frozen: bool) -> dict[str, float]:
    """Seconds that each command took to answer. A command that does not exist is left out."""
    environment = clean_environment(**world.product_environment(), PYTHONPATH=str(CHECKOUT))
    if not frozen:
        _timed(environment, COMMANDS["status"])  # the first start reads everything from the disk
    taken = {name: _timed(environment, arguments) for name, arguments in COMMANDS.items()}
    return {name: found for name, found in taken.items() if found is not None}


def _timed(environment: Mapping[str, str], arguments: tuple[str, ...]) -> float | None:
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tenantsync", *arguments],
            cwd=CHECKOUT,
            env=dict(environment),
            capture_output=True,
            timeout=GIVEN_UP,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return GIVEN_UP
    return None if done.returncode == UNKNOWN else time.monotonic() - began


def compare(plain: Mapping[str, float], frozen: Mapping[str, float]) -> dict[str, Any]:
    """For each command: seconds of a plain start, with Redis frozen, and the difference."""
    return {
        name: {"plain_s": round(plain[name], 2), "frozen_s": round(late, 2), "above_s": round(late - plain[name], 2)}
        for name, late in frozen.items()
        if name in plain
    }
