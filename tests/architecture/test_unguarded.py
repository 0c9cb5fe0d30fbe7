"""What the bench of quiet units measures the guards against is still the product's, with the guards cut out."""

import subprocess
import sys

from sandbox.servers.process import clean_environment
from tests.support.product import PLAIN


def test_the_cuts_of_the_bench_still_fit_the_products_statements() -> None:
    """In a process of its own: importing it takes the guards away."""
    command = [sys.executable, "-c", "import benchmarks.unguarded"]

    tried = subprocess.run(
        command, env=clean_environment() | PLAIN, capture_output=True, text=True, timeout=60, check=False
    )

    assert (tried.returncode, tried.stderr) == (0, "")
