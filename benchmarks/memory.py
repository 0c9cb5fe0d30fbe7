"""Resident memory of a worker after 200,000 quiet units against after 2,000."""

from collections.abc import Iterator

from benchmarks import population, whole_path
from benchmarks.ground import Ground
from benchmarks.report import Figure
from benchmarks.usage import MEGABYTE, resident

BENCH = "memory"
TENANTS, UNITS = 1_000, 20_000
EARLY, LATE = 2_000, 200_000
QUICK_LATE = 20_000
GROWTH = 1.2


def run(*, quick: bool) -> Iterator[Figure]:
    late = QUICK_LATE if quick else LATE
    with Ground() as ground:
        population.fetchable(ground.url, ground.vault, tenants=TENANTS, units=UNITS)
        worker = whole_path.start(ground)["sync worker"]
        whole_path.wait_for(ground, EARLY)
        before = resident(worker)
        whole_path.wait_for(ground, late)
        after = resident(worker)
    children = whole_path.SYNC_CHILDREN
    yield Figure(BENCH, f"worker with {children} children after {EARLY:,} units", before / MEGABYTE, "MB")
    yield Figure(BENCH, f"the same worker after {late:,} units", after / MEGABYTE, "MB")
    yield Figure(BENCH, "growth", after / before, "×", "at most", GROWTH)
