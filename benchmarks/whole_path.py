"""The product's own processes at work on quiet units: beat, a worker for the ticks, a worker for the units."""

import time
from dataclasses import dataclass

from benchmarks.ground import Ground
from benchmarks.usage import CpuMeter

SYNC_CHILDREN = 4
"""On two cores: two keep the cores busy only while nothing waits for an answer; more than four cost memory alone."""
SETTINGS = {"SYNC_INTERVAL": "1s"}  # there is always something due
POLL = 0.1  # seconds
PATIENCE = 600.0  # seconds
FINISHED = """
select coalesce(sum(quiet_runs), 0), coalesce(sum(changed_runs + failed_runs), 0), extract(epoch from clock_timestamp())
  from sync.units
"""


@dataclass(frozen=True, slots=True)
class Window:
    """What was finished in a steady stretch of time, and at which cost."""

    rate: float
    cpu: dict[str, float]
    """CPU seconds per 1,000 units, by process tree."""


def start(ground: Ground, app: str = "tasks") -> dict[str, int]:
    """Start them; their names and process ids. `app` is what the sync worker runs."""
    return {
        "sync worker": ground.start_worker("sync", "sync", concurrency=SYNC_CHILDREN, app=app, **SETTINGS).pid,
        "house worker": ground.start_worker("house", "wakeups", concurrency=1, **SETTINGS).pid,
        "beat": ground.start_beat(**SETTINGS).pid,
    }


def read(ground: Ground, query: str = FINISHED) -> tuple[int, float]:
    """(units finished so far, the database's clock). Raises RuntimeError if one was anything but quiet."""
    with ground.postgres.connect("tenantsync") as connection, connection.cursor() as cursor:
        cursor.execute(query)
        finished, others, moment = cursor.fetchone() or (0, 0, 0)
    if others:
        raise RuntimeError(f"{others} units were not quiet")
    return int(finished), float(moment)


def wait_for(ground: Ground, count: int, query: str = FINISHED) -> None:
    """Return when so many units are finished."""
    ends = time.monotonic() + PATIENCE
    while read(ground, query)[0] < count:
        if time.monotonic() > ends:
            raise TimeoutError(f"{count} units were not finished within {PATIENCE:g} s")
        time.sleep(POLL)


def measure(ground: Ground, workers: dict[str, int], seconds: float, query: str = FINISHED) -> Window:
    """What is finished in the next `seconds`, by the database's count and clock."""
    trees = {
        **workers,
        "postgres": ground.postgres.pid,
        "valkey": ground.valkey.pid,
        "provider stub": ground.provider.pid,
    }
    meter = CpuMeter(trees)
    before, began = read(ground, query)
    time.sleep(seconds)
    after, ended = read(ground, query)
    thousands = (after - before) / 1000
    return Window((after - before) / (ended - began), {name: used / thousands for name, used in meter.read().items()})
