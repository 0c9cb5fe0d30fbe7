"""Claims from 100,000 and from 3,000,000 units, and the whole cycle claim → start → finish, with one client."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks import population
from benchmarks.ground import Ground
from benchmarks.report import Figure
from config.queues import Lane
from db import schema
from db.ids import new_id
from db.repositories import ledger, units
from db.session import Database
from tenantsync.calendars.google import QUERY_VERSION

BENCH = "claim"
FEW, MANY = 100_000, 3_000_000
QUICK = (50_000, 200_000)
TENANTS = 10_000
A_CLAIM = 200
CYCLES, QUICK_CYCLES = 45, 15
WARM_UP = 20  # a database whose units are polled every minute has them in memory
SLOWDOWN = 1.5
CYCLE_RATE = 5_000


@dataclass(frozen=True, slots=True)
class Cycles:
    """Cycles at one size: medians in milliseconds, and units per second of all of them."""

    claim: float
    start: float
    finish: float
    rate: float


def run(*, quick: bool) -> Iterator[Figure]:
    few, many = QUICK if quick else (FEW, MANY)
    with Ground() as ground:
        count = QUICK_CYCLES if quick else CYCLES
        small, large = _cycles(ground, few, count), _cycles(ground, many, count)
    for units_there, cycles in ((few, small), (many, large)):
        yield Figure(BENCH, f"median claim of {A_CLAIM}, {units_there:,} units", cycles.claim, "ms")
    yield Figure(BENCH, "slowdown of the claim", large.claim / small.claim, "×", "at most", SLOWDOWN)
    for units_there, cycles in ((few, small), (many, large)):
        what = f"claim → finish, {units_there:,} units, one client"
        yield Figure(BENCH, what, cycles.rate, "units/s", "at least", CYCLE_RATE)
    yield Figure(BENCH, f"median start of {A_CLAIM}, {many:,} units", large.start, "ms")
    yield Figure(BENCH, f"median finish of {A_CLAIM}, {many:,} units", large.finish, "ms")


def _cycles(ground: Ground, units_there: int, count: int) -> Cycles:
    name = f"units_{units_there}"
    url = ground.postgres.create_database(name)
    schema.upgrade(url)
    population.numbered(url, tenants=TENANTS, units=units_there)
    database = Database(url, pool_size=1, name="benchmarks")
    try:
        for _ in range(WARM_UP):
            _cycle(database)
        began = time.monotonic()
        timed = [_cycle(database) for _ in range(count)]
        seconds = time.monotonic() - began
    finally:
        database.close()
        ground.postgres.drop_database(name)
    claims, starts, finishes = zip(*timed, strict=True)
    return Cycles(median(claims) * 1000, median(starts) * 1000, median(finishes) * 1000, count * A_CLAIM / seconds)


def _cycle(database: Database) -> tuple[float, float, float]:
    """Seconds of one batch's claim, start and finish, each in a transaction of its own, as in the product."""
    begun = time.monotonic()
    with database.transaction() as connection:
        claimed = units.claim(connection, lane=Lane.SYNC, limit=A_CLAIM)
        batch_id = new_id()
        ledger.open_batches(connection, lane=Lane.SYNC, sizes=[(batch_id, len(claimed))])
    after_claim = time.monotonic()
    if len(claimed) != A_CLAIM:
        raise RuntimeError(f"{len(claimed)} units claimed instead of {A_CLAIM}")
    with database.statement() as connection:
        pairs = [(unit.unit_id, unit.fence) for unit in claimed]
        started = units.start(connection, batch_id=batch_id, units=pairs, worker="bench", lease=population.LEASE)
    after_start = time.monotonic()
    runs, calendars = _quiet(started)
    with database.statement() as connection:
        finished = units.finish(connection, runs=runs, calendars=calendars)
        ledger.close_batch(connection, batch_id=batch_id, result={"units": len(finished)})
    if len(finished) != A_CLAIM:
        raise RuntimeError(f"{len(finished)} units finished instead of {A_CLAIM}")
    return after_claim - begun, after_start - after_claim, time.monotonic() - after_start


def _quiet(started: Sequence[units.StartedUnit]) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """What settling.py writes for quiet runs."""
    runs: list[Mapping[str, Any]] = [
        {"unit_id": unit.unit_id, "fence": unit.fence, "outcome": "quiet", "task_id": None} for unit in started
    ]
    calendars: list[Mapping[str, Any]] = [
        {
            "unit_id": unit.unit_id,
            "calendar_id": calendar.calendar_id,
            "success": True,
            "attempted": True,
            "blamed": False,
            "bulk": False,
            "state": None,
            "reason": None,
            "cursor": population.CURSOR,
            "query_version": QUERY_VERSION,
            "error": None,
            "delay": 60.0,
            "listed": False,
            "calls": 1,
            "bytes": 250,
            "added": 0,
        }
        for unit in started
        for calendar in unit.calendars
    ]
    return runs, calendars
