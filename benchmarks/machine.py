"""What the figures were measured on."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

from benchmarks.ground import CHECKOUT, POSTGRES
from sandbox.servers.postgres import binaries


def facts() -> dict[str, Any]:
    """Cores, versions, commit, and how busy the machine was before anything began."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "postgres": _output(str(binaries() / "postgres"), "--version").rsplit(" ", 1)[-1],
        "postgres_settings": {**POSTGRES, "fsync": "on", "synchronous_commit": "on"},
        "commit": _commit(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")] if cpuinfo.exists() else []
    )
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def _commit() -> str:
    commit = _output("git", "-C", str(CHECKOUT), "rev-parse", "--short", "HEAD")
    dirty = _output("git", "-C", str(CHECKOUT), "status", "--porcelain")
    return (commit or "unknown") + (" with changes" if dirty else "")


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
