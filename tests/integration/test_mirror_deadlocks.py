"""Parked rows that are sent again, or forgotten, while senders and writers are at work: nobody waits in a ring."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from db.repositories import mirroring
from db.session import in_transaction
from tests.support.process_rows import plant_process, plant_process_events
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.stage import Stage
from tests.support.waiting import wait_until

pytest_plugins = ["tests.support.stage_fixtures"]

WAITERS = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
PARKED = "insert into mirror.parked_rows (tenant_id, entity, row_id, version, reason) values (:t, :e, :r, 1, 'test')"
QUEUED = text("insert into mirror.outbox (tenant_id, entity, row_id, version) values (:t, 'processes', :r, 1)")
OURS = text("update mirror.turns set ready_at = ready_at where tenant_id = :tenant")

Begin = Callable[[Callable[[Connection], Any]], Future[Any]]


@pytest.fixture
def begin(stage: Stage) -> Iterator[Begin]:
    """Does something in a transaction and a thread of its own, up to where it has to wait for somebody."""
    waiting: list[Future[Any]] = []
    with ThreadPoolExecutor(3) as threads:

        def go(work: Callable[[Connection], Any]) -> Future[Any]:
            waiting.append(threads.submit(in_transaction, stage.database, work))
            wait_until(lambda: stage.column(WAITERS) == [len(waiting)], about="somebody who waits")
            return waiting[-1]

        yield go


@pytest.fixture
def processes(stage: Stage) -> list[UUID]:
    """Three processes, by id, in whose place nothing waits to be sent."""
    made = sorted(plant_process(stage.database, stage.tenant) for _ in range(3))
    stage.execute("delete from mirror.outbox")
    return made


def test_a_retry_and_whoever_publishes_about_what_is_parked(stage: Stage, processes: list[UUID], begin: Begin) -> None:
    stage.execute(PARKED, t=stage.tenant.tenant_id, e="process_events", r=processes[0])

    with stage.database.transaction() as connection:
        connection.execute(OURS, {"tenant": stage.tenant.tenant_id})
        retried = begin(mirroring.retry_parked)
        published = begin(lambda _: plant_process_events(stage.database, processes[0]))

    published.result(10)
    assert retried.result(10) == 1


def test_a_retry_and_whoever_has_just_sent_what_is_parked(stage: Stage, processes: list[UUID], begin: Begin) -> None:
    tenant, (first, second, _) = stage.tenant.tenant_id, processes
    for process in (first, second):
        stage.execute(PARKED, t=tenant, e="processes", r=process)
    stage.do(lambda c: c.execute(QUEUED, {"t": tenant, "r": second}))
    sent = [{"tenant_id": tenant, "entity": "processes", "row_id": second, "version": 1}]

    with stage.database.transaction() as connection:
        connection.execute(QUEUED, {"t": tenant, "r": first})
        retried = begin(mirroring.retry_parked)
        acknowledged = begin(lambda c: mirroring.acknowledge(c, sent))

    assert (retried.result(10), acknowledged.result(10)) == (2, 1)


@pytest.mark.parametrize("other", ["acknowledge", "retry_parked", "drop_parked", "park"])
def test_whoever_takes_several_parked_rows_takes_them_in_one_order(
    stage: Stage, processes: list[UUID], begin: Begin, other: str
) -> None:
    """The middle one is held; one that began at the far end would hold the last meanwhile."""
    tenant, (first, second, third) = stage.tenant.tenant_id, processes
    for process in (third, second, first):  # as they lie in the table: the far end first
        stage.execute(PARKED, t=tenant, e="processes", r=process)
    rows = [
        {"tenant_id": tenant, "entity": "processes", "row_id": one, "version": 1, "sqlstate": None, "reason": "test"}
        for one in (third, second, first)
    ]
    work: dict[str, Callable[[Connection], Any]] = {
        "acknowledge": lambda c: mirroring.acknowledge(c, rows),
        "retry_parked": mirroring.retry_parked,
        "drop_parked": mirroring.drop_parked,
        "park": lambda c: mirroring.park(c, rows),
    }
    hold = text("select 1 from mirror.parked_rows where row_id = :row for update")

    with stage.database.transaction() as connection:
        connection.execute(hold, {"row": second})
        taken = begin(work[other])
        connection.execute(text("set local lock_timeout = '1s'"))
        connection.execute(hold, {"row": third})

    taken.result(10)
