"""Units whose worker died are tried alone; the one that kills is found and parked, and the others go on.

A worker's death is played by taking units and never finishing them: to the database that is all a death is.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from config.queues import Lane
from db.ids import new_id
from db.repositories import ledger, units
from db.repositories.units import CRASH_LIMIT, ClaimedUnit
from sandbox.google.control import GoogleControl
from sandbox.google.specs import Fault
from tenantsync.dispatching import isolation
from tenantsync.dispatching import service as dispatching
from tests.support.crowd import MANY, Crowd
from tests.support.fleet import Fleet, TenantHandle, events_equal_truth
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.waiting import wait_until

pytest_plugins = ["tests.support.crowd_fixtures"]

LANES = "select lane, state, count(*) as n from sync.units group by lane, state order by lane, state"
PASS_TIME = "update sync.units set lease_until = now() - interval '1 second' where lease_until is not null"
TAKE_TURNS = "update sync.turns set ready_at = least(ready_at, now())"
PARKED = "select unit_id, parked_reason from sync.units where state = 'parked'"
CRASHES = "select distinct crashes from sync.units"
QUARANTINED = "select unit_id from sync.units where lane = 'quarantine'"

Doom = Callable[[Sequence[ClaimedUnit]], None]


@pytest.fixture
def begin(fleet: Fleet) -> Doom:
    """A worker starts units, as it does before it begins to work on them, and is not heard of again."""

    def start(claimed: Sequence[ClaimedUnit]) -> None:
        with fleet.database.statement() as connection:
            units.start(
                connection,
                batch_id=new_id(),
                units=[(unit.unit_id, unit.fence) for unit in claimed],
                worker="doomed",
                lease=timedelta(seconds=1),
            )

    return start


@pytest.fixture
def doom(fleet: Fleet, begin: Doom) -> Doom:
    """The same, and the time until its leases have ended is over."""

    def end(claimed: Sequence[ClaimedUnit]) -> None:
        begin(claimed)
        fleet.execute(PASS_TIME)
        fleet.execute(TAKE_TURNS)

    return end


@pytest.fixture
def suspects(fleet: Fleet, crowd: Crowd, doom: Doom) -> Crowd:
    """Many tenants whose units ran in one batch when its worker died."""
    fleet.due()
    doom(fleet.claim(Lane.SYNC))
    fleet.claim(Lane.SYNC)
    return crowd


def test_units_whose_worker_died_wait_in_quarantine(fleet: Fleet, crowd: Crowd, doom: Doom) -> None:
    fleet.due()
    doom(fleet.claim(Lane.SYNC))

    again = fleet.claim(Lane.SYNC)

    assert again == []
    assert fleet.rows(LANES) == [{"lane": "quarantine", "state": "idle", "n": MANY}]


def test_units_that_the_dead_worker_had_not_begun_are_no_suspects(fleet: Fleet, crowd: Crowd, doom: Doom) -> None:
    fleet.due()
    claimed = fleet.claim(Lane.SYNC)
    doom(claimed[:10])

    again = fleet.claim(Lane.SYNC)

    assert {unit.unit_id for unit in again} == {unit.unit_id for unit in claimed[10:]}
    assert {row["unit_id"] for row in fleet.rows(QUARANTINED)} == {unit.unit_id for unit in claimed[:10]}


def test_recovery_from_a_death_begins_within_ten_seconds(fleet: Fleet, crowd: Crowd, begin: Doom) -> None:
    fleet.due()
    begin(fleet.claim(Lane.SYNC))
    died = time.monotonic()

    wait_until(lambda: fleet.claim(Lane.SYNC) or fleet.claim(Lane.QUARANTINE), about="the recovery")

    assert time.monotonic() - died < 10


def test_in_quarantine_units_that_died_in_company_twice_travel_alone(fleet: Fleet, suspects: Crowd, doom: Doom) -> None:
    doom(fleet.claim(Lane.QUARANTINE))
    fleet.claim(Lane.QUARANTINE)
    fleet.execute(TAKE_TURNS)
    sent: list[tuple[Lane, int]] = []
    reading = {"slots": 2 * MANY, "cpu": 0, "memory": 0, "active": 0, "now": datetime.now(UTC)}
    with fleet.database.transaction() as connection:
        ledger.heartbeat(connection, worker="worker-1", queues=["quarantine"], reading=reading)

    handed = dispatching.dispatch(
        fleet.database, lambda lane, _, batch: sent.append((lane, len(batch))), batch_size=200, budget=0.0
    )

    assert handed == MANY
    assert sent == [(Lane.QUARANTINE, 1)] * MANY


def test_in_quarantine_units_that_died_in_company_once_are_tried_again_in_small_company(
    fleet: Fleet, suspects: Crowd
) -> None:
    again = fleet.claim(Lane.QUARANTINE)

    assert [unit.alone for unit in again] == [False] * MANY


def test_a_success_in_quarantine_brings_the_unit_back_with_a_clean_slate(
    fleet: Fleet, google: GoogleControl, suspects: Crowd, doom: Doom
) -> None:
    doom(fleet.claim(Lane.QUARANTINE))
    fleet.claim(Lane.QUARANTINE)
    fleet.execute(TAKE_TURNS)
    crashes = fleet.rows(CRASHES)

    fleet.run_lane(Lane.QUARANTINE)

    assert fleet.rows(LANES) == [{"lane": "sync", "state": "idle", "n": MANY}]
    assert fleet.rows(CRASHES) == [{"crashes": 0}] == crashes
    for tenant, account in suspects:
        events_equal_truth(fleet, tenant, google, account.email, account.email)


def test_a_refusal_of_the_provider_is_no_crash(fleet: Fleet, google: GoogleControl, suspects: Crowd) -> None:
    google.revoke_grant(suspects[0][1].email)

    fleet.run_lane(Lane.QUARANTINE)

    assert fleet.rows(LANES) == [{"lane": "sync", "state": "idle", "n": MANY}]
    assert fleet.rows(CRASHES) == [{"crashes": 0}]
    assert fleet.account(suspects[0][0])["state"] == "needs_reauth"


def test_deaths_in_company_never_count_against_a_unit(fleet: Fleet, crowd: Crowd, doom: Doom) -> None:
    for _ in range(CRASH_LIMIT + 1):
        fleet.due()
        doom(fleet.claim(Lane.SYNC))
        fleet.claim(Lane.SYNC)
        fleet.run_lane(Lane.QUARANTINE)

    assert fleet.rows(PARKED) == []
    assert fleet.rows(CRASHES) == [{"crashes": 0}]


def test_the_unit_that_kills_is_parked_with_its_reason_and_all_others_go_on(
    fleet: Fleet, google: GoogleControl, suspects: Crowd, doom: Doom
) -> None:
    killer = suspects[7][0].workspace_id
    runs = 0

    doom(fleet.claim(Lane.QUARANTINE))
    fleet.claim(Lane.QUARANTINE)
    fleet.execute(TAKE_TURNS)
    for _ in range(CRASH_LIMIT + 2):
        claimed = fleet.claim(Lane.QUARANTINE)
        fatal = [unit for unit in claimed if unit.unit_id == killer]
        for unit in claimed:
            fleet.run_batch(Lane.QUARANTINE, [unit] * (unit.unit_id != killer))
        doom(fatal)
        runs += len(fatal)

    ((parked, reason),) = [(row["unit_id"], row["parked_reason"]) for row in fleet.rows(PARKED)]
    assert (parked, runs) == (killer, CRASH_LIMIT)
    assert "worker" in reason
    assert str(CRASH_LIMIT) in reason
    for tenant, account in suspects[:7] + suspects[8:]:
        events_equal_truth(fleet, tenant, google, account.email, account.email)
    assert len(fleet.rows("select 1 from sync.units where lane = 'sync' and crashes = 0")) == MANY - 1


def test_a_first_sync_that_kills_is_parked_too(fleet: Fleet, google: GoogleControl, doom: Doom) -> None:
    acme = fleet.tenant()
    fleet.google(acme, google)

    for _ in range(CRASH_LIMIT):
        for lane in (Lane.BULK, Lane.QUARANTINE):
            doom(fleet.claim(lane))
    fleet.run()

    assert fleet.unit(acme)["state"] == "parked"
    assert fleet.calendar(acme)["runs"] == 0


@pytest.fixture
def parked(fleet: Fleet, google: GoogleControl, doom: Doom) -> TenantHandle:
    """A tenant whose unit is parked although nothing is wrong with it."""
    acme, account = fleet.tenant(), google.create_account("ann@example.test")
    fleet.google(acme, google, account=account)
    fleet.run()
    fleet.execute("update sync.units set lane = 'quarantine', suspicions = 2")
    for _ in range(CRASH_LIMIT):
        fleet.due()
        fleet.execute(TAKE_TURNS)
        doom(fleet.claim(Lane.QUARANTINE))
    fleet.claim(Lane.QUARANTINE)
    return acme


def test_nothing_but_a_person_or_time_runs_a_parked_unit(
    fleet: Fleet, google: GoogleControl, parked: TenantHandle
) -> None:
    google.clear_requests()

    ran = fleet.sync()

    assert (ran, fleet.unit(parked)["state"]) == (0, "parked")
    assert google.requests() == []


def test_a_parked_unit_that_a_person_releases_is_tried_alone_and_comes_back(
    fleet: Fleet, google: GoogleControl, parked: TenantHandle
) -> None:
    google.churn(5)
    with fleet.database.transaction() as connection:
        released = units.release(connection, unit_id=parked.workspace_id)

    ran = [fleet.run_lane(lane) for lane in (Lane.SYNC, Lane.BULK, Lane.QUARANTINE)]

    assert (released, ran) == (True, [0, 0, 1])
    assert (fleet.unit(parked)["lane"], fleet.unit(parked)["crashes"], fleet.unit(parked)["parked_reason"]) == (
        "sync",
        0,
        None,
    )
    events_equal_truth(fleet, parked, google, "ann@example.test", "ann@example.test")


COOLED_OFF = "update sync.units set next_due_at = now() where state = 'parked'"


def test_after_its_cooling_off_time_a_parked_unit_is_tried_once_alone_and_comes_back(
    fleet: Fleet, google: GoogleControl, parked: TenantHandle
) -> None:
    google.churn(5)
    fleet.execute(COOLED_OFF)
    fleet.execute(TAKE_TURNS)

    (canary,) = fleet.claim(Lane.QUARANTINE)
    fleet.run_batch(Lane.QUARANTINE, [canary])

    unit = fleet.unit(parked)
    assert canary.alone
    assert (unit["state"], unit["lane"], unit["crashes"], unit["parked_reason"]) == ("idle", "sync", 0, None)
    events_equal_truth(fleet, parked, google, "ann@example.test", "ann@example.test")


def test_a_canary_that_dies_parks_its_unit_again_for_twice_as_long(
    fleet: Fleet, parked: TenantHandle, doom: Doom
) -> None:
    waits = "select round(extract(epoch from next_due_at - parked_at) / 60) as minutes from sync.units"
    first = fleet.one(waits)["minutes"]
    fleet.execute(COOLED_OFF)
    fleet.execute(TAKE_TURNS)

    doom(fleet.claim(Lane.QUARANTINE))
    again = fleet.claim(Lane.QUARANTINE)

    assert (again, fleet.unit(parked)["state"]) == ([], "parked")
    assert fleet.one(waits)["minutes"] == 2 * first


def test_a_parked_unit_is_released_once_however_many_operators_try(fleet: Fleet, parked: TenantHandle) -> None:
    def release() -> bool:
        with fleet.database.transaction() as connection:
            return units.release(connection, unit_id=parked.workspace_id)

    with ThreadPoolExecutor(4) as operators:
        released = [attempt.result() for attempt in [operators.submit(release) for _ in range(4)]]

    assert sorted(released) == [False, False, False, True]
    assert len(fleet.claim(Lane.QUARANTINE)) == 1


# The isolated lane


@pytest.fixture
def misbehaving(fleet: Fleet, google: GoogleControl, doom: Doom) -> TenantHandle:
    """A tenant whose units killed the workers that ran them alone, three times within the hour."""
    bad = fleet.tenant()
    fleet.google(bad, google, "bad@example.test")
    fleet.google(fleet.tenant(), google, "good@example.test")
    fleet.run()
    fleet.execute(
        "insert into sync.incidents (tenant_id, unit_id, lane)"
        " select tenant_id, unit_id, 'quarantine' from sync.units, generate_series(1, 3) where tenant_id = :tenant",
        tenant=bad.tenant_id,
    )
    return bad


def test_every_death_of_a_unit_that_ran_alone_is_an_incident(fleet: Fleet, parked: TenantHandle) -> None:
    incidents = fleet.rows("select tenant_id, unit_id, worker_id from sync.incidents")

    assert [row["unit_id"] for row in incidents] == [parked.workspace_id] * CRASH_LIMIT
    assert {row["worker_id"] for row in incidents} == {"doomed"}


def test_a_tenant_whose_units_kill_again_and_again_runs_apart_and_nobody_else_does(
    fleet: Fleet, misbehaving: TenantHandle
) -> None:
    done = isolation.isolate(fleet.database)
    fleet.due()

    apart, others = fleet.run_lane(Lane.ISOLATED), fleet.run_lane(Lane.SYNC)

    assert (done["isolated"], done["moved"]) == (1, 1)
    assert (apart, others) == (1, 1)
    assert fleet.unit(misbehaving)["lane"] == "isolated"


def test_a_run_under_way_when_its_tenant_is_isolated_is_moved_when_it_has_ended(
    fleet: Fleet, misbehaving: TenantHandle
) -> None:
    fleet.due()
    claimed = fleet.claim(Lane.SYNC)
    isolation.isolate(fleet.database)
    fleet.run_batch(Lane.SYNC, claimed)

    again = isolation.isolate(fleet.database)

    assert (again["isolated"], again["moved"]) == (0, 1)
    assert fleet.unit(misbehaving)["lane"] == "isolated"


def test_a_quiet_hour_brings_an_isolated_tenant_back(fleet: Fleet, misbehaving: TenantHandle) -> None:
    isolation.isolate(fleet.database)
    fleet.execute("update sync.incidents set happened_at = happened_at - interval '61 minutes'")
    fleet.execute("update sync.tenants set isolated_until = now() where isolated_until is not null")

    back = isolation.isolate(fleet.database)

    assert (back["freed"], back["moved"]) == (1, 1)
    assert fleet.sync(misbehaving) == 1
    assert fleet.unit(misbehaving)["lane"] == "sync"


def test_a_death_in_the_isolated_lane_counts_and_stays_there(
    fleet: Fleet, misbehaving: TenantHandle, doom: Doom
) -> None:
    isolation.isolate(fleet.database)
    fleet.due(misbehaving)
    for _ in range(CRASH_LIMIT):
        doom(fleet.claim(Lane.ISOLATED))
    fleet.claim(Lane.ISOLATED)

    unit = fleet.unit(misbehaving)

    assert (unit["lane"], unit["state"], unit["crashes"]) == ("isolated", "parked", CRASH_LIMIT)


def test_a_worker_that_is_told_to_stop_hands_its_units_back_and_none_is_a_suspect(
    fleet: Fleet, google: GoogleControl, crowd: Crowd
) -> None:
    leaving = Fleet(fleet.database, fleet.settings, worker="leaving")
    google.add_fault(Fault(kind="hang", times=None))
    fleet.due()
    leaving.run_lane(Lane.SYNC)
    google.clear_faults()
    running = fleet.rows(LANES)

    leaving.close()

    assert running == [{"lane": "sync", "state": "running", "n": MANY}]
    assert fleet.run_lane(Lane.SYNC) == MANY
    assert fleet.rows(LANES) == [{"lane": "sync", "state": "idle", "n": MANY}]
    assert fleet.rows(CRASHES) == [{"crashes": 0}]
    for tenant, account in crowd:
        events_equal_truth(fleet, tenant, google, account.email, account.email)
