"""P11 for tasks: an intake, a hand-out and the way back fail at every statement, and each task is done once."""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from config.settings import Settings
from db.session import Database
from tenantsync.processes import service
from tenantsync.work import dispatch, intake
from tests.support.desk import LEASE, Desk
from tests.support.fleet import TenantHandle
from tests.support.logs import captured_logs
from tests.support.mirror import assert_mirror_equals_postgres, open_again, outbox, plant_tenant
from tests.support.process_rows import plant_process, plant_process_events
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.statements import Spoil
from tests.support.tapped import Tapped
from tests.support.waiting import wait_until

pytest_plugins = ["tests.support.supabase_fixtures", "tests.support.desk_fixtures", "tests.support.tapped_fixtures"]

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

WAYS = pytest.mark.parametrize("how", [Spoil.REFUSED, Spoil.CUT_AFTER])  # at the server, cut before is refused
WAITING = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
SENT_LONG_AGO = "update process.processes set lease_until = now() - interval '1 second' where state = 'pending'"
SENDERS_LOST = """
update mirror.turns set lease_until = now() - interval '1 second', ready_at = now() where lease_until is not null
"""
TAKEN = """
select (select count(*) from worker.tasks) as tasks, (select count(*) from process.processes) as processes,
       (select count(*) from worker.task_keys) as keys,
       (select count(*) from process.events where event_type = 'process_created') as told,
       (select count(*) from worker.tasks t join process.processes p on p.process_id = t.id) as pairs
"""


class Outbox:
    """A broker that keeps what it is given."""

    def __init__(self, sent: list[UUID]) -> None:
        self._sent = sent

    def __call__(self, process_id: UUID, *, time_limit: int) -> None:
        assert time_limit > 0
        self._sent.append(process_id)


@pytest.fixture(autouse=True)
def log(settings: Settings) -> Iterator[io.StringIO]:
    """The product's own log: every fault writes a traceback, and structlog's default takes a second to paint one."""
    with captured_logs(settings) as lines:
        yield lines


@WAYS
def test_p11_a_fault_at_any_statement_of_an_intake_takes_each_task_in_once(
    desk: Desk, asker: TenantHandle, tapped: Callable[[], Tapped], how: Spoil
) -> None:
    worker, asked = tapped(), 0

    def strike(at: int | None) -> int:
        nonlocal asked
        desk.ask(asker)
        asked += 1
        with worker.spoiled(at=at, how=how):
            intake.take_in(worker.fleet.database, desk.source, desk.handlers)
        desk.take_in()
        desk.bring_back()
        return len(worker.tap.seen)

    count = strike(None)
    for place in range(1, count + 1):
        strike(place)

    found = desk.fleet.one(TAKEN)
    refused = count if how is Spoil.REFUSED else 0  # one that Postgres refuses is told so, and ends at once
    assert count >= 9
    assert (found["tasks"], found["keys"]) == (asked, asked)
    assert found["processes"] == found["told"] == found["pairs"] >= asked - refused
    assert_mirror_equals_postgres(desk.database, desk.mirror)


@WAYS
def test_p11_a_fault_at_any_statement_of_a_hand_out_keeps_no_task_from_its_run(
    desk: Desk, asker: TenantHandle, tapped: Callable[[], Tapped], how: Spoil
) -> None:
    worker = tapped()

    def strike(at: int | None) -> int:
        asked = desk.ask(asker)
        desk.take_in()
        desk.worker()
        sent: list[UUID] = []
        with worker.spoiled(at=at, how=how):
            dispatch.dispatch(worker.fleet.database, Outbox(sent), desk.handlers)
        desk.fleet.execute(SENT_LONG_AGO)
        assert desk.hand_out() == [desk.id_of(asked)]
        assert (desk.run(desk.id_of(asked)), [desk.run(one) for one in sent]) == ("completed", [None] * len(sent))
        return len(worker.tap.seen)

    count = strike(None)
    for place in range(1, count + 1):
        strike(place)

    assert count >= 3


@WAYS
def test_p11_a_fault_at_any_statement_of_a_drain_brings_every_event_in_order(
    desk: Desk, asker: TenantHandle, tapped: Callable[[], Tapped], how: Spoil
) -> None:
    worker, database = tapped(), desk.database
    asked = desk.ask(asker)
    desk.take_in()
    process = desk.id_of(asked)
    steps = iter(range(1000))

    def strike(at: int | None) -> int:
        with database.transaction() as connection:
            held = service.begin(connection, process_id=process, worker="w", lease=LEASE)
            assert held is not None
            for _ in range(3):
                service.start_step(connection, held=held, step=f"step {next(steps)}")
            service.hand_back(connection, held=held)
        with worker.spoiled(at=at, how=how):
            desk.mirror.drain(worker.fleet.database)
        before = delivered(database, process)
        desk.fleet.execute(SENDERS_LOST)
        open_again(database)
        desk.mirror.drain(database)
        assert delivered(database, process) >= before
        assert outbox(database) == {}
        return len(worker.tap.seen)

    count = strike(None)
    for place in range(1, count + 1):
        strike(place)

    arrived = [row["sequence"] for call in desk.mirror.proxy.calls for row in call.rows if "sequence" in row]
    firsts = list(dict.fromkeys(arrived))
    assert count >= 12
    assert firsts == list(range(1, len(firsts) + 1))
    assert_mirror_equals_postgres(database, desk.mirror)


def delivered(database: Database, process: UUID) -> int:
    query = text("select delivered_sequence from process.deliveries where process_id = :process")
    with database.reading() as connection:
        return int(connection.execute(query, {"process": process}).scalar() or 0)


@pytest.mark.parametrize("end", ["completed", "deleted"])
def test_a_task_that_is_over_just_as_it_is_cancelled_keeps_no_other_from_its_cancelling(
    desk: Desk, asker: TenantHandle, end: str
) -> None:
    first, second = desk.ask(asker, priority=1), desk.ask(asker)
    desk.take_in()
    desk.bring_back()
    for one in (first, second):
        desk.wants_cancelled(one)
    process = desk.id_of(first)
    with desk.database.transaction() as connection:
        held = service.begin(connection, process_id=process, worker="w", lease=LEASE)
        assert held is not None
    ends: dict[str, Callable[[Any], Any]] = {
        "completed": lambda c: service.complete(c, held=held),
        "deleted": lambda c: c.execute(text("delete from process.processes where process_id = :p"), {"p": process}),
    }

    with ThreadPoolExecutor(1) as thread:
        with desk.database.transaction() as connection:
            ends[end](connection)
            done = thread.submit(desk.take_in)
            wait_until(lambda: desk.fleet.rows(WAITING), about="an intake that waits")
        assert done.result(10)["cancelled"] == 1

    assert desk.process(second)["state"] == "cancelled"


def test_a_flood_of_one_tenant_and_a_process_that_is_gone_hold_up_nobody(desk: Desk, asker: TenantHandle) -> None:
    """A tenant that is deleted while its processes run leaves no row that the mirror would come back to for ever."""
    gone = plant_tenant(desk.database, "gone")
    processes = [plant_process(desk.database, tenant) for tenant in (gone, asker)]
    for process in processes:
        plant_process_events(desk.database, process, 3)
    with desk.database.transaction() as connection:
        held = service.begin(connection, process_id=processes[0], worker="w", lease=LEASE)
        connection.execute(text("delete from sync.tenants where tenant_id = :tenant"), {"tenant": gone.tenant_id})

    desk.bring_back()
    desk.tend()

    assert held is not None
    assert [row["process_id"] for row in desk.mirror.rows("select distinct process_id from public.process_events")] == [
        str(processes[1])
    ]
