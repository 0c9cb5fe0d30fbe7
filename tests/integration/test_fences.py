"""The guards one by one, each tried where nothing else would catch what it lets through (`make guards`)."""

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from config.queues import Lane
from config.timetable import Entry
from db.ids import new_id
from db.repositories import mirroring, schedules, units
from db.repositories.units import ClaimedUnit
from db.session import Database
from sandbox import supabase_migrations
from sandbox.google.control import GoogleControl
from sandbox.servers.postgres import Postgres
from tenantsync.schedule import service as schedule
from tests.support.fleet import Fleet, TenantHandle
from tests.support.mirror import plant_calendar, plant_tenant
from tests.support.plain_supabase import hosted
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures

LEASE = timedelta(seconds=30)
LOST = "update sync.units set lease_until = now() - interval '1 second' where lease_until is not null"
UNIT = "select state, fence, worker_id, lease_until, next_due_at from sync.units"

Start = Callable[[ClaimedUnit], list[units.StartedUnit]]


@pytest.fixture
def acme(fleet: Fleet, google: GoogleControl) -> TenantHandle:
    """A tenant with one synced calendar, due again."""
    tenant = fleet.tenant()
    fleet.google(tenant, google)
    fleet.run()
    fleet.due()
    return tenant


@pytest.fixture
def start(database: Database) -> Start:
    def begin(unit: ClaimedUnit) -> list[units.StartedUnit]:
        with database.statement() as connection:
            pairs = [(unit.unit_id, unit.fence)]
            return units.start(connection, batch_id=new_id(), units=pairs, worker="worker-2", lease=LEASE)

    return begin


@pytest.fixture
def stale(fleet: Fleet, acme: TenantHandle, start: Start) -> ClaimedUnit:
    """A run that lost its lease, while a newer one of the same unit is under way."""
    (old,) = fleet.claim(Lane.SYNC)
    start(old)
    fleet.execute(LOST)
    fleet.due()
    fleet.claim(Lane.SYNC)
    (new,) = fleet.claim(Lane.QUARANTINE)
    start(new)
    assert new.fence > old.fence
    return old


def test_a_stale_run_takes_no_fence(fleet: Fleet, stale: ClaimedUnit) -> None:
    before = fleet.one(UNIT)

    with fleet.database.transaction() as connection:
        taken = units.take_fence(
            connection, tenant_id=stale.tenant_id, unit_id=stale.unit_id, fence=stale.fence, lease=timedelta(minutes=9)
        )

    assert not taken
    assert fleet.one(UNIT) == before


def test_a_stale_run_ends_no_newer_one(fleet: Fleet, stale: ClaimedUnit) -> None:
    before = fleet.one(UNIT)
    run: dict[str, Any] = {"unit_id": stale.unit_id, "fence": stale.fence, "outcome": "quiet", "task_id": None}

    with fleet.database.transaction() as connection:
        ended = units.finish(connection, runs=[run], calendars=[])

    assert ended == set()
    assert fleet.one(UNIT) == before


def test_a_stale_run_renews_nobodys_lease_and_hears_of_it(fleet: Fleet, stale: ClaimedUnit) -> None:
    before = fleet.one(UNIT)

    with fleet.database.statement() as connection:
        pairs = [(stale.unit_id, stale.fence)]
        lost = units.renew(connection, units=pairs, batches=[], lease=timedelta(minutes=9))

    assert lost == {stale.unit_id}
    assert fleet.one(UNIT) == before


def test_a_stale_run_hands_back_nothing(fleet: Fleet, stale: ClaimedUnit) -> None:
    before = fleet.one(UNIT)

    with fleet.database.statement() as connection:
        returned = units.hand_back(connection, units=[(stale.unit_id, stale.fence)])

    assert returned == set()
    assert fleet.one(UNIT) == before


def test_a_message_whose_unit_was_claimed_anew_starts_nothing(fleet: Fleet, acme: TenantHandle, start: Start) -> None:
    (late,) = fleet.claim(Lane.SYNC)
    fleet.execute(LOST)
    fleet.due()
    (current,) = fleet.claim(Lane.SYNC)

    started = start(late)

    assert started == []
    assert (fleet.unit(acme)["state"], fleet.unit(acme)["fence"]) == ("dispatched", current.fence)


def test_a_unit_that_was_dispatched_is_not_claimed_before_its_time_to_start_is_over(
    fleet: Fleet, acme: TenantHandle
) -> None:
    first = fleet.claim(Lane.SYNC)
    fleet.due()

    second = fleet.claim(Lane.SYNC)

    assert (len(first), len(second)) == (1, 0)


def test_a_tenant_that_is_being_sent_is_not_leased_again_when_it_wakes(database: Database) -> None:
    tenant = plant_tenant(database, "acme")
    calendar = plant_calendar(database, tenant)
    with database.statement() as connection:
        held = mirroring.lease_tenants(connection, limit=10, lease=LEASE)
    with database.transaction() as connection:
        connection.exec_driver_sql("update sync.calendars set name = 'woken' where calendar_id = %s", (calendar,))

    with database.statement() as connection:
        second = mirroring.lease_tenants(connection, limit=10, lease=LEASE)

    assert (len(held), second) == (1, [])


def test_an_occurrence_is_not_ended_by_an_attempt_that_lost_it(database: Database) -> None:
    timetable, sent = {"job": Entry("test.job", every=timedelta(days=1), policy="latest")}, []
    tick = functools.partial(schedule.tick, database, lambda _, occurrence: sent.append(occurrence), timetable)
    tick()
    with database.transaction() as connection:
        connection.exec_driver_sql("update worker.schedules set last_tick = now() - interval '2 days'")
    tick()
    (occurrence,) = sent
    attempts = []
    for worker in ("lost", "newer"):
        with database.transaction() as connection:
            attempts.append(schedules.begin(connection, occurrence=occurrence, worker=worker, lease=timedelta(0)))
    lost, newer = attempts
    assert lost is not None
    assert newer is not None

    with database.transaction() as connection:
        ended = [schedules.end(connection, begun=one, result=None, error=None) for one in (lost, newer, newer)]

    assert ended == [False, True, False]


@pytest.mark.parametrize("entity", ["accounts", "calendars", "events"])
def test_the_function_at_supabase_refuses_old_versions_without_the_trigger(postgres: Postgres, entity: str) -> None:
    project = hosted(postgres)
    supabase_migrations.apply(project.url)
    table, row = f"public.{'calendar_' if entity != 'calendars' else ''}{entity}", ROWS[entity]
    project.execute(f"alter table {table} disable trigger user")
    project.apply(entity, [row | {"version": 5, "provider_key": "new", "identity": "new"}])

    project.apply(entity, [row | {"version": 4, "provider_key": "old", "identity": "old"}])

    shown = project.rows(f"select version from {table}")
    postgres.drop_database(project.name)
    assert [one["version"] for one in shown] == [5]


_IDS = {name: str(new_id()) for name in ("id", "tenant_id", "workspace_id", "calendar_id", "account_id")}
ROWS: dict[str, dict[str, Any]] = {
    "accounts": {**_IDS, "provider": "google", "state": "connected"},
    "calendars": {**_IDS, "name": "main", "state": "synced"},
    "events": {**_IDS, "status": "confirmed", "all_day": False},
}
