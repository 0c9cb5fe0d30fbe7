"""The mirror's drain, from outbox to rows in Supabase, against execute_values upserts into the same database."""

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import psycopg2
from psycopg2.extras import Json, execute_values

from benchmarks import bodies, population
from benchmarks.ground import Ground
from benchmarks.report import Figure
from db.repositories import events, mirroring
from tenantsync.calendars import google_events, settling
from tenantsync.calendars.runner import GARBAGE_AFTER
from tenantsync.mirror import service
from tenantsync.mirror.supabase import Supabase

BENCH = "mirror"
ROWS = 30_000
QUICK = 5_000
A_CALL = 1000
OF_EXECUTE_VALUES = 0.6
BUDGET = 300.0  # seconds

REFERENCE_TABLE = "create table public.bench_events (like public.calendar_events including all)"
CHANGE_ALL = """
with changed as (
  update sync.events set title = title || '!', version = nextval('mirror.version')
  returning tenant_id, event_id, version)
insert into mirror.outbox (tenant_id, entity, row_id, version)
select tenant_id, 'events', event_id, version from changed;
update mirror.turns set ready_at = now();
"""


def run(*, quick: bool) -> Iterator[Figure]:
    count = QUICK if quick else ROWS
    gc.set_threshold(GARBAGE_AFTER)  # as in a worker's process
    with Ground(supabase=True) as ground:
        _store_events(ground, count)
        supabase = Supabase(ground.settings.supabase_url, ground.settings.supabase_secret_key.get_secret_value())
        new = count / _drain(ground, supabase, count)
        rows = _rows(ground)
        ground.postgres.execute("tenantsync", CHANGE_ALL)
        changed = count / _drain(ground, supabase, count)
        supabase.close()
        ground.postgres.execute("supabase", REFERENCE_TABLE)
        plain = _execute_values(ground, "bench_events", rows)
        ground.postgres.execute("supabase", "truncate public.calendar_events")
        guarded = _execute_values(ground, "calendar_events", rows)
    for number, (what, ours) in enumerate((("new", new), ("changed", changed))):
        yield Figure(BENCH, f"{what} rows, {A_CALL:,} a call", ours, "rows/s")
        yield Figure(BENCH, f"execute_values of {what} rows into a table without triggers", plain[number], "rows/s")
        yield Figure(BENCH, f"execute_values of {what} rows into the same table", guarded[number], "rows/s")
        share = ours / plain[number]
        yield Figure(BENCH, f"{what} rows ÷ execute_values without triggers", share, "×", "at least", OF_EXECUTE_VALUES)


def _store_events(ground: Ground, count: int) -> None:
    """One calendar's events, stored and queued by the product's own statements."""
    (planted,) = population.fetchable(ground.url, ground.vault, tenants=1, units=1, listing=count)
    rows = [google_events.staged(item, number) for number, item in enumerate(bodies.events(count), 1)]
    with ground.database.transaction() as connection:
        staged = settling.stage(connection, calendar_id=planted.calendar_id, fence=1, rows=rows)
        events.merge(
            connection,
            tenant_id=planted.tenant_id,
            calendar_id=planted.calendar_id,
            fence=1,
            full=True,
            staged=staged,
        )
    population.vacuum(ground.url, ("sync.events", "mirror.outbox"))


def _drain(ground: Ground, supabase: Supabase, count: int) -> float:
    began = time.monotonic()
    drained = service.drain(ground.database, supabase, batch_size=A_CALL, budget=BUDGET)
    if drained.sent != count or drained.parked or drained.failure:
        raise RuntimeError(f"the drain sent {drained.sent} of {count} rows ({drained.failure})")
    return time.monotonic() - began


def _rows(ground: Ground) -> list[dict[str, Any]]:
    """What the mirror sent, as it reads it."""
    with ground.database.statement() as connection:
        keys = [
            mirroring.Key(row.tenant_id, "events", row.event_id)
            for row in connection.exec_driver_sql("select tenant_id, event_id from sync.events")
        ]
        return mirroring.read_rows(connection, entity="events", keys=keys)


def _values(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(Json(value) if isinstance(value, dict | list) else value for value in row.values())


def _execute_values(ground: Ground, table: str, rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Rows per second as new ones, and again at a higher version: a statement and a commit for each call's worth."""
    names = list(rows[0])
    assign = ", ".join(f"{name} = excluded.{name}" for name in names if name != "id")
    upsert = (
        f"insert into public.{table} as t ({', '.join(names)}) values %s "
        f"on conflict (id) do update set {assign} where excluded.version > t.version"
    )
    rates = []
    with closing(psycopg2.connect(ground.supabase.database_url)) as connection:
        for ahead in (0, 10**9):
            values = [
                tuple(
                    Json(v) if isinstance(v, dict | list) else v
                    for v in {**row, "version": row["version"] + ahead}.values()
                )
                for row in rows
            ]
            began = time.monotonic()
            for start in range(0, len(values), A_CALL):
                with connection, connection.cursor() as cursor:
                    execute_values(cursor, upsert, values[start : start + A_CALL], page_size=A_CALL)
            rates.append(len(rows) / (time.monotonic() - began))
    return rates[0], rates[1]
