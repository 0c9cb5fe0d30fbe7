"""Readings: what they count is so, and they are written as often as is said."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from config.queues import Lane
from db.ids import new_id
from db.repositories import ledger
from db.session import Database
from sandbox.google.control import GoogleControl
from sandbox.google.specs import Fault, SeedSpec
from tenantsync.metrics import service
from tests.support.fleet import Fleet, TenantHandle
from tests.support.mirror import plant_calendar

ANN, BOB = "ann@example.test", "bob@example.test"
QUEUES = {"sync": 3, "bulk": 0}


@pytest.fixture
def collect(fleet: Fleet) -> Callable[[], int]:
    """Takes every reading once; returns the rows written."""

    def take() -> int:
        counted = service.collect(fleet.database, fleet.database, QUEUES)
        return counted["rows"] + service.freshness(fleet.database, fleet.database)["tenants"]

    return take


@pytest.fixture
def readings(fleet: Fleet, collect: Callable[[], int]) -> Callable[[str], list[dict[str, Any]]]:
    """One collection; its rows of a scope."""

    def take(scope: str) -> list[dict[str, Any]]:
        collect()
        return fleet.rows("select * from worker.system_metrics where scope = :scope order by worker_id", scope=scope)

    return take


@pytest.fixture
def beat(fleet: Fleet) -> Callable[[str], None]:
    """A worker says that it lives."""

    def say(worker: str) -> None:
        reading = {"slots": 4, "cpu": 999.99, "memory": 12.5, "active": 2, "now": datetime.now(UTC)}
        with fleet.database.statement() as connection:
            ledger.heartbeat(connection, worker=worker, queues=["sync", "bulk"], reading=reading)

    return say


@pytest.fixture
def acme(fleet: Fleet, google: GoogleControl) -> TenantHandle:
    tenant = fleet.tenant("acme")
    account = google.create_account(ANN)
    google.seed(ANN, ANN, SeedSpec(events=12, series_every=0))
    fleet.google(tenant, google, account=account)
    fleet.run()
    return tenant


Readings = Callable[[str], list[dict[str, Any]]]


def test_every_worker_has_a_row(readings: Readings, beat: Callable[[str], None]) -> None:
    beat("celery@one")
    beat("celery@two")

    found = readings("worker")

    assert [row["worker_id"] for row in found] == ["celery@one", "celery@two"]
    assert (float(found[0]["cpu_usage"]), float(found[0]["memory_usage"])) == (999.99, 12.5)
    assert found[0]["active_tasks"] == 2
    assert found[0]["details"]["queues"] == ["sync", "bulk"]
    assert abs(found[0]["details"]["clock_skew_ms"]) < 10_000_000


def test_the_fleet_has_one_row_even_when_it_is_empty(readings: Readings) -> None:
    (fleet_row,) = readings("fleet")

    apart = ("queues", "deliveries")
    counted = {name: value for name, value in fleet_row["details"].items() if name not in apart}
    assert set(counted.values()) == {0}
    assert (fleet_row["details"]["deliveries"]["calls"], fleet_row["details"]["deliveries"]["success_rate"]) == (
        0,
        None,
    )
    assert fleet_row["details"]["queues"] == QUEUES


def test_what_is_in_step_is_counted(fleet: Fleet, acme: TenantHandle, readings: Readings) -> None:
    (row,) = readings("fleet")

    details = row["details"]
    assert (details["tenants"], details["units"], details["due"], details["in_flight"]) == (1, 1, 0, 0)
    assert details["events"] == 12
    assert details["outbox"] == 16  # events, account, calendar; its first sync as a process, and that one's events
    assert details["oldest_unsent"] >= 0
    assert details["api_calls"] == fleet.calendar(acme)["api_calls"] > 0
    assert details["bytes_in"] == fleet.calendar(acme)["bytes_in"] > 0


def test_what_is_due_and_how_long_it_has_been_is_counted(fleet: Fleet, acme: TenantHandle, readings: Readings) -> None:
    fleet.execute("update sync.units set next_due_at = now() - interval '90 seconds'")

    (row,) = readings("fleet")

    assert row["details"]["due"] == 1
    assert 90 <= row["details"]["oldest_due"] < 150


def test_what_is_in_flight_is_counted(fleet: Fleet, acme: TenantHandle, readings: Readings) -> None:
    fleet.due()
    fleet.claim(Lane.SYNC)

    (row,) = readings("fleet")

    assert (row["details"]["in_flight"], row["active_tasks"], row["details"]["due"]) == (1, 1, 0)


def test_batches_that_are_not_closed_are_counted_and_how_old_they_are(fleet: Fleet, readings: Readings) -> None:
    with fleet.database.transaction() as connection:
        ledger.open_batches(connection, lane=Lane.SYNC, sizes=[(new_id(), 3), (new_id(), 4)])
    fleet.execute("update worker.tasks set created_at = now() - interval '2 minutes'")

    (row,) = readings("fleet")

    assert row["details"]["open_batches"] == 2
    assert 120 <= row["details"]["oldest_batch"] < 180


def test_what_waits_for_supabase_and_how_long_it_has_is_counted(
    fleet: Fleet, acme: TenantHandle, readings: Readings
) -> None:
    fleet.execute("update mirror.outbox set queued_at = now() - interval '5 minutes'")

    (row,) = readings("fleet")

    assert 300 <= row["details"]["oldest_unsent"] < 360


def test_trouble_is_counted(fleet: Fleet, google: GoogleControl, acme: TenantHandle, readings: Readings) -> None:
    other = fleet.tenant("other")
    fleet.google(other, google, account=google.create_account(BOB))
    fleet.run()
    google.add_poison(ANN, ANN, "year_zero")
    fleet.sync(acme)
    google.add_fault(Fault(kind="status", status=503, account=ANN, times=None))
    google.revoke_grant(BOB)
    fleet.sync()
    fleet.execute(
        "insert into mirror.parked_rows values (:t, 'events', gen_random_uuid(), 1, '23514', 'r')", t=acme.tenant_id
    )

    (row,) = readings("fleet")

    wanted = ("set_aside", "needs_reauth", "failing_calendars", "parked_rows", "parked_units")
    assert {name: row["details"][name] for name in wanted} == {
        "set_aside": 1,
        "needs_reauth": 1,
        "failing_calendars": 2,
        "parked_rows": 1,
        "parked_units": 0,
    }


def test_what_incremental_sync_saved_is_counted(fleet: Fleet, acme: TenantHandle, readings: Readings) -> None:
    fleet.sync()

    (row,) = readings("fleet")

    assert row["details"]["saved_bytes"] > 0


@pytest.fixture
def replica(fleet: Fleet) -> Iterator[Database]:
    """The same database through connections that refuse to write."""
    read_only = f"{fleet.settings.database_url}?options=-c%20default_transaction_read_only%3Don"
    opened = Database(read_only, pool_size=1, name="replica")
    yield opened
    opened.close()


def test_a_replica_is_read_and_never_written(fleet: Fleet, acme: TenantHandle, replica: Database) -> None:
    service.collect(fleet.database, replica, QUEUES)
    service.freshness(fleet.database, replica)

    assert len(fleet.rows("select 1 from worker.system_metrics")) == 2


# Freshness


def test_every_tenants_freshness_is_written(fleet: Fleet, acme: TenantHandle, readings: Readings) -> None:
    fleet.execute("update sync.calendars set last_success_at = now() - interval '10 minutes'")

    (row,) = readings("tenant")

    assert row["tenant_id"] == acme.tenant_id
    assert (row["details"]["calendars"], row["details"]["failing"]) == (1, 0)
    assert 600 <= row["details"]["stalest"] < 660
    assert 600 <= row["details"]["median"] < 660


def test_a_calendar_that_never_succeeded_is_as_stale_as_it_is_old(fleet: Fleet, readings: Readings) -> None:
    plant_calendar(fleet.database, fleet.tenant())
    fleet.execute("update sync.calendars set created_at = now() - interval '1 hour'")

    (row,) = readings("tenant")

    assert 3600 <= row["details"]["stalest"] < 3660


def test_the_stalest_calendar_does_not_hide_behind_the_median(fleet: Fleet, readings: Readings) -> None:
    acme = fleet.tenant()
    for _ in range(3):
        plant_calendar(fleet.database, acme)
    fleet.execute("update sync.calendars set last_success_at = now()")
    fleet.execute(
        "update sync.calendars set last_success_at = now() - interval '1 day'"
        " where calendar_id = (select calendar_id from sync.calendars order by calendar_id limit 1)"
    )

    (row,) = readings("tenant")

    assert row["details"]["stalest"] >= 86_400
    assert row["details"]["median"] < 60


def test_a_tenant_that_has_to_connect_again_is_not_called_stale(
    fleet: Fleet, google: GoogleControl, acme: TenantHandle, readings: Readings
) -> None:
    google.revoke_grant(ANN)
    fleet.sync()

    assert readings("tenant") == []


def test_freshness_of_more_tenants_than_a_page_holds_misses_none(fleet: Fleet, collect: Callable[[], int]) -> None:
    plant_calendar(fleet.database, fleet.tenant())
    fleet.execute("""
        with t as (
          insert into sync.tenants (tenant_id, name)
          select gen_random_uuid(), 'many-' || i from generate_series(1, 2100) i returning tenant_id),
        w as (
          insert into sync.workspaces (workspace_id, tenant_id, name) select gen_random_uuid(), tenant_id, 'o' from t
          returning workspace_id, tenant_id),
        m as (insert into mirror.turns (tenant_id) select tenant_id from t),
        a as (
          insert into sync.accounts (account_id, tenant_id, workspace_id, provider, identity)
          select gen_random_uuid(), tenant_id, workspace_id, 'google', 'x' from w
          returning account_id, tenant_id, workspace_id)
        insert into sync.calendars (calendar_id, tenant_id, workspace_id, account_id, provider_key)
        select gen_random_uuid(), tenant_id, workspace_id, account_id, 'k' from a
    """)

    assert collect() == 1 + 2101
    written = fleet.one("select count(distinct tenant_id) as n from worker.system_metrics where scope = 'tenant'")
    assert written["n"] == 2101


def test_readings_lie_in_the_partition_of_their_month(fleet: Fleet, readings: Readings) -> None:
    readings("fleet")

    (row,) = fleet.rows("select tableoid::regclass::text as place from worker.system_metrics")
    assert row["place"].startswith("worker.system_metrics_20")
