"""`make demo` and `make up` clean up after themselves, however they end."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sandbox.servers.process import wait_until

pytestmark = pytest.mark.timeout(240)
CHECKOUT = Path(__file__).resolve().parent.parent.parent
UP = "are up"  # the line that says that every process runs
START, END = 120.0, 60.0  # seconds


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A demo that has started everything, and its output."""
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "sandbox.demo", "--tenants", "6", "--large", "300"],
            cwd=CHECKOUT,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(lambda: UP in output.read_text(), timeout=START, what="the demo's processes")
        yield process, output
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_demo_leaves_nothing_running(
    demo: tuple[subprocess.Popen[bytes], Path], number: signal.Signals
) -> None:
    process, output = demo
    family = psutil.Process(process.pid).children(recursive=True)
    programs = {Path(one.cmdline()[0]).name for one in family}  # newer Nodes call their process MainThread

    process.send_signal(number)
    code = process.wait(END)

    _, alive = psutil.wait_procs(family, timeout=5)
    assert {"postgres", "node"} <= programs
    assert len(family) > 15
    assert alive == []
    assert code == 128 + number
    assert "interrupted" in output.read_text()
