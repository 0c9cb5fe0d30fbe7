"""What runs in operating-system processes of its own: writers of events, and people who answer."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from multiprocessing.context import ForkServerContext
from multiprocessing.synchronize import Barrier
from time import monotonic
from typing import Any
from uuid import UUID

from db.session import Database
from tenantsync.processes import publishing, service
from tenantsync.processes.publishing import Event, Publisher
from tenantsync.processes.values import Address
from tests.support.stage import Stage

CONTEXT: ForkServerContext = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.support.writers"])

_start: Barrier | None = None


def _remember(barrier: Barrier) -> None:
    global _start  # noqa: PLW0603 — one value a process
    _start = barrier


@contextmanager
def writers(count: int) -> Iterator[ProcessPoolExecutor]:
    """So many operating-system processes. Each takes one piece of work, and all begin together."""
    barrier = CONTEXT.Barrier(count)
    with ProcessPoolExecutor(count, mp_context=CONTEXT, initializer=_remember, initargs=(barrier,)) as pool:
        yield pool


def _together() -> None:
    assert _start is not None
    _start.wait(30)


@contextmanager
def _opened(url: str) -> Iterator[Database]:
    database = Database(url, pool_size=2, name="writer")
    _together()
    yield database
    database.close()


def write(url: str, tenant: UUID, process: UUID, writer: int, count: int, how: str) -> None:
    """Publish so many events: `one` at a time, as `pieces`, `mixed` of every kind, or some in a `transaction`."""
    about = Address(process, tenant)
    with _opened(url) as database:
        publisher = Publisher(database)
        for number in range(count):
            mark = {"writer": writer, "number": number}
            kind = how if how != "mixed" else ("one", "pieces", "snapshots", "transaction")[number % 4]
            if kind == "one":
                publisher.publish(about, "section_completed", {"section_index": number, "content": "x", **mark})
            elif kind == "pieces":
                publisher.publish(about, "section_chunk", {"section_index": 0, "chunk": "x", **mark})
            elif kind == "snapshots":
                publisher.publish(about, "progress", {"percentage": 1.0, **mark})
            else:
                with database.transaction() as connection:
                    events = [Event("section_chunk", {"section_index": 0, "chunk": "x", **mark})] * 3
                    publishing.publish_in(connection, process_id=process, tenant_id=tenant, events=events)
        publisher.close()


def answer(url: str, tenant: UUID, process: UUID, question: UUID, writer: int) -> bool:
    """Answer a question; whether the answer was taken."""
    with _opened(url) as database:
        try:
            with database.transaction() as connection:
                service.answer(
                    connection,
                    tenant_id=tenant,
                    process_id=process,
                    question_id=question,
                    answer=writer % 2,
                    by=f"person-{writer}",
                )
        except service.AlreadyAnswered:
            return False
        return True


def begin(url: str, tenant: UUID, process: UUID, writer: int) -> int | None:
    """Begin a process; the attempt, or None where another was faster."""
    with _opened(url) as database, database.transaction() as connection:
        held = service.begin(
            connection, process_id=process, worker=f"w{writer}", lease=timedelta(minutes=1), tenant_id=tenant
        )
        return None if held is None else held.attempt


def report(url: str, tenant: UUID, process: UUID, writer: int, until: float) -> int:
    """Publish progress as fast as it goes for so many seconds; how often."""
    with _opened(url) as database:
        publisher, ends, sent = Publisher(database), monotonic() + until, 0
        while monotonic() < ends:
            sent += 1
            publisher.publish(Address(process, tenant), "progress", {"message": f"{writer}:{sent}"})
        publisher.close()
        return sent


def report_and_die(url: str, tenant: UUID, process: UUID) -> None:
    """Publish two snapshots in a row, and be killed before the second is due."""
    database = Database(url, pool_size=2, name="writer")
    publisher = Publisher(database)
    for message in ("first", "last words"):
        publisher.publish(Address(process, tenant), "progress", {"message": message})
    os.kill(os.getpid(), signal.SIGKILL)


def killed(work: Any, *arguments: Any) -> int | None:
    """Run in a process of its own that ends itself; how it ended."""
    child = CONTEXT.Process(target=work, args=arguments)
    child.start()
    child.join(30)
    return child.exitcode


def flushed(stage: Stage, process: UUID, messages: set[str]) -> bool:
    """Do what the wake-up does; whether the last event says one of these."""
    publishing.flush_late(stage.database)
    return stage.last(process).data.get("message") in messages


def spread(moments: list[datetime]) -> list[float]:
    """Seconds between one moment and the next."""
    return [(later - earlier).total_seconds() for earlier, later in pairwise(moments)]
