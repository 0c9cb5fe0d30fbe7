"""Quiet units through the whole path, against the seed's loop, the usual design, and a bare aiohttp loop."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from statistics import mean

import orjson

from benchmarks import population, whole_path
from benchmarks.baselines import unit
from benchmarks.ground import CHECKOUT, Ground
from benchmarks.population import Planted
from benchmarks.report import Figure
from benchmarks.whole_path import Window
from sandbox.servers.process import clean_environment

BENCH = "quiet units"
TENANTS, UNITS = 1_000, 20_000
WINDOW, QUICK_WINDOW = 20.0, 6.0  # seconds
WARM_UP = 5_000  # units
BARE_CONCURRENCY = (200, 256, 400)
"""The best of them counts: with fewer connections the loop waits, with more it slows down. It is measured before and
after the product, whose window is longer, so that a machine that is faster for a while favours neither."""
LOOP_UNITS = 100
THREADS = 32
USUAL_WARM_UP = 500  # units
USUAL_CEILING = THREADS / 0.05
"""Tasks per second that it cannot exceed, as each waits 50 ms: so many are queued for every second of its window."""

TIMES_THE_LOOP = 50
TIMES_THE_USUAL = 5
OF_BARE = 0.5
OF_UNGUARDED = 0.85
POLICY = "insert into sync.policies (since, every) values (now(), interval '1 second')"
USUAL_FINISHED = "select count(*), 0, extract(epoch from clock_timestamp()) from bench_runs"


def run(*, quick: bool) -> Iterator[Figure]:
    seconds = QUICK_WINDOW if quick else WINDOW
    with Ground() as ground:
        planted = population.fetchable(ground.url, ground.vault, tenants=TENANTS, units=UNITS)
        ground.postgres.execute("tenantsync", unit.SCHEMA)
        first, best = max((_bare(ground, seconds / 4, concurrency), concurrency) for concurrency in BARE_CONCURRENCY)
        loop = _loop(ground, planted)
        usual = _usual(ground, planted, seconds / 2)
        ground.postgres.execute("tenantsync", POLICY)
        ours = _ours(ground, seconds)
        unguarded = _ours(ground, seconds, app="benchmarks.unguarded")
        guarded = mean((ours.rate, _ours(ground, seconds).rate))  # before and after, as the machine is not steady
        second = _bare(ground, seconds / 4, best)
    bare, bare_cpu = (mean(pair) for pair in zip(first, second, strict=True))
    yield Figure(BENCH, "whole path", ours.rate, "units/s")
    yield Figure(BENCH, "(a) the seed's loop, one unit after another", loop, "units/s")
    yield Figure(BENCH, f"(b) the usual design, a task per unit, threads ×{THREADS}", usual.rate, "units/s")
    yield Figure(BENCH, "a bare aiohttp loop that writes nothing", bare, "calls/s")
    yield Figure(BENCH, "whole path ÷ (a)", ours.rate / loop, "×", "at least", TIMES_THE_LOOP)
    yield Figure(BENCH, "whole path ÷ (b)", ours.rate / usual.rate, "×", "at least", TIMES_THE_USUAL)
    yield Figure(BENCH, "whole path ÷ bare loop", ours.rate / bare, "×", "at least", OF_BARE)
    what = "whole path ÷ the same without fences, budgets and accounting"
    yield Figure(BENCH, what, guarded / unguarded.rate, "×", "at least", OF_UNGUARDED)
    workers = sum(ours.cpu[name] for name in ("sync worker", "house worker", "beat"))
    yield Figure(BENCH, "CPU per 1,000 units, workers and beat", workers, "s")
    for name, cost in ours.cpu.items():
        yield Figure(BENCH, f"CPU per 1,000 units, {name}", cost, "s")
    for name, cost in usual.cpu.items():
        yield Figure(BENCH, f"(b) CPU per 1,000 units, {name}", cost, "s")
    yield Figure(BENCH, "bare loop, CPU per 1,000 calls", bare_cpu, "s")


def _bare(ground: Ground, seconds: float, concurrency: int) -> tuple[float, float]:
    """(calls per second, CPU seconds per 1,000), in a process of its own."""
    arguments = [ground.provider.api_endpoint, str(seconds), str(concurrency)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.baselines.bare", *arguments],
        check=True,
        capture_output=True,
        cwd=CHECKOUT,
        env=clean_environment(PYTHONPATH=str(CHECKOUT)),
    )
    rate, cpu = orjson.loads(done.stdout)
    return rate, cpu


def _loop(ground: Ground, planted: Sequence[Planted]) -> float:
    """Units per second of a loop over what is due."""
    engine, http = unit.open_engine(ground.url, connections=1), unit.open_http(connections=1)
    base = ground.provider.api_endpoint
    began = time.monotonic()
    for one in planted[:LOOP_UNITS]:
        unit.sync_unit(engine, http, base, unit=str(one.unit_id), tenant=str(one.tenant_id))
    seconds = time.monotonic() - began
    engine.dispose()
    http.clear()
    return LOOP_UNITS / seconds


def _usual(ground: Ground, planted: Sequence[Planted], seconds: float) -> Window:
    """Its queue is filled before its worker starts: what a dispatcher of its own would cost is given to it."""
    broker = ground.valkey.url(1)
    os.environ["REDIS_URL"] = broker
    from benchmarks.baselines import usual  # noqa: PLC0415 — like any Celery app it reads the environment

    for one in planted[: int((seconds + 3) * USUAL_CEILING)]:
        usual.sync_unit.delay(str(one.unit_id), str(one.tenant_id))
    options = ["-P", "threads", "-c", str(THREADS), "--without-gossip", "--without-mingle", "--without-heartbeat"]
    before, _ = whole_path.read(ground, USUAL_FINISHED)
    worker = ground.start_celery("usual", usual.__name__, ["worker", *options], lambda: True, REDIS_URL=broker)
    whole_path.wait_for(ground, before + USUAL_WARM_UP, USUAL_FINISHED)
    window = whole_path.measure(ground, {"worker": worker.pid}, seconds, USUAL_FINISHED)
    worker.kill()
    return window


def _ours(ground: Ground, seconds: float, app: str = "tasks") -> Window:
    before, _ = whole_path.read(ground)
    workers = whole_path.start(ground, app)
    whole_path.wait_for(ground, before + WARM_UP)
    window = whole_path.measure(ground, workers, seconds)
    ground.stop_celery()
    return window
