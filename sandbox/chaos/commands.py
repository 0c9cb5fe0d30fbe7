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
TRIES = 2  # what else the machine does must not decide
GIVEN_UP = 20.0  # seconds
COMMANDS = {
    "status": ("status", "--json"),
    "doctor": ("doctor", "--json"),
    "why": ("why", "storm-000", "--json"),
}


def seconds(world: StormWorld) -> dict[str, float]:
    """Seconds that each command took to answer, the better of two attempts."""
    environment = clean_environment(**world.product_environment(), PYTHONPATH=str(CHECKOUT))
    taken = {name: [_timed(environment, words) for _ in range(TRIES)] for name, words in COMMANDS.items()}
    return {name: min(found) for name, found in taken.items()}


def _timed(environment: Mapping[str, str], arguments: tuple[str, ...]) -> float:
    began = time.monotonic()
    try:
        subprocess.run(
            [sys.executable, "-m", "tenantsync", *arguments],
            cwd=CHECKOUT,
            env=dict(environment),
            capture_output=True,
            timeout=GIVEN_UP,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return GIVEN_UP
    return time.monotonic() - began


def compare(plain: Mapping[str, float], frozen: Mapping[str, float]) -> dict[str, Any]:
    """For each command: seconds of a plain start, with Redis frozen, and the difference."""
    return {
        name: {"plain_s": round(plain[name], 2), "frozen_s": round(late, 2), "above_s": round(late - plain[name], 2)}
        for name, late in frozen.items()
    }
