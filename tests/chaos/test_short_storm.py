"""`make chaos` in its short form: nothing is lost, nothing doubled, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sandbox.servers.process import wait_until

pytestmark = pytest.mark.timeout(300)
CHECKOUT = Path(__file__).resolve().parent.parent.parent
UP = " are up"  # the line that says that every process runs
START, END = 120.0, 60.0  # seconds
LONGEST = 240.0  # seconds; a third of it on a machine of its own
CHAOS = [sys.executable, "-m", "sandbox.chaos", "--short"]


def test_a_short_storm_loses_nothing_doubles_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [*CHAOS, "--only", "group_kill,redis_flush,backend_kill"],
        cwd=CHECKOUT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=LONGEST,
    )
    result = json.loads(done.stdout.splitlines()[-1])

    assert result["missed"] == []
    assert (result["lost"], result["doubled"], result["drift"]) == (0, 0, 0)
    assert result["runs"] > 100
    assert {name: one["faults"] > 0 for name, one in result["scenarios"].items()} == dict.fromkeys(
        ("group_kill", "redis_flush", "backend_kill"), True
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_storm_leaves_nothing(tmp_path: Path) -> None:
    output = tmp_path / "output"
    world = tmp_path / "world"
    world.mkdir()
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*CHAOS, "--only", "network_cut"],
            cwd=CHECKOUT,
            env={**os.environ, "TMPDIR": str(world)},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(lambda: UP in output.read_text(), timeout=START, what="the storm's processes")
        family = psutil.Process(process.pid).children(recursive=True)

        process.send_signal(signal.SIGTERM)
        code = process.wait(END)
    finally:
        process.kill()
        process.wait()

    _, alive = psutil.wait_procs(family, timeout=5)
    assert len(family) > 20
    assert alive == []
    assert list(world.iterdir()) == []
    assert code == 128 + signal.SIGTERM
