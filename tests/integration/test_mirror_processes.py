"""Tasks, processes and their events on the way to Supabase: in order, once, and measured."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from db.repositories import deliveries, mirroring
from db.repositories.mirroring import Key
from db.session import Database
from tests.support.fleet import TenantHandle
from tests.support.mirror import (
    MirrorSide,
    assert_mirror_equals_postgres,
    open_again,
    outbox,
    plant_calendar,
    plant_events,
    plant_tenant,
)
from tests.support.process_rows import move_process, plant_process, plant_process_events, plant_task
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.supabase_proxy import Trouble

pytest_plugins = ["tests.support.supabase_fixtures"]

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def acme(database: Database) -> TenantHandle:
    return plant_tenant(database, "acme")


def arrived(mirror: MirrorSide) -> dict[str, list[int]]:
    """Event numbers at Supabase, by process."""
    query = (
        "select process_id::text as p, array_agg(sequence order by sequence) as n from public.process_events group by 1"
    )
    return {row["p"]: row["n"] for row in mirror.rows(query)}


def sent(mirror: MirrorSide, process_id: UUID) -> list[int]:
    """Event numbers of a process in the order in which they stood in calls."""
    calls = (row for call in mirror.proxy.calls for row in call.rows)
    return [row["sequence"] for row in calls if row.get("process_id") == str(process_id)]


def delivered(database: Database, process_id: UUID) -> tuple[int, str | None]:
    query = text("select delivered_sequence, last_error from process.deliveries where process_id = :p")
    with database.reading() as connection:
        row = connection.execute(query, {"p": process_id}).one()
        return row.delivered_sequence, row.last_error


def parked(database: Database) -> list[tuple[str, UUID, int, str]]:
    query = text("select entity, row_id, version, reason from mirror.parked_rows order by row_id")
    with database.reading() as connection:
        return [tuple(row) for row in connection.execute(query)]


def retry(database: Database) -> int:
    with database.transaction() as connection:
        return mirroring.retry_parked(connection)


def log(database: Database) -> list[dict[str, object]]:
    with database.reading() as connection:
        return [
            dict(row) for row in connection.execute(text("select * from process.delivery_log order by id")).mappings()
        ]


# Tasks and processes


def test_a_task_returns_under_the_id_that_its_web_app_knows(
    database: Database, mirror: MirrorSide, acme: TenantHandle
) -> None:
    asked, ours = plant_task(database, mirror, acme)
    process = plant_process(database, acme, queue="work", process_id=ours)
    move_process(database, process, "running")
    mirror.drain(database)
    move_process(database, process, "completed", result=json.dumps({"n": 1}))

    drained = mirror.drain(database)

    (row,) = mirror.rows("select * from public.tasks")
    assert (row["id"], row["status"], row["result"]) == (str(asked), "completed", {"n": 1})
    assert drained.failure is None
    assert outbox(database) == {}
    assert_mirror_equals_postgres(database, mirror)


def test_a_task_that_supabase_refuses_is_parked_under_our_id(
    database: Database, mirror: MirrorSide, acme: TenantHandle
) -> None:
    _asked, ours = plant_task(database, mirror, acme)
    mirror.execute("alter table public.tasks add constraint owners check (worker_id is null)")

    drained = mirror.drain(database)

    mirror.execute("alter table public.tasks drop constraint owners")
    assert (drained.failure, drained.parked) == (None, 1)
    assert [(entity, row) for entity, row, _, _ in parked(database)] == [("tasks", ours)]
    retry(database)
    mirror.drain(database)
    assert_mirror_equals_postgres(database, mirror)


def test_processes_and_all_their_events_arrive(database: Database, mirror: MirrorSide, acme: TenantHandle) -> None:
    first, second = plant_process(database, acme), plant_process(database, acme)
    plant_process_events(database, first, 7)
    plant_process_events(database, second, 3)

    drained = mirror.drain(database)

    assert arrived(mirror) == {str(first): [1, 2, 3, 4, 5, 6, 7], str(second): [1, 2, 3]}
    assert delivered(database, first) == (7, None)
    assert drained.by_entity["process_events"] == 10
    assert outbox(database) == {}
    assert_mirror_equals_postgres(database, mirror)


def test_what_supabase_has_already_is_not_sent_again(
    database: Database, mirror: MirrorSide, acme: TenantHandle
) -> None:
    process = plant_process(database, acme)
    plant_process_events(database, process, 4)
    mirror.drain(database)
    plant_process_events(database, process, 2)

    mirror.drain(database)

    assert sent(mirror, process) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_many_events_go_in_portions_and_in_order(
    database: Database, mirror: MirrorSide, acme: TenantHandle, batch_size: int
) -> None:
    processes = [plant_process(database, acme) for _ in range(4)]
    for process in processes:
        plant_process_events(database, process, 9)

    mirror.drain(database, batch_size=batch_size)

    for process in processes:
        assert sent(mirror, process) == list(range(1, 10))
    assert max(len(call.rows) for call in mirror.proxy.calls) <= batch_size
    assert outbox(database) == {}
    assert_mirror_equals_postgres(database, mirror)


def test_a_process_with_many_events_leaves_room_for_the_others(
    database: Database, mirror: MirrorSide, acme: TenantHandle
) -> None:
    flood, small = plant_process(database, acme), plant_process(database, acme)
    mirror.drain(database)
    plant_process_events(database, flood, 500)
    plant_process_events(database, small, 2)
    mirror.proxy.reset()

    mirror.drain(database, batch_size=50)

    first = next(call.rows for call in mirror.proxy.calls if call.rows)
    assert [row["sequence"] for row in first if row["process_id"] == str(small)] == [1, 2]
    assert len(first) == 50


def test_what_somebody_watches_does_not_wait_behind_a_backlog(
    database: Database, mirror: MirrorSide, acme: TenantHandle
) -> None:
    plant_events(database, acme, plant_calendar(database, acme), 60)
    process = plant_process(database, acme)
    plant_process_events(database, process, 2)

    mirror.drain(database, batch_size=10)

    calls = [call.rows for call in mirror.proxy.calls if call.rows]
    assert [row["title"] for row in calls[0]] == ["t"]
    assert [row["sequence"] for row in calls[1]] == [1, 2]
    assert_mirror_equals_postgres(database, mirror)


# Order and repeats in trouble


def test_a_lost_answer_doubles_nothing(database: Database, mirror: MirrorSide, acme: TenantHandle) -> None:
    process = plant_process(database, acme)
    mirror.drain(database)
    plant_process_events(database, process, 5)
    mirror.proxy.trouble(Trouble(lose_answer=True), times=1)

    failed = mirror.drain(database)
    plant_process_events(database, process, 2)
    open_again(database)
    mirror.drain(database)

    assert failed.failure == "unreachable"
    assert sent(mirror, process) == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 6, 7]
    assert arrived(mirror) == {str(process): [1, 2, 3, 4, 5, 6, 7]}
    assert_mirror_equals_postgres(database, mirror)


def test_calls_that_are_too_large_are_halved_and_stay_in_order(
    database: Database, mirror: MirrorSide, acme: TenantHandle
) -> None:
    processes = [plant_process(database, acme) for _ in range(3)]
    mirror.drain(database)
    for process in processes:
        plant_process_events(database, process, 20, data=json.dumps({"chunk": "x" * 400}))
    mirror.proxy.reset()
    mirror.proxy.trouble(Trouble(status=413, largest=8000))

    drained = mirror.drain(database)

    through = [row for call in mirror.proxy.calls if len(call.body) <= 8000 for row in call.rows]
    for process in processes:
        assert [row["sequence"] for row in through if row["process_id"] == str(process)] == list(range(1, 21))
    assert drained.failure is None
    assert_mirror_equals_postgres(database, mirror)


def test_an_event_that_is_too_large_by_itself_holds_up_its_own_process_alone(
    database: Database, mirror: MirrorSide, acme: TenantHandle
) -> None:
    bad, good = plant_process(database, acme), plant_process(database, acme)
    mirror.drain(database)
    plant_process_events(database, bad, 2)
    plant_process_events(database, bad, 1, data=json.dumps({"chunk": "x" * 9000}))
    plant_process_events(database, bad, 2)
    plant_process_events(database, good, 5)
    mirror.proxy.trouble(Trouble(status=413, largest=8000))

    drained = mirror.drain(database)

    assert (drained.failure, drained.parked) == (None, 1)
    assert arrived(mirror) == {str(bad): [1, 2], str(good): [1, 2, 3, 4, 5]}
    assert [(entity, row) for entity, row, _, _ in parked(database)] == [("process_events", bad)]


# Refusals


@pytest.fixture
def strict(mirror: MirrorSide) -> Iterator[MirrorSide]:
    """A Supabase whose owner takes no events of one source."""
    mirror.execute("alter table public.process_events add constraint owners check (event_source <> 'poison')")
    yield mirror
    mirror.empty()
    mirror.execute("alter table public.process_events drop constraint if exists owners")


@pytest.fixture
def poisoned(database: Database, acme: TenantHandle, strict: MirrorSide) -> UUID:
    """A process whose third event of five was refused."""
    process = plant_process(database, acme)
    plant_process_events(database, process, 2)
    plant_process_events(database, process, 1, source="poison")
    plant_process_events(database, process, 2)
    strict.drain(database)
    return process


def test_a_refused_event_parks_its_own_process_at_its_number(
    database: Database, strict: MirrorSide, poisoned: UUID
) -> None:
    (row,) = parked(database)

    assert row[:3] == ("process_events", poisoned, 5)
    assert "event 3 of the process" in row[3]
    assert arrived(strict) == {str(poisoned): [1, 2]}
    assert delivered(database, poisoned) == (2, "23514")
    assert outbox(database) == {}


def test_everything_else_flows_on(database: Database, strict: MirrorSide, acme: TenantHandle, poisoned: UUID) -> None:
    other = plant_process(database, acme)
    plant_process_events(database, other, 3)
    plant_events(database, acme, plant_calendar(database, acme), 5)
    plant_process_events(database, poisoned, 1)
    strict.proxy.reset()

    drained = strict.drain(database)

    assert (drained.failure, drained.parked) == (None, 0)
    assert arrived(strict) == {str(poisoned): [1, 2], str(other): [1, 2, 3]}
    assert len(strict.table("calendar_events")) == 5
    assert sent(strict, poisoned) == []
    assert outbox(database) == {}


def test_a_retry_sends_what_was_refused_and_all_that_waited_behind_it(
    database: Database, strict: MirrorSide, poisoned: UUID
) -> None:
    plant_process_events(database, poisoned, 2)
    strict.drain(database)
    strict.execute("alter table public.process_events drop constraint owners")

    retried = retry(database)
    strict.drain(database)

    assert retried == 1
    assert arrived(strict) == {str(poisoned): [1, 2, 3, 4, 5, 6, 7]}
    assert parked(database) == []
    assert delivered(database, poisoned) == (7, None)
    assert_mirror_equals_postgres(database, strict)


def test_a_retry_that_is_refused_again_parks_again(database: Database, strict: MirrorSide, poisoned: UUID) -> None:
    retry(database)

    drained = strict.drain(database)

    assert drained.parked == 1
    assert [row[:2] for row in parked(database)] == [("process_events", poisoned)]
    assert outbox(database) == {}


def test_a_retry_between_reading_and_settling_is_not_forgotten(
    database: Database, strict: MirrorSide, poisoned: UUID
) -> None:
    plant_process_events(database, poisoned, 1)
    (key,) = keys(database)
    with database.statement() as connection:
        (row,) = deliveries.undelivered(connection, keys=[key], limit=10)
    retry(database)
    with database.transaction() as connection:
        deliveries.settle(connection, [deliveries.Settled(key.tenant_id, key.row_id, key.version, held=True)])

    assert row["held"] is True
    assert outbox(database) == {poisoned: 6}


def keys(database: Database) -> list[Key]:
    with database.reading() as connection:
        return [
            Key(*row)
            for row in connection.execute(text("select tenant_id, entity, row_id, version from mirror.outbox"))
        ]


def test_what_has_no_row_any_more_leaves_the_outbox(database: Database, mirror: MirrorSide, acme: TenantHandle) -> None:
    process = plant_process(database, acme)
    plant_process_events(database, process, 3)
    with database.transaction() as connection:
        connection.execute(text("delete from process.events"))
        connection.execute(text("delete from process.processes"))

    mirror.drain(database, budget=2)

    assert outbox(database) == {}


# What is measured


def test_every_call_is_written_down_with_sizes_and_ages(
    database: Database, mirror: MirrorSide, acme: TenantHandle
) -> None:
    process = plant_process(database, acme)
    plant_process_events(database, process, 3)

    mirror.drain(database)

    (row,) = log(database)
    assert (row["target"], row["events"], row["failed"]) == ("supabase", 3, 0)
    assert isinstance(row["milliseconds"], list)
    assert len(row["milliseconds"]) == 3
    assert all(0 <= age < 60_000 for age in row["milliseconds"])
    assert int(str(row["bytes"])) > 3 * 200


def test_calls_that_fail_count_against_the_success_rate(
    database: Database, mirror: MirrorSide, acme: TenantHandle
) -> None:
    process = plant_process(database, acme)
    mirror.drain(database)
    plant_process_events(database, process, 4)
    mirror.proxy.trouble(Trouble(status=503), times=1)
    mirror.drain(database)
    open_again(database)
    mirror.drain(database)

    with database.reading() as connection:
        found = deliveries.measured(connection, now=datetime.now(UTC), within=timedelta(minutes=5))
        none = deliveries.measured(connection, now=datetime.now(UTC) + timedelta(hours=1), within=timedelta(minutes=5))

    assert (found.events, found.failed, found.success_rate) == (4, 4, 0.5)
    assert found.p95_ms is not None
    assert found.average_bytes is not None
    assert found.average_bytes > 200
    assert (none.calls, none.success_rate, none.p95_ms) == (0, None, None)
