"""From an event's insert to the browser, through the real web process; and what streams cost on which nothing happens.

Publisher, Postgres, web process and readers share the machine. An event's `created_at` is the moment of its insert by
the database's clock, which is this machine's.
"""

import asyncio
import multiprocessing
import re
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from multiprocessing.synchronize import Event
from urllib.parse import urlsplit
from uuid import UUID

import psutil
from pydantic import SecretStr

from benchmarks.ground import SECRET_KEY, Ground
from benchmarks.report import Figure
from db.repositories import identity, tenants
from db.session import Database
from tenantsync.identity.tokens import Tokens
from tenantsync.processes import service
from tenantsync.processes.publishing import Event as NewEvent
from tenantsync.processes.publishing import publish_many

BENCH = "live"
PROCESSES, READERS = 200, 500
EVENTS_PER_SECOND, A_TRANSACTION = 1_000, 20
WARM_UP, SECONDS = 3.0, 30.0
QUICK_SECONDS = 5.0
IDLE, QUICK_IDLE = 5_000, 500
IDLE_SECONDS = 20.0
CONNECTING, CONNECT_TIME = 50, 30.0  # so many at a time, in so many seconds
MOMENT = re.compile(rb'"created_at":"([^"]+)"')
LIFETIME = timedelta(hours=1)


@dataclass
class Heard:
    """What all readers received: how many events, and how old each was, in milliseconds, while it counted."""

    events: int = 0
    ages: list[float] = field(default_factory=list)
    counting: bool = False
    first: asyncio.Event = field(default_factory=asyncio.Event)


def run(*, quick: bool) -> Iterator[Figure]:
    _open_files()
    with Ground() as ground:
        tenant_id, token = _settle(ground.database)
        processes = [_process(ground.database, tenant_id) for _ in range(PROCESSES)]
        address = ground.start_web()
        web = psutil.Process(ground.web.pid)
        yield from asyncio.run(_travel(ground, address, token, tenant_id, processes, web, quick=quick))
    with Ground() as ground:
        tenant_id, token = _settle(ground.database)
        address = ground.start_web()
        web = psutil.Process(ground.web.pid)
        process_id = _process(ground.database, tenant_id)
        yield from asyncio.run(_idle(address, token, process_id, web, QUICK_IDLE if quick else IDLE))


async def _travel(
    ground: Ground,
    address: str,
    token: str,
    tenant_id: UUID,
    processes: Sequence[UUID],
    web: psutil.Process,
    *,
    quick: bool,
) -> list[Figure]:
    heard = Heard()
    readers = await _readers(address, token, [processes[n % PROCESSES] for n in range(READERS)], heard)
    context = multiprocessing.get_context("spawn")
    stop, sent = context.Event(), context.Value("q", 0)
    publisher = context.Process(target=_publish, args=(ground.url, tenant_id, processes, stop, sent), daemon=True)
    publisher.start()
    await heard.first.wait()
    await asyncio.sleep(WARM_UP)
    heard.counting, before, cpu, began = True, sent.value, _cpu(web), time.monotonic()
    await asyncio.sleep(QUICK_SECONDS if quick else SECONDS)
    heard.counting, rate = False, (sent.value - before) / (time.monotonic() - began)
    busy = (_cpu(web) - cpu) / (time.monotonic() - began)
    stop.set()
    await asyncio.to_thread(publisher.join, 10)
    await _hang_up(readers)
    ages = sorted(heard.ages)
    about = f"{PROCESSES} processes, {READERS} readers"
    return [
        Figure(BENCH, f"events inserted, {about}", rate, "events/s", "at least", 0.97 * EVENTS_PER_SECOND),
        Figure(BENCH, "messages received", len(ages) / (QUICK_SECONDS if quick else SECONDS), "messages/s"),
        Figure(BENCH, "insert to reader, half of them", _share(ages, 0.5), "ms"),
        Figure(BENCH, "insert to reader, 99 of 100", _share(ages, 0.99), "ms"),
        Figure(BENCH, "the slowest", ages[-1], "ms"),
        Figure(BENCH, "the web process meanwhile", busy * 100, "% of a core"),
    ]


async def _idle(address: str, token: str, process_id: UUID, web: psutil.Process, count: int) -> list[Figure]:
    heard = Heard()
    readers = await _readers(address, token, [process_id] * 10, heard)  # what the first ones cost is not a stream's
    before = web.memory_info().rss
    readers += await _readers(address, token, [process_id] * count, heard)
    after = web.memory_info().rss
    cpu, began = _cpu(web), time.monotonic()
    await asyncio.sleep(IDLE_SECONDS)
    busy = (_cpu(web) - cpu) / (time.monotonic() - began)
    await _hang_up(readers)
    return [
        Figure(BENCH, f"memory of an idle stream, of {count:,}", (after - before) / count / 1024, "kB"),
        Figure(BENCH, f"the web process with {count:,} idle streams", busy * 100, "% of a core"),
    ]


def _settle(database: Database) -> tuple[UUID, str]:
    """A tenant, and the token of somebody who sees it."""
    with database.transaction() as connection:
        tenant_id = tenants.add_tenant(connection, name="live")
        user = identity.add_user(
            connection,
            tenant_id=tenant_id,
            email="reader@example.test",
            name="",
            role="member",
            password_hash=None,
            language="en",
        )
        session_id, _ = identity.start_session(connection, user_id=user.user_id, lifetime=LIFETIME, user_agent=None)
    token = Tokens(SecretStr(SECRET_KEY)).issue(
        "access",
        session_id=session_id,
        user_id=user.user_id,
        role="member",
        tenant_id=tenant_id,
        lifetime=LIFETIME,
    )
    return tenant_id, token


def _process(database: Database, tenant_id: UUID) -> UUID:
    with database.transaction() as connection:
        return service.create(
            connection,
            tenant_id=tenant_id,
            workspace_id=None,
            kind="bench.live",
            title="live",
            started_by="bench",
            queue="tasks",
        )


def _publish(url: str, tenant_id: UUID, processes: Sequence[UUID], stop: Event, sent: "multiprocessing.Value") -> None:  # type: ignore[valid-type]
    """In a process of its own: so many events a second, spread over the processes, until told to stop."""
    database = Database(url, pool_size=1, name="publisher")
    began, number = time.monotonic(), 0
    while not stop.is_set():
        chosen = [processes[(number + n) % len(processes)] for n in range(A_TRANSACTION)]
        events = {one: [NewEvent("step_update", {"step": "read", "message": "Reading"})] for one in chosen}
        with database.transaction() as connection:
            publish_many(connection, tenant_id=tenant_id, events=events)
        number += A_TRANSACTION
        sent.value = number  # type: ignore[attr-defined]
        time.sleep(max(0.0, began + number / EVENTS_PER_SECOND - time.monotonic()))
    database.close()


async def _readers(address: str, token: str, processes: Sequence[UUID], heard: Heard) -> list["asyncio.Task[None]"]:
    """One reader for each, all of them connected."""
    tasks = []
    for first in range(0, len(processes), CONNECTING):
        connected = [asyncio.Event() for _ in processes[first : first + CONNECTING]]
        tasks += [
            asyncio.create_task(_read(address, token, one, heard, event))
            for one, event in zip(processes[first : first + CONNECTING], connected, strict=True)
        ]
        async with asyncio.timeout(CONNECT_TIME):
            await asyncio.gather(*(event.wait() for event in connected))
    return tasks


async def _read(address: str, token: str, process_id: UUID, heard: Heard, connected: asyncio.Event) -> None:
    parts = urlsplit(address)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    path = f"/api/v1/processes/{process_id}/stream?since_sequence=1"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(head.split(b"\r\n")[0].decode())
    await reader.readuntil(b"retry: ")
    connected.set()
    while data := await reader.read(65_536):
        now = time.time()
        for moment in MOMENT.findall(data):
            heard.events += 1
            heard.first.set()
            if heard.counting:
                heard.ages.append((now - datetime.fromisoformat(moment.decode()).timestamp()) * 1000)
    raise ConnectionError("the stream ended")


async def _hang_up(readers: Sequence["asyncio.Task[None]"]) -> None:
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)


def _share(ages: Sequence[float], share: float) -> float:
    return ages[min(len(ages) - 1, int(len(ages) * share))]


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _open_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536) if hard > 0 else 65_536, hard))
