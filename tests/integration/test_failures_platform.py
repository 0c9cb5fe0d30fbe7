"""Trouble stays where it is, the operator's is nobody's fault, and waiting is measured out (P60, G64, P65, P66)."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from config.queues import Lane
from sandbox.google.control import GoogleControl
from sandbox.google.specs import Fault, SeedSpec
from sandbox.servers.radicale import Radicale
from tests.support.crowd import MANY, Crowd
from tests.support.fleet import Fleet, TenantHandle, events_equal_truth
from tests.support.logs import captured_logs
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.waiting import wait_until

pytest_plugins = ["tests.support.crowd_fixtures"]

ANN = "ann@example.test"
TEAM = "team@group.calendar.google.com"
LOST = "update sync.units set lease_until = now() - interval '1 second' where lease_until is not null"
COOLDOWNS = "select scope, scope_id, reason from sync.cooldowns where until > now()"
REOPEN = "update sync.cooldowns set until = now()"
STATES = "select distinct state, failures, last_error from sync.calendars"
SECOND = """
select count(*) as n from sync.calendars
 where state = 'synced' and runs = 2 and failures = 0 and last_error is null and last_success_at is not null
"""
WAIT = "select extract(epoch from next_due_at - clock_timestamp())::float8 as seconds from sync.calendars"
SLOWEST = """
select extract(epoch from max(last_success_at) - (
         select started_at from worker.tasks where kind = 'sync.batch' order by id desc limit 1))::float8 as seconds
  from sync.calendars
"""

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
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


class TestIsolation:
    def test_a_hanging_provider_holds_up_no_other_tenant_of_its_batch(
        self,
        make_fleet: MakeFleet,
        google: GoogleControl,
        crowd: Crowd,
        thread: ThreadPoolExecutor,
    ) -> None:
        fleet = make_fleet(sync_unit_deadline="3s")
        stuck, account = crowd[MANY // 2]
        google.add_fault(Fault(kind="hang", account=account.email, times=None))
        fleet.due()

        running = thread.submit(fleet.run_lane, Lane.SYNC)
        wait_until(lambda: fleet.one(SECOND)["n"] == MANY - 1, about="the others' commits")

        assert fleet.unit(stuck)["state"] == "running"
        assert fleet.one(SLOWEST)["seconds"] < 2
        running.result()
        wait_until(lambda: fleet.unit(stuck)["state"] == "idle", about="the deadline of the hanging unit")
        assert fleet.calendar(stuck)["last_error"].startswith("deadline")
        assert fleet.calendar(stuck)["failures"] == 1

    def test_p65_every_kind_of_trouble_at_once_reaches_no_neighbour(
        self, make_fleet: MakeFleet, google: GoogleControl, crowd: Crowd
    ) -> None:
        fleet = make_fleet(sync_unit_deadline="1s")
        kinds = ("hang", "html_200", "not_json", "truncated_json", "cut_gzip", "reset", "redirect", "endless_body",
                 "status", "page_without_tokens")  # fmt: skip
        for (_, account), kind in zip(crowd, kinds, strict=False):
            google.add_fault(Fault(kind=kind, account=account.email, times=None))
        google.revoke_grant(crowd[len(kinds)][1].email)

        fleet.sync()
        wait_until(
            lambda: not fleet.rows("select 1 from sync.units where state <> 'idle'"), about="the end of all runs"
        )

        healthy = crowd[len(kinds) + 1 :]
        assert fleet.one(SECOND)["n"] == len(healthy)
        for tenant, account in healthy:
            events_equal_truth(fleet, tenant, google, account.email, account.email)
        failed = fleet.rows("select last_error from sync.calendars where failures = 1")
        assert len(failed) == len(kinds) + 1

    def test_p65_a_poisoned_calendar_stops_no_other_of_its_unit(self, fleet: Fleet, google: GoogleControl) -> None:
        acme, account = fleet.tenant(), google.create_account(ANN)
        google.create_calendar(ANN, TEAM)
        google.seed(ANN, ANN, SeedSpec(events=10))
        google.add_fault(Fault(kind="html_200", calendar=TEAM, endpoint="list", times=None))
        fleet.google(acme, google, account=account)

        for _ in range(5):
            google.churn(5, account=ANN, calendar=ANN)
            fleet.sync()

        events_equal_truth(fleet, acme, google, ANN, ANN)
        assert (fleet.calendar(acme, ANN)["failures"], fleet.calendar(acme, TEAM)["failures"]) == (0, 5)

    @pytest.mark.parametrize(
        "damage",
        [
            "update sync.accounts set credentials = '\\x00' where tenant_id = :tenant",
            "update sync.accounts set credentials = null where tenant_id = :tenant",
            """
            update sync.accounts a set credentials = b.credentials from sync.accounts b
             where a.tenant_id = :tenant and b.tenant_id <> :tenant
            """,
            "update sync.accounts set access_token = '\\x00' where tenant_id = :tenant",
        ],
        ids=["garbage", "none", "another tenant's", "token"],
    )
    def test_p65_credentials_that_cannot_be_opened_stop_their_account_alone(
        self, fleet: Fleet, google: GoogleControl, crowd: Crowd, damage: str
    ) -> None:
        broken, account = crowd[0]
        fleet.execute(damage, tenant=broken.tenant_id)

        fleet.sync()

        assert fleet.one(SECOND)["n"] == MANY - 1
        assert google.requests(account=account.email) == []
        assert fleet.unit(broken)["state"] == "idle"
        assert fleet.calendar(broken)["last_error"] is not None
        assert fleet.rows("select 1 from sync.cooldowns where scope <> 'account'") == []

    @pytest.mark.parametrize("table", ["sync.staged_events", "sync.events", "sync.tombstones", "mirror.outbox"])
    def test_p65_rows_that_postgres_refuses_keep_nobody_else_from_writing(
        self,
        fleet: Fleet,
        google: GoogleControl,
        crowd: Crowd,
        request: pytest.FixtureRequest,
        table: str,
    ) -> None:
        broken, account = crowd[0]
        there = {event["id"] for event in google.truth(account.email, account.email)}
        google.delete(account.email, account.email, min(fleet.visible(broken) & there))
        column, value = {"sync.staged_events": ("calendar_id", fleet.calendar(broken)["calendar_id"])}.get(
            table, ("tenant_id", broken.tenant_id)
        )
        fleet.execute(f"alter table {table} add constraint refused check ({column} <> '{value}') not valid")
        request.addfinalizer(lambda: fleet.execute(f"alter table {table} drop constraint if exists refused"))
        fleet.due()
        batch = fleet.claim(Lane.SYNC)

        with captured_logs(fleet.settings):
            fleet.run_batch(Lane.SYNC, batch)

        assert len(batch) == MANY
        assert fleet.one(SECOND)["n"] == MANY - 1
        assert fleet.runner._active == {}
        fleet.execute(f"alter table {table} drop constraint refused")
        fleet.execute(LOST)
        fleet.sync()
        fleet.sync()
        events_equal_truth(fleet, broken, google, account.email, account.email)

    def test_p65_nor_from_finishing_a_run_that_is_under_way_then(
        self,
        fleet: Fleet,
        google: GoogleControl,
        crowd: Crowd,
        request: pytest.FixtureRequest,
        thread: ThreadPoolExecutor,
    ) -> None:
        broken, (late, account) = crowd[0][0], crowd[1]
        calendar = fleet.calendar(broken)["calendar_id"]
        fleet.execute(f"alter table sync.staged_events add constraint refused check (calendar_id <> '{calendar}')")
        request.addfinalizer(lambda: fleet.execute("alter table sync.staged_events drop constraint refused"))
        google.add_fault(Fault(kind="slow", seconds=1, account=account.email))
        fleet.due()

        with captured_logs(fleet.settings):
            thread.submit(fleet.run_lane, Lane.SYNC)
            wait_until(lambda: fleet.calendar(late)["runs"] == 2, about="the end of the later run", longest=5)

        events_equal_truth(fleet, late, google, account.email, account.email)


class TestLostCalendars:
    @pytest.mark.parametrize(("status", "reason"), [(404, "notFound"), (403, "forbidden")])
    def test_g64_a_calendar_that_is_missing_once_keeps_rows_and_state(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle, status: int, reason: str
    ) -> None:
        held = fleet.events(acme)
        google.add_fault(Fault(kind="status", status=status, reason=reason))

        fleet.sync()

        assert fleet.calendar(acme)["state"] == "synced"
        assert fleet.calendar(acme)["failures"] == 1
        assert fleet.events(acme) == held
        assert 0 < fleet.one(WAIT)["seconds"] < 3600

    @pytest.mark.parametrize(("status", "reason"), [(404, "notFound"), (403, "forbidden")])
    def test_g64_one_that_stays_missing_is_lost_keeps_its_rows_and_is_looked_for_seldom(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle, status: int, reason: str
    ) -> None:
        held = fleet.events(acme)
        google.add_fault(Fault(kind="status", status=status, reason=reason, times=None))

        for _ in range(4):
            fleet.sync()

        assert (fleet.calendar(acme)["state"], fleet.calendar(acme)["state_reason"]) == ("lost", reason)
        assert fleet.events(acme) == held
        assert fleet.one(WAIT)["seconds"] > 6 * 3600

    def test_g64_one_that_google_calls_deleted_is_lost_at_once(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle
    ) -> None:
        google.add_fault(Fault(kind="status", status=410, reason="deleted", times=None))

        fleet.sync()

        assert fleet.calendar(acme)["state"] == "lost"
        assert len(fleet.visible(acme)) > 0

    def test_g64_one_that_comes_back_is_listed_anew(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle
    ) -> None:
        google.add_fault(Fault(kind="status", status=404, reason="notFound", times=None))
        for _ in range(3):
            fleet.sync()
        google.clear_faults()
        google.churn(20, account=ANN)

        fleet.sync()

        events_equal_truth(fleet, acme, google, ANN, ANN)
        assert (fleet.calendar(acme)["state"], fleet.calendar(acme)["failures"]) == ("synced", 0)
        assert "syncToken" not in google.requests()[-1].query


class TestOperatorsFaults:
    def test_p60_an_api_that_is_not_enabled_closes_google_for_all_and_punishes_nobody(
        self,
        fleet: Fleet,
        google: GoogleControl,
        radicale: Radicale,
        crowd: Crowd,
    ) -> None:
        dav = fleet.tenant()
        radicale.add_user("p60")
        radicale.create_calendar("p60", "work")
        fleet.caldav(dav, radicale, "p60")
        google.add_fault(Fault(kind="status", status=403, reason="accessNotConfigured", times=None))

        with captured_logs(fleet.settings) as log:
            fleet.sync()
        asked = len(google.requests())
        fleet.sync()

        assert asked <= MANY
        assert len(google.requests()) == asked
        assert "operator" in log.getvalue()
        assert fleet.rows(COOLDOWNS) == [{"scope": "project", "scope_id": "google", "reason": "accessNotConfigured"}]
        assert {(row["state"], row["failures"]) for row in fleet.rows(STATES)} == {("synced", 0)}
        assert {row["state"] for row in fleet.rows("select state from sync.accounts")} == {"connected"}
        assert fleet.calendar(dav)["runs"] >= 2
        google.clear_faults()
        fleet.execute(REOPEN)
        fleet.sync()  # one run tries for all,
        fleet.sync()  # and then they all go on
        for tenant, account in crowd:
            events_equal_truth(fleet, tenant, google, account.email, account.email)

    def test_p65_a_missing_oauth_client_puts_no_tenant_into_backoff(
        self,
        make_fleet: MakeFleet,
        google: GoogleControl,
        radicale: Radicale,
        fleet: Fleet,
        crowd: Crowd,
    ) -> None:
        dav = fleet.tenant()
        radicale.add_user("p65")
        radicale.create_calendar("p65", "work")
        fleet.caldav(dav, radicale, "p65")
        fleet.execute("update sync.accounts set access_token = null")
        unconfigured = make_fleet(google_client_id=None, google_client_secret=None)

        with captured_logs(fleet.settings) as log:
            unconfigured.sync()
            unconfigured.sync()

        assert [(row["scope"], row["scope_id"]) for row in fleet.rows(COOLDOWNS)] == [("project", "google")]
        assert "GOOGLE_CLIENT_ID" in log.getvalue()
        assert {(row["state"], row["failures"]) for row in fleet.rows(STATES)} == {("synced", 0)}
        assert {row["state"] for row in fleet.rows("select state from sync.accounts")} == {"connected"}
        assert google.requests() == []
        assert fleet.calendar(dav)["runs"] >= 2
        fleet.execute(REOPEN)
        fleet.sync()  # one run tries for all,
        fleet.sync()  # and then they all go on
        for tenant, account in crowd:
            events_equal_truth(fleet, tenant, google, account.email, account.email)


class TestBackoff:
    def test_p66_sync_now_ignores_the_backoff_and_a_success_forgets_it(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle
    ) -> None:
        google.add_fault(Fault(kind="status", status=503, times=5))
        for _ in range(5):
            fleet.sync()
        waits = fleet.one(WAIT)["seconds"]
        idle = fleet.run()

        fleet.sync()

        assert (waits > 30, idle) == (True, 0)
        events_equal_truth(fleet, acme, google, ANN, ANN)
        assert fleet.calendar(acme)["failures"] == 0
        assert fleet.one(WAIT)["seconds"] <= 1.1 * fleet.settings.sync_interval.total_seconds()

    def test_p66_sync_now_does_not_ignore_what_the_provider_asked_for(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle
    ) -> None:
        google.add_fault(Fault(kind="status", status=429, reason="rateLimitExceeded", retry_after=600))
        fleet.sync()
        google.clear_requests()

        fleet.sync()

        assert google.requests() == []
        assert fleet.one(WAIT)["seconds"] > 590
