"""First sync of a large calendar, page by page through the bulk lane, against COPY plus merge of the same rows."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from statistics import mean
from typing import Any

import psycopg2

from benchmarks import population
from benchmarks.ground import Ground
from benchmarks.report import Figure
from benchmarks.usage import MEGABYTE, CpuMeter, PeakMemory
from db.models.events import Event

BENCH = "first sync"
SMALL, LARGE = 10_000, 100_000
QUICK = (2_500, 15_000)
PATIENCE = 300.0  # seconds
POLL = 0.05  # seconds
OF_COPY = 0.4
GROWTH = 1.2
"""Peaks of two processes differ by some per cent with nothing different in what they do."""

_COLUMNS = [column.name for column in Event.__table__.columns]
_LISTED = ", ".join(_COLUMNS)
_TAKEN_OVER = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS if name not in ("event_id", "calendar_id"))
REFERENCE_TABLE = "create table bench_events (like sync.events including all)"
COPY_OUT = "copy (select {columns} from sync.events where tenant_id = '{tenant}') to stdout"
MERGE = f"""
insert into bench_events as e ({_LISTED}) select {_LISTED} from staged
on conflict (calendar_id, provider_key) do update set {_TAKEN_OVER}
"""
# Asked until there is an answer, which is when the run has committed.
RUN = """
select t.result ->> 'inserted', extract(epoch from clock_timestamp() - t.started_at)
  from worker.tasks t where t.kind = 'sync.unit' and t.tenant_id = %s and t.status = 'completed'
"""


@dataclass(frozen=True, slots=True)
class Listed:
    """One first sync."""

    seconds: float
    peak: int
    worker_cpu: float
    postgres_cpu: float


def run(*, quick: bool) -> Iterator[Figure]:
    small, large = QUICK if quick else (SMALL, LARGE)
    with Ground(listings=(small, large)) as ground:
        ground.start_worker("house", "wakeups", concurrency=1)
        ground.start_beat()
        first, _ = _first_sync(ground, small)
        second, tenant = _first_sync(ground, large)
        copied = large / _copy_and_merge(ground, tenant)
    rate = large / second.seconds
    yield Figure(BENCH, f"rows per second, {large:,} events", rate, "rows/s")
    yield Figure(BENCH, "COPY plus merge of the same rows", copied, "rows/s")
    yield Figure(BENCH, "share of COPY plus merge", rate / copied, "×", "at least", OF_COPY)
    yield Figure(BENCH, "worker CPU", second.worker_cpu, "s")
    yield Figure(BENCH, "Postgres CPU", second.postgres_cpu, "s")
    yield Figure(BENCH, f"peak worker memory, {small:,} events", first.peak / MEGABYTE, "MB")
    yield Figure(BENCH, f"peak worker memory, {large:,} events", second.peak / MEGABYTE, "MB")
    yield Figure(BENCH, "growth of the peak", second.peak / first.peak, "×", "at most", GROWTH)


def _first_sync(ground: Ground, events: int) -> tuple[Listed, str]:
    """The figures of one first sync, by a worker that has done nothing else; and whose it was."""
    name = f"bulk-{events}"
    worker = ground.start_worker(name, "bulk", concurrency=1)
    meter = CpuMeter({"worker": worker.pid, "postgres": ground.postgres.pid})
    with PeakMemory(worker.pid) as peak:
        (planted,) = population.fetchable(ground.url, ground.vault, tenants=1, units=1, listing=events)
        inserted, seconds = _outcome(ground, str(planted.tenant_id))
    cpu = meter.read()
    worker.stop()
    if inserted != events:
        raise RuntimeError(f"{inserted} of {events} events arrived")
    return Listed(seconds, peak.bytes, cpu["worker"], cpu["postgres"]), str(planted.tenant_id)


def _outcome(ground: Ground, tenant: str) -> tuple[int, float]:
    """(rows inserted, seconds from start to commit) of the tenant's run, once the ledger has it."""
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        with ground.postgres.connect("tenantsync") as connection, connection.cursor() as cursor:
            cursor.execute(RUN, (tenant,))
            found = cursor.fetchone()
        if found is not None:
            return int(found[0]), float(found[1])
        time.sleep(POLL)
    raise TimeoutError("the first sync did not end")


def _copy_and_merge(ground: Ground, tenant: str) -> float:
    """Seconds for the same rows, formatted beforehand, into a table with the same indexes: one COPY, one merge."""
    source = BytesIO()
    with closing(psycopg2.connect(ground.url)) as connection:
        with connection, connection.cursor() as cursor:
            cursor.copy_expert(COPY_OUT.format(columns=_LISTED, tenant=tenant), source)
            cursor.execute(REFERENCE_TABLE)
            cursor.execute("checkpoint")
        return mean(_timed(connection, source) for _ in range(2))


def _timed(connection: Any, source: BytesIO) -> float:
    with connection, connection.cursor() as cursor:
        cursor.execute("truncate bench_events")
    source.seek(0)
    began = time.monotonic()
    with connection, connection.cursor() as cursor:
        cursor.execute("create temporary table staged (like sync.events) on commit drop")
        cursor.copy_expert(f"copy staged ({_LISTED}) from stdin", source)
        cursor.execute(MERGE)
    return time.monotonic() - began
