"""Events with numbers that have no gaps, from eight operating-system processes on one process' row.

Compared with plain inserts of the same rows, by as many writers in groups of the same size, into an equal table whose
numbers the writers make up themselves.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from multiprocessing.synchronize import Barrier
from multiprocessing.synchronize import Event as Signal
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from benchmarks.ground import POSTGRES
from benchmarks.report import Figure
from db import partitions, schema
from db.ids import new_id
from db.repositories import process_events, tenants
from db.repositories.process_events import NewEvent
from db.rows import as_json
from db.session import Database
from sandbox.servers.postgres import Postgres
from tenantsync.processes import publishing, service
from tenantsync.processes.publishing import Event, Publisher
from tenantsync.processes.values import Address

BENCH = "events"
WRITERS = 8
GROUP = publishing.GROUP_OF
SECONDS, QUICK_SECONDS = 4.0, 1.5
ROUNDS, QUICK_ROUNDS = 3, 1  # of each, in turns; the median of the shares counts
SHARE = 0.5
DATA = {"section_index": 2, "chunk": "<p>" + "x" * 90 + "</p>", "is_complete": False, "total_chars_generated": 145}

PLAIN = text("""
insert into plain (process_id, sequence, event_id, tenant_id, event_type, data, category, priority, source)
select e.process_id, e.place, e.event_id, :tenant, e.event_type, e.data::jsonb, e.category, e.priority, e.source
  from json_to_recordset(cast(:events as json))
    as e(process_id uuid, place bigint, event_id uuid, event_type text, data json, category text, priority smallint,
         source text)
""")

Write = Callable[[Connection, UUID, list[NewEvent]], object]


def run(*, quick: bool) -> Iterator[Figure]:
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if quick else (ROUNDS, SECONDS)
    with Postgres(durable=True, settings=POSTGRES) as postgres:
        url = postgres.create_database("events")
        address = _prepare(url)
        found = {how: [_rate(url, address, how, seconds) for _ in range(rounds)] for how in ("product",)}
        pairs = {"grouped": ("numbered", "plain"), "single": ("numbered one", "plain one")}
        for _ in range(rounds):
            for how in (one for pair in pairs.values() for one in pair):
                found.setdefault(how, []).append(_rate(url, address, how, seconds))
        _no_gaps(url, address)
    best = {how: sorted(rates)[len(rates) // 2] for how, rates in found.items()}
    shares = {
        name: sorted(a / b for a, b in zip(found[ours], found[plain], strict=True))[rounds // 2]
        for name, (ours, plain) in pairs.items()
    }
    where = f"{WRITERS} writers, one process"
    yield Figure(BENCH, f"numbered, groups of {GROUP}, {where}", best["numbered"], "events/s")
    yield Figure(BENCH, f"plain inserts, groups of {GROUP}, {where}", best["plain"], "events/s")
    yield Figure(BENCH, "numbered ÷ plain, in groups", shares["grouped"], "×", "at least", SHARE)
    yield Figure(BENCH, f"numbered, one at a time, {where}", best["numbered one"], "events/s")
    yield Figure(BENCH, f"plain inserts, one at a time, {where}", best["plain one"], "events/s")
    yield Figure(BENCH, "numbered ÷ plain, one at a time", shares["single"], "×")
    yield Figure(BENCH, f"pieces through publishers, {where}", best["product"], "events/s")


def _prepare(url: str) -> Address:
    schema.upgrade(url)
    database = Database(url, pool_size=1, name="benchmarks")
    with database.transaction() as connection:
        partitions.ensure_ahead(connection, now=datetime.now(UTC))
        connection.execute(text("create table plain (like process.events including all)"))
        tenant = tenants.add_tenant(connection, name="acme")
        workspace = tenants.add_workspace(connection, tenant_id=tenant, name="office")
    with database.transaction() as connection:
        process = service.create(
            connection, tenant_id=tenant, workspace_id=workspace, kind="bench", title="", started_by="bench"
        )
    database.close()
    return Address(process, tenant)


def _rate(url: str, address: Address, how: str, seconds: float) -> float:
    """Events per second of all writers together."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.events"])
    barrier, stop, told = context.Barrier(WRITERS + 1), context.Event(), context.Queue()
    writers = [
        context.Process(target=_write, args=(url, address, how, number, barrier, stop, told), daemon=True)
        for number in range(WRITERS)
    ]
    for writer in writers:
        writer.start()
    barrier.wait(120)
    began = time.monotonic()
    time.sleep(seconds)
    stop.set()
    written = sum(told.get(timeout=60) for _ in writers)
    took = time.monotonic() - began
    for writer in writers:
        writer.join(30)
    return float(written) / took


def _write(url: str, address: Address, how: str, number: int, barrier: Barrier, stop: Signal, told: Any) -> None:
    database = Database(url, pool_size=2, name="writer")
    with database.statement() as connection:
        connection.execute(text("select 1"))
    written = 0
    if how == "product":
        publisher = Publisher(database)
        barrier.wait(120)
        while not stop.is_set():
            publisher.publish(address, "section_chunk", DATA)
            written += 1
        publisher.close()
    else:
        size = 1 if how.endswith("one") else GROUP
        write = {"numbered": _numbered, "numbered one": _durable}.get(how, _plain)
        events = _events(address, size)
        places = count((os.getpid() << 32) + number)
        barrier.wait(120)
        while not stop.is_set():
            group = [replace(one, event_id=new_id(), place=next(places) if write is _plain else one.place)
                     for one in events]  # fmt: skip
            with database.statement() as connection:
                write(connection, address.tenant_id, group)
            written += size
    told.put(written)
    database.close()


def _events(address: Address, size: int) -> list[NewEvent]:
    event = Event("section_chunk", DATA)
    return [publishing.prepare(address, event, place)[1] for place in range(1, size + 1)]


def _numbered(connection: Connection, tenant: UUID, events: list[NewEvent]) -> object:
    return process_events.append_pieces(connection, tenant_id=tenant, process_id=events[0].process_id, events=events)


def _durable(connection: Connection, tenant: UUID, events: list[NewEvent]) -> object:
    """As a durable event is written: what waits of the process' snapshots would go before it."""
    return process_events.append(connection, tenant_id=tenant, events=events)


def _plain(connection: Connection, tenant: UUID, events: list[NewEvent]) -> object:
    return connection.execute(PLAIN, {"tenant": tenant, "events": as_json(event.row() for event in events)})


def _no_gaps(url: str, address: Address) -> None:
    database = Database(url, pool_size=1, name="benchmarks")
    with database.reading() as connection:
        row = connection.execute(
            text("select count(*) as n, min(sequence) as first, max(sequence) as last from process.events")
        ).one()
        (head,) = process_events.heads(connection, process_ids=[address.process_id]).values()
    database.close()
    if not row.n == row.last == head or row.first != 1:
        raise RuntimeError(f"{row.n} events are numbered from {row.first} to {row.last}; the process says {head}")
