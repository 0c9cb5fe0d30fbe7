"""One run of a unit at a time, messages that come twice or never, and nobody who writes late (P68 to P72)."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from config.queues import Lane
from sandbox.google.control import GoogleControl
from sandbox.google.specs import Fault, SeedSpec
from tenantsync.calendars import connecting
from tests.support.crowd import MANY, Crowd
from tests.support.fleet import Fleet, TenantHandle, events_equal_truth
from tests.support.holding_proxy import HoldingProxy
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.waiting import wait_until

pytest_plugins = ["tests.support.crowd_fixtures"]

ANN = "ann@example.test"
LOST = "update sync.units set lease_until = now() - interval '1 second' where lease_until is not null"
TASKS = "select count(*) as n from worker.tasks where kind = 'sync.unit'"

MakeFleet = Callable[..., Fleet]


@pytest.fixture
def acme(fleet: Fleet, google: GoogleControl) -> TenantHandle:
    """A tenant with one synced calendar, which has changed at Google since."""
    tenant, account = fleet.tenant(), google.create_account(ANN)
    google.seed(ANN, ANN, SeedSpec(events=10))
    fleet.google(tenant, google, account=account)
    fleet.run()
    google.churn(10, account=ANN)
    google.clear_requests()
    return tenant


@pytest.fixture
def proxy(google: GoogleControl) -> Iterator[HoldingProxy]:
    """A way to Google on which answers can be kept back."""
    with HoldingProxy(google.base_url) as holding:
        yield holding


@pytest.fixture
def slow(make_fleet: MakeFleet, proxy: HoldingProxy) -> Fleet:
    """A worker behind the proxy. Its heart beats too seldom to matter."""
    return make_fleet(
        worker="slow-worker", google_api_endpoint=f"{proxy.base_url}/calendar/v3/", sync_lease="60s", sync_interval="1h"
    )


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


class TestOneRunAtATime:
    def test_p68_two_workers_share_the_due_units_and_double_none(
        self, make_fleet: MakeFleet, google: GoogleControl, crowd: Crowd,
        thread: ThreadPoolExecutor,
    ) -> None:  # fmt: skip
        first, second = make_fleet(worker="worker-1"), make_fleet(worker="worker-2")
        first.due()
        start = Barrier(2)

        def work(fleet: Fleet) -> int:
            start.wait()
            return fleet.run()

        shares = list(thread.map(work, (first, second)))

        assert sum(shares) == MANY
        assert len(google.requests(endpoint="events.list")) == MANY
        assert {row["runs"] for row in first.rows("select runs from sync.calendars")} == {2}

    def test_p68_a_unit_that_runs_is_not_started_by_another_worker(
        self, fleet: Fleet, slow: Fleet, proxy: HoldingProxy, google: GoogleControl, acme: TenantHandle,
        thread: ThreadPoolExecutor,
    ) -> None:  # fmt: skip
        proxy.hold()
        slow.due()
        running = thread.submit(slow.run_lane, Lane.SYNC)
        proxy.wait_until_held()

        others = fleet.sync()

        assert others == 0
        proxy.release()
        running.result()
        assert len(google.requests(endpoint="events.list")) == 1
        events_equal_truth(fleet, acme, google, ANN, ANN)

    def test_p69_a_worker_that_lost_its_lease_cannot_commit_over_a_newer_run(
        self, fleet: Fleet, slow: Fleet, proxy: HoldingProxy, google: GoogleControl, acme: TenantHandle,
        thread: ThreadPoolExecutor,
    ) -> None:  # fmt: skip
        proxy.hold()
        slow.due()
        running = thread.submit(slow.run_lane, Lane.SYNC)
        proxy.wait_until_held()
        google.churn(10, account=ANN)
        fleet.execute(LOST)
        fleet.sync()
        fleet.sync()
        newer = (fleet.calendar(acme), fleet.events(acme), fleet.tombstones(acme), fleet.outbox(acme), fleet.one(TASKS))

        proxy.release()
        running.result()

        assert (
            fleet.calendar(acme), fleet.events(acme), fleet.tombstones(acme), fleet.outbox(acme), fleet.one(TASKS),
        ) == newer  # fmt: skip
        events_equal_truth(fleet, acme, google, ANN, ANN)

    def test_p69_nor_while_the_newer_run_is_still_under_way(
        self, make_fleet: MakeFleet, fleet: Fleet, slow: Fleet, proxy: HoldingProxy, google: GoogleControl,
        acme: TenantHandle, thread: ThreadPoolExecutor,
    ) -> None:  # fmt: skip
        proxy.hold()
        slow.due()
        running = thread.submit(slow.run_lane, Lane.SYNC)
        proxy.wait_until_held()
        held = (fleet.calendar(acme)["cursor"], fleet.events(acme))
        fleet.execute(LOST)
        fleet.due()
        fleet.claim(Lane.SYNC)
        (newer,) = fleet.claim(Lane.QUARANTINE)

        proxy.release()
        running.result()

        assert (fleet.calendar(acme)["cursor"], fleet.events(acme)) == held
        fleet.run_batch(Lane.QUARANTINE, [newer])
        events_equal_truth(fleet, acme, google, ANN, ANN)

    def test_p69_a_failure_found_late_is_not_written_either(
        self, fleet: Fleet, slow: Fleet, proxy: HoldingProxy, google: GoogleControl, acme: TenantHandle,
        thread: ThreadPoolExecutor,
    ) -> None:  # fmt: skip
        google.add_fault(Fault(kind="status", status=403, reason="notACalendarUser"))
        proxy.hold()
        slow.due()
        running = thread.submit(slow.run_lane, Lane.SYNC)
        proxy.wait_until_held()
        fleet.execute(LOST)
        fleet.sync()
        fleet.sync()

        proxy.release()
        running.result()

        assert fleet.account(acme)["state"] == "connected"
        assert (fleet.calendar(acme)["failures"], fleet.calendar(acme)["last_error"]) == (0, None)
        events_equal_truth(fleet, acme, google, ANN, ANN)

    def test_p69_a_worker_that_notices_stops_the_run_at_once_and_forgets_it(
        self, make_fleet: MakeFleet, fleet: Fleet, proxy: HoldingProxy, google: GoogleControl, acme: TenantHandle,
        thread: ThreadPoolExecutor,
    ) -> None:  # fmt: skip
        attentive = make_fleet(
            worker="attentive", google_api_endpoint=f"{proxy.base_url}/calendar/v3/", sync_lease="1s"
        )
        proxy.hold()
        attentive.due()
        running = thread.submit(attentive.run_lane, Lane.SYNC)
        proxy.wait_until_held()

        fleet.execute("update sync.units set fence = nextval('sync.fence'), state = 'idle', lease_until = null")
        running.result()

        wait_until(lambda: proxy.held == 0, about="the request's end")
        assert fleet.calendar(acme)["failures"] == 0
        wait_until(lambda: not attentive.runner._active, about="the forgetting of the run", longest=3)

    def test_p68_a_run_that_takes_longer_than_its_lease_keeps_it(
        self, make_fleet: MakeFleet, fleet: Fleet, proxy: HoldingProxy, google: GoogleControl, acme: TenantHandle,
        thread: ThreadPoolExecutor,
    ) -> None:  # fmt: skip
        lasting = make_fleet(worker="lasting", google_api_endpoint=f"{proxy.base_url}/calendar/v3/", sync_lease="1s")
        proxy.hold()
        lasting.due()
        running = thread.submit(lasting.run_lane, Lane.SYNC)
        proxy.wait_until_held()
        begun = fleet.one("select clock_timestamp() as now")["now"]

        wait_until(lambda: fleet.unit(acme)["lease_until"].timestamp() > begun.timestamp() + 1.5, about="two renewals")

        assert fleet.sync() == 0
        proxy.release()
        running.result()
        events_equal_truth(fleet, acme, google, ANN, ANN)

    @pytest.mark.parametrize("lane", [Lane.SYNC, Lane.QUARANTINE])
    def test_p70_a_message_that_comes_twice_does_nothing_the_second_time(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle, lane: Lane
    ) -> None:
        fleet.execute("update sync.units set lane = :lane", lane=lane.value)
        fleet.due()
        claimed = fleet.claim(lane)
        fleet.run_batch(lane, claimed)
        before = (fleet.calendar(acme), fleet.events(acme), fleet.outbox(acme), fleet.unit(acme), fleet.one(TASKS))
        google.clear_requests()

        again = fleet.run_batch(lane, claimed)

        assert again == {"units": 0}
        assert google.requests() == []
        after = (fleet.calendar(acme), fleet.events(acme), fleet.outbox(acme), fleet.unit(acme), fleet.one(TASKS))
        assert after == before

    def test_p70_a_message_that_two_workers_get_at_once_is_run_by_one(
        self, make_fleet: MakeFleet, google: GoogleControl, crowd: Crowd,
        thread: ThreadPoolExecutor,
    ) -> None:  # fmt: skip
        fleets = (make_fleet(worker="worker-1"), make_fleet(worker="worker-2"))
        fleets[0].due()
        claimed = fleets[0].claim(Lane.SYNC)

        results = list(thread.map(lambda fleet: fleet.run_batch(Lane.SYNC, claimed), fleets))

        assert sum(result["units"] for result in results) == MANY
        assert len(google.requests(endpoint="events.list")) == MANY
        assert {row["runs"] for row in fleets[0].rows("select runs from sync.calendars")} == {2}

    def test_p70_a_message_that_is_lost_costs_nothing_but_time(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle
    ) -> None:
        fleet.due()
        fleet.claim(Lane.SYNC)
        at_once = fleet.sync()
        fleet.execute(LOST)

        later = fleet.sync()

        assert (at_once, later) == (0, 1)
        assert (fleet.unit(acme)["lane"], fleet.unit(acme)["crashes"]) == ("sync", 0)
        events_equal_truth(fleet, acme, google, ANN, ANN)


class TestDisconnecting:
    @pytest.mark.parametrize("listed", [True, False])
    def test_p72_no_row_appears_after_the_account_was_disconnected(
        self, fleet: Fleet, slow: Fleet, proxy: HoldingProxy, google: GoogleControl, acme: TenantHandle,
        thread: ThreadPoolExecutor, listed: bool,
    ) -> None:  # fmt: skip
        fleet.execute("update sync.calendars set cursor = null where not :listed", listed=listed)
        known = set(fleet.events(acme))
        proxy.hold()
        slow.due()
        running = thread.submit(slow.run_lane, Lane.SYNC)
        proxy.wait_until_held()
        account = fleet.account(acme)["account_id"]

        gone = connecting.disconnect(fleet.database, tenant_id=acme.tenant_id, account_id=account)
        proxy.release()
        running.result()
        fleet.sync()

        assert gone
        assert fleet.events(acme) == {}
        assert set(fleet.tombstones(acme)) >= known
        assert fleet.rows("select 1 from sync.staged_events") == []
        assert {fleet.account(acme)[name] for name in ("credentials", "access_token", "access_expires_at")} == {None}
        assert (fleet.calendar(acme)["state"], fleet.calendar(acme)["cursor"]) == ("removed", None)
        assert len(google.requests(endpoint="events.list")) == 1

    def test_p72_a_token_that_is_refreshed_meanwhile_is_not_kept(
        self, fleet: Fleet, make_fleet: MakeFleet, proxy: HoldingProxy, acme: TenantHandle, thread: ThreadPoolExecutor
    ) -> None:
        slow = make_fleet(worker="slow-worker", google_token_uri=f"{proxy.base_url}/token", sync_lease="60s")
        fleet.execute("update sync.accounts set access_token = null")
        proxy.hold()
        slow.due()
        running = thread.submit(slow.run_lane, Lane.SYNC)
        proxy.wait_until_held()
        account = fleet.account(acme)["account_id"]

        connecting.disconnect(fleet.database, tenant_id=acme.tenant_id, account_id=account)
        proxy.release()
        running.result()

        assert {fleet.account(acme)[name] for name in ("credentials", "access_token", "access_expires_at")} == {None}
        assert fleet.account(acme)["state"] == "removed"
