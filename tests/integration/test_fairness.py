"""Turns across tenants: nobody waits for a stranger, and what a run costs is paid by whose run it was."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from config.queues import Lane
from db.repositories import tenants, units
from sandbox.google.control import GoogleControl
from sandbox.google.specs import Fault, SeedSpec
from tenantsync.dispatching import pausing
from tests.support.fleet import Fleet, TenantHandle, events_equal_truth
from tests.support.house import House, jain
from tests.support.waiting import wait_until

pytest_plugins = ["tests.support.house_fixtures"]

ANN = "ann@example.test"
IN_FLIGHT = "select count(*) from sync.units where tenant_id = :tenant and state in ('dispatched', 'running')"


class TestTurns:
    def test_a_tenant_with_one_unit_is_served_by_the_first_claim_whatever_stands_before_it(self, house: House) -> None:
        house.tenant("flood", due=2000, concurrency=1000)
        house.execute("update sync.units set next_due_at = next_due_at - interval '1 hour'")
        quiet = house.tenant("quiet", due=1)

        claimed = house.claim(50)

        assert quiet in {unit.tenant_id for unit in claimed}
        assert len(claimed) == 50

    def test_tenants_that_are_always_busy_are_served_alike_at_a_hundred_to_one(self, house: House) -> None:
        house.tenant("large", due=2000, concurrency=1000)
        for number in range(19):
            house.tenant(f"small {number}", due=20)

        served = house.rounds(30, 40)

        assert jain([float(count) for count in served.values()]) >= 0.99
        assert len(served) == 20

    def test_with_nobody_else_there_a_tenant_gets_everything(self, house: House) -> None:
        house.tenant("alone", due=300, concurrency=1000)

        assert len(house.claim(200)) == 200

    def test_more_tenants_than_fit_into_a_claim_have_their_turns_one_after_another(self, house: House) -> None:
        for number in range(30):
            house.tenant(f"tenant {number}", due=5)

        served = house.rounds(9, 10)

        assert set(served.values()) == {3}


class TestWeights:
    def test_a_weight_is_a_share_where_not_everybody_can_be_served(self, house: House) -> None:
        heavy, light = house.tenant("heavy", due=500, weight=3), house.tenant("light", due=500)
        house.execute("update sync.turns set cap = 1000")

        served = house.rounds(20, 40)

        assert 2.7 <= served[heavy] / served[light] <= 3.3

    def test_a_new_weight_counts_from_the_next_claim(self, house: House) -> None:
        one, other = house.tenant("one", due=500, concurrency=500), house.tenant("other", due=500, concurrency=500)
        before = house.rounds(5, 40)
        with house.database.transaction() as connection:
            tenants.set_share(connection, tenant_id=one, weight=4.0, concurrency=None)

        after = house.rounds(1, 40)

        assert before[one] == before[other]
        assert after[one] >= 3 * after[other]


class TestDebts:
    def test_what_a_run_costs_is_charged_to_its_tenant(self, house: House) -> None:
        dear, cheap = house.tenant("dear", due=25), house.tenant("cheap", due=25)

        served = house.rounds(40, 20, owed={dear: 4.0})

        assert 4.0 <= served[cheap] / served[dear] <= 6.0

    def test_a_debt_is_paid_off_by_turns_passed_also_in_a_full_ring(self, house: House) -> None:
        tenants_there = [house.tenant(f"tenant {number}", due=4) for number in range(20)]
        dear = tenants_there[0]

        served = house.rounds(80, 10, owed={dear: 3.0})

        others = [served[one] for one in tenants_there[1:]]
        assert max(others) - min(others) <= 4
        assert 2.7 <= min(others) / served[dear] <= 5.0

    def test_a_first_sync_is_charged_in_the_lane_that_it_leaves(self, fleet: Fleet, google: GoogleControl) -> None:
        tenant, account = fleet.tenant(), google.create_account(ANN)
        google.seed(ANN, ANN, SeedSpec(events=3000))
        fleet.google(tenant, google, account=account)

        fleet.run()

        debts = {row["lane"]: row["debt"] for row in fleet.rows("select lane, debt from sync.turns")}
        assert debts["bulk"] > 1
        assert debts["sync"] == 0
        assert fleet.unit(tenant)["owed"] == 0

    def test_a_debt_holds_nobody_back_while_there_is_room(self, house: House) -> None:
        dear = house.tenant("dear", due=20)
        house.execute("update sync.turns set debt = 150")

        assert len(house.claim(50)) == 20
        assert house.scalar("select debt from sync.turns where tenant_id = :t and lane = 'sync'", t=dear) < 150

    def test_no_debt_is_longer_than_two_hundred_turns(self, house: House) -> None:
        dear = house.tenant("dear", due=50, concurrency=500)
        house.tenant("cheap", due=500, concurrency=500)

        house.rounds(4, 20, owed={dear: 1e6})

        assert house.scalar("select max(debt) from sync.turns") <= 200


class TestConcurrency:
    def test_no_more_units_of_a_tenant_run_at_once_than_it_may(self, house: House) -> None:
        tenant = house.tenant("acme", due=100, concurrency=7)

        taken = [len(house.claim(50)) for _ in range(4)]

        assert sum(taken) == 7
        assert house.scalar(IN_FLIGHT, tenant=tenant) == 7

    def test_a_unit_that_ends_makes_room_for_the_next(self, house: House) -> None:
        house.tenant("acme", due=100, concurrency=7)
        claimed = house.claim(50)
        house.end(claimed[:3])
        house.execute("update sync.turns set ready_at = now() where at_cap")

        assert len(house.claim(50)) == 3


class TestClosedProviders:
    def test_units_of_a_closed_provider_are_passed_over_and_hold_up_no_others(self, house: House) -> None:
        tenant = house.tenant("acme", due=120)
        other = "update sync.units set provider = 'caldav' where unit_id in (select unit_id from sync.units limit 10)"
        house.execute(other)
        house.execute("update sync.units set next_due_at = next_due_at - interval '1 hour' where provider = 'google'")
        house.execute("insert into sync.cooldowns values ('project', 'google', now() + interval '10 minutes', 'quota')")

        claimed = [unit for _ in range(12) for unit in house.claim(20)]

        ids = [unit.unit_id for unit in claimed]
        assert len(ids) == 10
        waiting = "select count(*) from sync.units where next_due_at >= now() + interval '10 minutes' - interval '5 s'"
        assert house.scalar(waiting) == 110
        assert house.scalar(IN_FLIGHT, tenant=tenant) == 10

    def test_when_the_provider_opens_they_are_claimed_again(self, house: House) -> None:
        house.tenant("acme", due=5)
        house.execute("insert into sync.cooldowns values ('provider', 'google', now() + interval '1 minute', 'down')")
        assert house.claim(20) == []
        house.execute("update sync.cooldowns set until = now()")
        house.execute("update sync.units set next_due_at = now()")
        house.execute("update sync.turns set ready_at = now()")

        assert len(house.claim(20)) == 5


@pytest.fixture
def acme(fleet: Fleet, google: GoogleControl) -> TenantHandle:
    """A tenant with a synced calendar."""
    tenant = fleet.tenant()
    fleet.google(tenant, google, account=google.create_account(ANN))
    fleet.run()
    return tenant


class TestPausing:
    def test_no_run_of_a_paused_tenant_starts_until_it_is_resumed(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle
    ) -> None:
        paused = pausing.pause(fleet.database, tenant_id=acme.tenant_id, by="ann", reason="migration")
        fleet.due()
        while_paused = fleet.run()

        resumed = pausing.resume(fleet.database, tenant_id=acme.tenant_id)

        assert (paused, while_paused, resumed) == (True, 0, True)
        assert fleet.run() == 1

    def test_a_claim_under_way_hands_nothing_to_a_tenant_that_has_been_paused(self, house: House) -> None:
        tenant = house.tenant("acme", due=5)
        with ThreadPoolExecutor(1) as operator, house.database.transaction() as claiming:
            claimed = units.claim(claiming, lane=Lane.SYNC, limit=10)
            pause = operator.submit(
                pausing.pause, house.database, tenant_id=tenant, by="ann", reason="while a claim is open"
            )
            wait_until(
                lambda: house.scalar("select count(*) from pg_stat_activity where wait_event_type = 'Lock'"),
                about="the pause waits for the claim",
            )
        pause.result()

        assert len(claimed) == 5
        assert house.scalar(IN_FLIGHT, tenant=tenant) == 0

    def test_a_run_under_way_stops_within_two_seconds_and_writes_nothing(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle
    ) -> None:
        google.churn(5, account=ANN)
        google.add_fault(Fault(kind="hang", account=ANN, endpoint="list", times=None))
        fleet.due()
        with ThreadPoolExecutor(1) as worker:
            running = worker.submit(fleet.run_lane, Lane.SYNC)
            wait_until(lambda: fleet.unit(acme)["state"] == "running", about="the unit runs")
            before = fleet.calendar(acme)

            pausing.pause(fleet.database, tenant_id=acme.tenant_id, by="ann", reason="")
            wait_until(lambda: not fleet.runner._active, about="its worker has stopped it", longest=2.0)

            running.result()
        assert fleet.unit(acme)["state"] == "idle"
        assert fleet.calendar(acme) == before

    def test_what_was_missed_while_paused_arrives_after_the_resume(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle
    ) -> None:
        pausing.pause(fleet.database, tenant_id=acme.tenant_id, by="ann", reason="")
        google.churn(5, account=ANN)
        fleet.sync()

        pausing.resume(fleet.database, tenant_id=acme.tenant_id)
        fleet.sync()

        events_equal_truth(fleet, acme, google, ANN, ANN)

    def test_pausing_twice_is_one_pause_and_resuming_twice_is_one_resume(
        self, fleet: Fleet, acme: TenantHandle
    ) -> None:
        def pause(number: int) -> bool:
            return pausing.pause(fleet.database, tenant_id=acme.tenant_id, by=f"operator {number}", reason="")

        with ThreadPoolExecutor(4) as operators:
            paused = sorted(operators.map(pause, range(4)))
        resumed = [pausing.resume(fleet.database, tenant_id=acme.tenant_id) for _ in range(2)]

        assert (paused, resumed) == ([False, False, False, True], [True, False])
        pauses = fleet.rows("select resumed_at from sync.pauses where tenant_id = :t", t=acme.tenant_id)
        assert [row["resumed_at"] is not None for row in pauses] == [True]

    def test_a_pause_outlives_a_new_worker_and_a_lost_lease(
        self, make_fleet: Callable[..., Fleet], fleet: Fleet, acme: TenantHandle
    ) -> None:
        fleet.due()
        fleet.claim(Lane.SYNC)
        pausing.pause(fleet.database, tenant_id=acme.tenant_id, by="ann", reason="")
        fleet.execute("update sync.units set lease_until = now() - interval '1 second', next_due_at = now()")

        assert make_fleet(worker="another").sync() == 0
