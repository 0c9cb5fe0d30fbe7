"""Cleanup: on both sides alike, and nothing that somebody still needs."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from config.settings import Settings
from db import partitions
from db.ids import first_id_at
from db.session import Database
from tenantsync.calendars import connecting
from tenantsync.retention import service
from tenantsync.schedule.occurrences import OccurrenceLost, Unfinished
from tests.support.fleet import TenantHandle
from tests.support.mirror import (
    MirrorSide,
    assert_mirror_equals_postgres,
    outbox,
    plant_calendar,
    plant_events,
    plant_tenant,
)
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.supabase_proxy import Trouble

pytest_plugins = ["tests.support.supabase_fixtures"]

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

TOMBSTONES = text("""
with dead as (
  insert into sync.tombstones (event_id, tenant_id, calendar_id, provider_key, version, deleted_at)
  select gen_random_uuid(), :tenant, :calendar, gen_random_uuid()::text, nextval('mirror.version'),
         now() - cast(:oldest as interval) + i * cast(:step as interval)
    from generate_series(0, :number - 1) i
  returning event_id, version)
insert into mirror.outbox (tenant_id, entity, row_id, version)
select :tenant, 'events', event_id, version from dead
""")


@pytest.fixture
def cleanup(database: Database, mirror: MirrorSide, settings: Settings) -> Callable[[], dict[str, int]]:
    return lambda: service.cleanup(database, mirror.supabase, settings)


@pytest.fixture
def rows(database: Database) -> Callable[..., list[Any]]:
    def look(query: str, **parameters: Any) -> list[Any]:
        with database.reading() as connection:
            return list(connection.execute(text(query), parameters).all())

    return look


@pytest.fixture
def run(database: Database) -> Callable[..., None]:
    def execute(statement: str, **parameters: Any) -> None:
        with database.transaction() as connection:
            connection.execute(text(statement), parameters)

    return execute


@pytest.fixture
def acme(database: Database) -> TenantHandle:
    return plant_tenant(database, "acme")


@pytest.fixture
def calendar(database: Database, acme: TenantHandle) -> UUID:
    return plant_calendar(database, acme)


@pytest.fixture
def bury(database: Database, acme: TenantHandle, calendar: UUID) -> Callable[..., None]:
    """Makes tombstones of acme's that wait for Supabase."""

    def make(oldest: str, *, number: int = 1, step: str = "0") -> None:
        with database.transaction() as connection:
            connection.execute(
                TOMBSTONES,
                {"tenant": acme.tenant_id, "calendar": calendar, "oldest": oldest, "number": number, "step": step},
            )
            connection.execute(text("update mirror.turns set ready_at = now()"))

    return make


Cleanup = Callable[[], dict[str, int]]
Rows = Callable[..., list[Any]]
Run = Callable[..., None]


def test_cleanup_that_cannot_reach_supabase_does_the_rest_and_says_so(
    cleanup: Cleanup, mirror: MirrorSide, rows: Rows, run: Run
) -> None:
    run("insert into worker.workers (worker_id, queues, slots, heartbeat_at) values ('x', '{}', 1, '2026-01-01')")
    mirror.proxy.trouble(Trouble(status=503))

    with pytest.raises(Unfinished, match="http_503") as unfinished:
        cleanup()

    assert unfinished.value.result["workers"] == 1
    assert rows("select * from worker.workers") == []


def test_cleanup_that_somebody_else_took_over_stops_at_its_next_step(
    database: Database, mirror: MirrorSide, settings: Settings, rows: Rows, run: Run
) -> None:
    run("insert into worker.workers (worker_id, queues, slots, heartbeat_at) values ('x', '{}', 1, '2026-01-01')")

    def taken() -> None:
        raise OccurrenceLost

    with pytest.raises(OccurrenceLost):
        service.cleanup(database, mirror.supabase, settings, step=taken)

    assert len(rows("select * from worker.workers")) == 1


# Tombstones


def test_tombstones_go_on_both_sides_when_their_time_is_over(
    database: Database, mirror: MirrorSide, cleanup: Cleanup, bury: Callable[..., None], rows: Rows
) -> None:
    bury("31 days", number=3)
    bury("29 days", number=2)
    mirror.drain(database)

    result = cleanup()

    assert (result["tombstones"], result["mirror_tombstones"]) == (3, 3)
    assert len(rows("select * from sync.tombstones")) == 2
    assert_mirror_equals_postgres(database, mirror)


def test_both_sides_throw_away_the_same_tombstones(
    database: Database, mirror: MirrorSide, cleanup: Cleanup, bury: Callable[..., None]
) -> None:
    bury("30 days 1 second", number=6_000, step="1 ms")
    mirror.drain(database)

    cleanup()

    assert_mirror_equals_postgres(database, mirror)


def test_a_tombstone_that_still_waits_in_the_outbox_stays(
    database: Database, mirror: MirrorSide, cleanup: Cleanup, bury: Callable[..., None], rows: Rows
) -> None:
    bury("90 days")

    cleanup()

    assert len(rows("select * from sync.tombstones")) == len(
        rows("select * from mirror.outbox where entity = 'events'")
    )
    mirror.drain(database)
    assert_mirror_equals_postgres(database, mirror)


def test_a_tombstone_that_supabase_refused_stays_until_it_has_arrived(
    database: Database, cleanup: Cleanup, bury: Callable[..., None], rows: Rows, run: Run
) -> None:
    bury("90 days")
    run("""
        insert into mirror.parked_rows (tenant_id, entity, row_id, version, reason)
        select tenant_id, entity, row_id, version, 'refused' from mirror.outbox where entity = 'events'
    """)
    run("delete from mirror.outbox")

    cleanup()

    assert len(rows("select * from sync.tombstones")) == 1


def test_what_was_disconnected_long_ago_is_the_same_on_both_sides(
    database: Database, mirror: MirrorSide, acme: TenantHandle, calendar: UUID, cleanup: Cleanup, rows: Rows, run: Run
) -> None:
    plant_events(database, acme, calendar, 3)
    (account,) = rows("select account_id from sync.accounts")
    connecting.disconnect(database, tenant_id=acme.tenant_id, account_id=account.account_id)
    for table in ("accounts", "calendars", "tombstones"):
        run(f"update sync.{table} set deleted_at = now() - interval '40 days'")
    mirror.drain(database)

    cleanup()

    assert outbox(database) == {}
    assert_mirror_equals_postgres(database, mirror)


def test_many_tombstones_go_in_one_cleanup(
    mirror: MirrorSide, cleanup: Cleanup, bury: Callable[..., None], rows: Rows, run: Run
) -> None:
    bury("40 days", number=25_000)
    run("delete from mirror.outbox")

    result = cleanup()

    assert result["tombstones"] == 25_000
    assert rows("select * from sync.tombstones") == []


# History


def test_history_goes_by_whole_months_and_the_next_months_are_made(
    database: Database, cleanup: Cleanup, rows: Rows
) -> None:
    now = datetime.now(UTC)
    with database.transaction() as connection:
        partitions.ensure_ahead(connection, now=now - timedelta(days=200), months=0)
        partitions.ensure_ahead(connection, now=now - timedelta(days=80), months=0)

    cleanup()

    names = {row.name for row in rows("select inhrelid::regclass::text as name from pg_inherits")}
    assert f"worker.tasks_{now - timedelta(days=200):%Y_%m}" not in names
    assert f"worker.tasks_{now - timedelta(days=80):%Y_%m}" in names
    assert f"worker.tasks_{now + timedelta(days=70):%Y_%m}" in names


def test_history_of_a_month_that_is_not_over_altogether_stays(
    database: Database, settings: Settings, cleanup: Cleanup, rows: Rows, run: Run
) -> None:
    edge = datetime.now(UTC) - settings.retention_history - timedelta(hours=1)
    with database.transaction() as connection:
        partitions.ensure_ahead(connection, now=edge, months=0)
    month_ends = (edge.replace(day=1, hour=0, minute=0) + timedelta(days=32)).replace(day=1)
    run("insert into worker.tasks (id, kind) values (:id, 'old')", id=first_id_at(month_ends - timedelta(seconds=1)))

    cleanup()

    assert len(rows("select * from worker.tasks where kind = 'old'")) == 1


def test_occurrences_may_be_forgotten_once_their_history_is(cleanup: Cleanup, rows: Rows, run: Run) -> None:
    key = "insert into worker.task_keys (key, task_id, created_at) values (:key, gen_random_uuid(), now() - :age)"
    run(key, key="old", age=timedelta(days=91))
    run(key, key="young", age=timedelta(days=89))

    cleanup()

    keys = {row.key for row in rows("select key from worker.task_keys")}
    assert "young" in keys
    assert "old" not in keys


def test_a_key_guards_for_as_long_as_its_entry_may_come_back_to_it(cleanup: Cleanup, rows: Rows, run: Run) -> None:
    run("""
        insert into worker.schedules (entry, kind, every, policy, last_tick) values
          ('seldom', 'k.seldom', '200 days', 'latest', now() - interval '120 days'),
          ('often', 'k.often', '1 hour', 'latest', now())
    """)
    key = "insert into worker.task_keys (key, task_id, created_at) values (:key, gen_random_uuid(), now() - :age)"
    run(key, key="seldom@a", age=timedelta(days=120))
    run(key, key="seldom@b", age=timedelta(days=220))
    run(key, key="often@a", age=timedelta(days=120))
    run(key, key="often@b", age=timedelta(days=80))

    cleanup()

    keys = {row.key for row in rows("select key from worker.task_keys")}
    assert keys == {"seldom@a", "often@b"}


def test_occurrences_that_wait_are_the_ticks_to_close(cleanup: Cleanup, rows: Rows, run: Run) -> None:
    run(
        "insert into worker.tasks (id, kind, status, lease_until, due_at)"
        " values (:id, 'metrics.collect', 'pending', now() - interval '2 hours', now() - interval '2 hours')",
        id=first_id_at(datetime.now(UTC)),
    )

    cleanup()

    assert [row.status for row in rows("select status from worker.tasks")] == ["pending"]


@pytest.mark.parametrize(
    ("status", "lease", "after"),
    [
        ("processing", "now() - interval '2 minutes'", "superseded"),
        ("pending", "now() - interval '2 minutes'", "superseded"),
        ("processing", "now() + interval '5 seconds'", "processing"),
        ("processing", "now() - interval '5 seconds'", "processing"),
        ("completed", "now() - interval '2 minutes'", "completed"),
        ("failed", "now() - interval '2 minutes'", "failed"),
    ],
)
def test_work_whose_worker_is_gone_is_closed_in_the_ledger(
    cleanup: Cleanup, rows: Rows, run: Run, status: str, lease: str, after: str
) -> None:
    run(
        f"insert into worker.tasks (id, kind, status, lease_until) values (:id, 'sync.batch', :status, {lease})",
        id=first_id_at(datetime.now(UTC)),
        status=status,
    )

    cleanup()

    assert [row.status for row in rows("select status from worker.tasks where kind = 'sync.batch'")] == [after]


def test_workers_and_cooldowns_of_the_past_are_forgotten(cleanup: Cleanup, rows: Rows, run: Run) -> None:
    for name, age in (("gone", "11 minutes"), ("late", "9 minutes")):
        run(
            "insert into worker.workers (worker_id, queues, slots, heartbeat_at)"
            " values (:name, '{}', 1, now() - cast(:age as interval))",
            name=name,
            age=age,
        )
    for name, until in (("over", "-2 hours"), ("just over", "-1 minute"), ("closed", "1 minute")):
        run(
            "insert into sync.cooldowns (scope, scope_id, until, reason)"
            " values ('account', :name, now() + cast(:until as interval), 'r')",
            name=name,
            until=until,
        )

    cleanup()

    assert [row.worker_id for row in rows("select worker_id from worker.workers")] == ["late"]
    assert {row.scope_id for row in rows("select scope_id from sync.cooldowns")} == {"just over", "closed"}


# Leftovers and repairs


@pytest.mark.parametrize(
    ("unit", "stays"),
    [
        ("state = 'running', fence = 7, lease_until = now() + interval '5 seconds'", True),
        ("state = 'running', fence = 8, lease_until = now() + interval '5 seconds'", False),
        ("state = 'dispatched', fence = 8, lease_until = now() + interval '5 seconds'", False),
        ("state = 'idle', fence = 7, lease_until = null", False),
    ],
    ids=["its run goes on", "a newer run goes on", "a newer run is on its way", "its run is over"],
)
def test_staged_rows_stay_for_as_long_as_their_run_does(
    acme: TenantHandle, calendar: UUID, cleanup: Cleanup, rows: Rows, run: Run, unit: str, stays: bool
) -> None:
    run("update sync.units set state = 'dispatched'")
    run(f"update sync.units set {unit} ")
    run(
        "insert into sync.staged_events (calendar_id, fence, seq, kind, resource)"
        " select :calendar, 7, i, 'u', i::text from generate_series(1, 20) i",
        calendar=calendar,
    )

    cleanup()

    assert bool(rows("select 1 from sync.staged_events")) is stays


def test_a_tenant_whose_turn_was_lost_is_woken(
    acme: TenantHandle, calendar: UUID, cleanup: Cleanup, rows: Rows, run: Run
) -> None:
    run("update sync.units set next_due_at = now() - interval '1 minute'")
    run("update sync.turns set ready_at = 'infinity'")

    result = cleanup()

    assert result["turns_repaired"] == 1
    woken = rows("select lane from sync.turns where ready_at <= now()")
    assert [row.lane for row in woken] == [row.lane for row in rows("select lane from sync.units")]


def test_a_tenant_whose_turn_comes_later_for_a_reason_is_left_alone(
    acme: TenantHandle, calendar: UUID, cleanup: Cleanup, rows: Rows, run: Run
) -> None:
    run("update sync.units set next_due_at = now() + interval '1 hour'")
    run("update sync.turns t set ready_at = u.next_due_at from sync.units u where t.lane = u.lane")

    result = cleanup()

    assert result["turns_repaired"] == 0
    assert rows("select 1 from sync.turns where ready_at <= now()") == []


def test_a_tenant_that_the_mirror_forgot_is_woken(
    database: Database, mirror: MirrorSide, calendar: UUID, cleanup: Cleanup, run: Run
) -> None:
    run("update mirror.outbox set queued_at = now() - interval '10 minutes'")
    run("update mirror.turns set ready_at = 'infinity'")

    result = cleanup()

    assert result["mirror_turns_repaired"] == 1
    mirror.drain(database)
    assert_mirror_equals_postgres(database, mirror)


def test_in_a_healthy_fleet_there_is_nothing_to_repair(
    database: Database, mirror: MirrorSide, calendar: UUID, cleanup: Cleanup
) -> None:
    mirror.drain(database)

    result = cleanup()

    assert (result["turns_repaired"], result["mirror_turns_repaired"]) == (0, 0)
