"""Fairness of the real dispatch: a hundred tenants at a hundred to one, and a quiet tenant beside a flood.

The claim, the books on batches and the start and finish of runs are the product's own statements; the time
that a run takes at its provider is played by a pause, so that the house has a known capacity.
"""

import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import psycopg2
from sqlalchemy import text

from benchmarks import population
from benchmarks.ground import Ground
from benchmarks.report import Figure
from config.queues import Lane
from db import schema
from db.repositories import ledger, units
from db.repositories.units import ClaimedUnit
from db.session import Database
from sandbox.servers.postgres import Postgres
from tenantsync.dispatching import service as dispatching

BENCH = "fairness"
TENANTS = 100
SKEW = 100  # units of the large tenant for one of another
EACH = 50  # units of another tenant
FLOOD = 100_000
BATCH = 50
SLOTS = 4
SERVICE = 0.05  # seconds that a batch takes
SECONDS, QUICK_SECONDS = 20.0, 5.0
QUIET_EVERY = 0.35  # seconds between two units of the quiet tenant becoming due, on average

PLANT = """
insert into sync.tenants (tenant_id, name) values (%(tenant)s, %(name)s);
insert into sync.turns (tenant_id, lane, cap, ready_at) values (%(tenant)s, 'sync', %(cap)s, now());
insert into sync.units (unit_id, tenant_id, lane, next_due_at)
select gen_random_uuid(), %(tenant)s, 'sync', %(due)s from generate_series(1, %(count)s);
"""
DUE_NOW = """
with u as (
  update sync.units set next_due_at = now() where unit_id = (
    select unit_id from sync.units where tenant_id = %(tenant)s and state = 'idle' and next_due_at > now() limit 1)
  returning tenant_id)
update sync.turns t set ready_at = least(t.ready_at, now()) from u where t.tenant_id = u.tenant_id
"""
WAITED = text("""
select extract(epoch from now() - next_due_at)::float8 from sync.units where unit_id = any(cast(:units as uuid[]))
""")
END = text("""
with ended as (
  update sync.units set state = 'idle', lease_until = null, next_due_at = now() + :again * interval '1 second'
   where unit_id = any(cast(:units as uuid[])) and tenant_id <> :watched returning tenant_id),
quiet as (
  update sync.units set state = 'idle', lease_until = null, next_due_at = 'infinity'
   where unit_id = any(cast(:units as uuid[])) and tenant_id = :watched returning tenant_id)
update sync.turns t set ready_at = least(t.ready_at, now()), at_cap = false
  from (select distinct tenant_id from ended) e where t.tenant_id = e.tenant_id and t.at_cap
""")
HEARD = {"slots": SLOTS, "cpu": 0, "memory": 0, "active": 0}


@dataclass(frozen=True, slots=True)
class Fairness:
    """Jain's index over the runs of tenants at 100:1, and a quiet tenant's waits in seconds."""

    jain: float
    empty_p99: float
    flooded_p99: float

    @property
    def ratio(self) -> float:
        return self.flooded_p99 / self.empty_p99


def run(*, quick: bool) -> Iterator[Figure]:
    with Ground() as ground:
        found = measure(ground.postgres, seconds=QUICK_SECONDS if quick else SECONDS)
    yield Figure(BENCH, f"Jain's index, {TENANTS} tenants at {SKEW}:1", found.jain, "", "at least", 0.99)
    yield Figure(BENCH, "quiet tenant's p99 wait, empty house", found.empty_p99 * 1000, "ms")
    yield Figure(BENCH, f"quiet tenant's p99 wait beside {FLOOD:,} due units", found.flooded_p99 * 1000, "ms")
    yield Figure(BENCH, "quiet tenant's wait beside the flood, against empty", found.ratio, "×", "at most", 2.0)


def measure(postgres: Postgres, *, seconds: float) -> Fairness:
    """All of it on databases of its own at a server; takes some three times `seconds`."""
    return Fairness(
        jain=_jain(postgres, seconds),
        empty_p99=_quiet_wait(postgres, seconds, flood=0),
        flooded_p99=_quiet_wait(postgres, seconds, flood=FLOOD),
    )


def _jain(postgres: Postgres, seconds: float) -> float:
    with _database(postgres, "fair_jain") as (url, database):
        sizes = [EACH * SKEW] + [EACH] * (TENANTS - 1)
        for number, size in enumerate(sizes):
            _plant(url, UUID(int=number + 1), size, due="-infinity", cap=1000)
        house = _House(database, again=0.0)
        house.run(seconds)
    shares = [float(house.served[UUID(int=number + 1)]) for number in range(TENANTS)]
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


def _quiet_wait(postgres: Postgres, seconds: float, *, flood: int) -> float:
    quiet = UUID(int=1)
    with _database(postgres, f"fair_quiet_{flood}") as (url, database):
        _plant(url, quiet, 50, due="infinity", cap=50)
        if flood:
            _plant(url, UUID(int=2), flood, due="-infinity", cap=1000)
        house = _House(database, again=86_400.0, watched=quiet)
        stop = threading.Event()
        nudge = threading.Thread(target=_become_due, args=(url, quiet, stop))
        nudge.start()
        try:
            house.run(seconds * 1.5)
        finally:
            stop.set()
            nudge.join()
    waits = sorted(house.waits)
    if len(waits) < seconds:
        raise RuntimeError(f"only {len(waits)} waits of the quiet tenant in {seconds * 1.5:g} s")
    return waits[min(len(waits) - 1, int(len(waits) * 0.99))]


def _become_due(url: str, tenant: UUID, stop: threading.Event) -> None:
    chance = random.Random(7)
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        while not stop.wait(chance.uniform(0.5, 1.5) * QUIET_EVERY):
            connection.cursor().execute(DUE_NOW, {"tenant": str(tenant)})


class _House:
    """The real dispatch every second, and workers that take `SERVICE` seconds for a batch."""

    def __init__(self, database: Database, *, again: float, watched: UUID | None = None) -> None:
        self._database = database
        self._again = again
        self._watched = watched
        self._queue: queue.Queue[tuple[UUID, Sequence[ClaimedUnit]] | None] = queue.Queue()
        self.served: Counter[UUID] = Counter()
        self.waits: list[float] = []

    def run(self, seconds: float) -> None:
        workers = [threading.Thread(target=self._work) for _ in range(SLOTS)]
        for worker in workers:
            worker.start()
        ends = time.monotonic() + seconds
        try:
            while time.monotonic() < ends:
                tick = time.monotonic()
                with self._database.statement() as connection:
                    reading = {**HEARD, "now": datetime.now(UTC)}
                    ledger.heartbeat(connection, worker="bench", queues=["sync"], reading=reading)
                dispatching.dispatch(self._database, self._publish, batch_size=BATCH)
                time.sleep(max(0.0, 1.0 - (time.monotonic() - tick)))
        finally:
            for _ in workers:
                self._queue.put(None)
            for worker in workers:
                worker.join()

    def _publish(self, lane: Lane, batch_id: UUID, batch: Sequence[ClaimedUnit]) -> None:
        self._queue.put((batch_id, batch))

    def _work(self) -> None:
        while (taken := self._queue.get()) is not None:
            batch_id, batch = taken
            with self._database.statement() as connection:
                pairs = [(unit.unit_id, unit.fence) for unit in batch]
                started = units.start(
                    connection, batch_id=batch_id, units=pairs, worker="bench", lease=population.LEASE
                )
                if self._watched is not None:
                    mine = [unit.unit_id for unit in started if unit.tenant_id == self._watched]
                    self.waits += connection.execute(WAITED, {"units": _listed(mine)}).scalars()
            time.sleep(SERVICE)
            self.served.update(unit.tenant_id for unit in started)
            self._finish(batch_id, started)

    def _finish(self, batch_id: UUID, started: Sequence[units.StartedUnit]) -> None:
        with self._database.statement() as connection:
            about = {"again": self._again, "watched": self._watched or UUID(int=0)}
            connection.execute(END, {"units": _listed(unit.unit_id for unit in started), **about})
            ledger.close_batch(connection, batch_id=batch_id, result={"units": len(started)})


def _listed(ids: Iterable[UUID]) -> str:
    return "{" + ",".join(str(one) for one in ids) + "}"


@contextmanager
def _database(postgres: Postgres, name: str) -> Iterator[tuple[str, Database]]:
    url = postgres.create_database(name)
    schema.upgrade(url)
    database = Database(url, pool_size=SLOTS + 2, name="benchmarks")
    try:
        yield url, database
    finally:
        database.close()
        postgres.drop_database(name)


def _plant(url: str, tenant: UUID, count: int, *, due: str, cap: int) -> None:
    with population.bulk(url) as cursor:
        about = {"tenant": str(tenant), "name": f"tenant-{tenant.int}", "count": count, "due": due, "cap": cap}
        cursor.execute(PLANT, about)
