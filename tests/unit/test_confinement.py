"""Limited memory for what kills workers."""

import subprocess
import sys

import pytest

from tenantsync.confinement import is_confined

GREEDY = """
from tenantsync.confinement import limit_memory
limit_memory(64)
modest = bytearray(16 * 2**20)
try:
    bytearray(256 * 2**20)
except MemoryError:
    print("refused")
"""


@pytest.mark.parametrize(
    ("queues", "confined"),
    [
        (["quarantine"], True),
        (["isolated", "quarantine"], True),
        (["isolated", "bulk"], False),
        (["sync"], False),
        ([], False),
    ],
)
def test_only_a_worker_for_what_kills_workers_is_confined(queues: list[str], confined: bool) -> None:
    assert is_confined(queues) is confined


@pytest.mark.skipif(sys.platform != "linux", reason="limits of this kind are Linux's")
def test_what_a_run_takes_beyond_the_limit_is_refused_and_the_process_lives() -> None:
    done = subprocess.run([sys.executable, "-c", GREEDY], capture_output=True, text=True, timeout=60)

    assert (done.stdout.strip(), done.returncode) == ("refused", 0)
