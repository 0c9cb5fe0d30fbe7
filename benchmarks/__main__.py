"""`python -m benchmarks [names…] [--quick]`: measure; `--table`: print the table of the last full run.

Only a full run of everything, not quick, is written to benchmarks/results/latest.json.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from benchmarks import claim, events, fairness, first_sync, live, machine, memory, mirror, overview, quiet, report
from benchmarks.report import Figure
from sandbox.signals import Stopped, raise_on_signals

BENCHES: dict[str, Callable[..., Iterator[Figure]]] = {
    "quiet": quiet.run,
    "first_sync": first_sync.run,
    "mirror": mirror.run,
    "claim": claim.run,
    "fairness": fairness.run,
    "events": events.run,
    "live": live.run,
    "overview": overview.run,
    "memory": memory.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"some of: {', '.join(BENCHES)}")
    parser.add_argument("--quick", action="store_true", help="smaller, to see that it works; its figures are no result")
    parser.add_argument("--table", action="store_true", help="print the last results and measure nothing")
    given = parser.parse_args()
    unknown = set(given.names) - set(BENCHES)
    if unknown:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    if given.table:
        print("\n".join(report.table(report.read(report.LATEST))))
        return 0
    return _measure(tuple(given.names or BENCHES), quick=given.quick)


def _measure(names: tuple[str, ...], *, quick: bool) -> int:
    raise_on_signals()
    document: dict[str, Any] = {
        "began": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "quick": quick,
        "machine": machine.facts(),
        "seconds": {},
        "load_after": {},
        "figures": [],
    }
    try:
        for name in names:
            print(f"{name} …", file=sys.stderr, flush=True)
            began = time.monotonic()
            for figure in BENCHES[name](quick=quick):
                document["figures"].append(report.as_json(figure))
            document["seconds"][name] = round(time.monotonic() - began, 1)
            document["load_after"][name] = round(os.getloadavg()[0], 2)
    except Stopped as stopped:
        return stopped.code
    if not quick and set(names) == set(BENCHES):
        report.publish(document)
        print(f"written to {report.LATEST}", file=sys.stderr)
    else:
        report.write(report.CHECK, document)
    print("\n".join(report.table(document)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
