"""Scopes that a provider closed: who is passed over, how one run opens them again, and what many refusals mean."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from config.queues import Lane
from db.repositories import scopes
from sandbox.google.control import GoogleControl
from sandbox.google.specs import Fault
from sandbox.servers.radicale import Radicale
from tenantsync.calendars import connecting
from tests.support.fleet import Fleet, TenantHandle

CLOSED = "select scope, scope_id, reason, closures, extract(epoch from until - now())::float8 as s from sync.cooldowns"
TIME_PASSES = "update sync.cooldowns set until = now() - interval '1 second'"
CLOSE = """
insert into sync.cooldowns (scope, scope_id, until, reason)
values (:scope, :id, now() + :s * interval '1 second', 'test')
"""
ALL_DUE = "update sync.units set next_due_at = now()"

Many = Callable[..., list[TenantHandle]]


@pytest.fixture
def many(fleet: Fleet, google: GoogleControl) -> Many:
    """Tenants with one synced Google account each, or all accounts with one tenant each `tenants`."""

    def make(count: int, *, tenants: int | None = None) -> list[TenantHandle]:
        made = [fleet.tenant() for _ in range(tenants or count)]
        for number in range(count):
            fleet.google(made[number % len(made)], google, f"user{number}@example.test")
        fleet.run()
        google.clear_requests()
        return made

    return make


def refuse(google: GoogleControl, email: str | None = None, **fields: Any) -> None:
    google.add_fault(Fault(**({"kind": "status", "status": 429, "reason": "rateLimitExceeded", "account": email,
                               "times": None} | fields)))  # fmt: skip


class TestClosed:
    def test_a_closed_accounts_calendars_all_wait_for_its_end_and_nobody_claims_their_unit(
        self, fleet: Fleet, google: GoogleControl
    ) -> None:
        tenant, email = fleet.tenant(), "ann@example.test"
        account = google.create_account(email)
        google.create_calendar(email, calendar="other")
        fleet.google(tenant, google, account=account)
        fleet.run()
        refuse(google, retry_after=120.0, status=429, calendar=email)
        fleet.execute("update sync.calendars set next_due_at = now() where provider_key = :key", key=email)
        fleet.execute(ALL_DUE)
        fleet.execute("update sync.turns set ready_at = now()")

        fleet.run_lane(Lane.SYNC)

        waits = fleet.rows("select extract(epoch from next_due_at - now())::float8 as s from sync.calendars")
        unit = fleet.one("select extract(epoch from next_due_at - now())::float8 as s, rest, state from sync.units")
        assert [100 < row["s"] < 140 for row in waits] == [True, True]
        assert 100 < unit["s"] <= 120
        assert (unit["rest"], unit["state"]) == ("cooldown", "idle")
        assert fleet.claim(Lane.SYNC) == []

    def test_a_closed_tenant_has_no_turn_before_it_opens(self, fleet: Fleet, many: Many) -> None:
        tenant, other = many(2)
        fleet.due()
        with fleet.database.transaction() as connection:
            scopes.close(connection, [
                {"scope": "tenant", "scope_id": str(tenant.tenant_id), "seconds": 60.0, "reason": "test"}
            ])  # fmt: skip
            scopes.put_off_tenants(connection, [str(tenant.tenant_id)])

        claimed = fleet.claim(Lane.SYNC)

        assert {unit.tenant_id for unit in claimed} == {other.tenant_id}

    def test_every_refusal_without_a_time_doubles_it_and_one_with_a_time_is_taken_at_its_word(
        self, fleet: Fleet, google: GoogleControl, many: Many
    ) -> None:
        (tenant,) = many(1)
        refuse(google)
        seen = []
        for _ in range(3):
            fleet.sync(tenant)
            seen.append(fleet.one(CLOSED))
            fleet.execute(TIME_PASSES)
        google.clear_faults()
        refuse(google, retry_after=7.0)
        fleet.sync(tenant)
        told = fleet.one(CLOSED)

        assert [row["closures"] for row in seen] == [1, 2, 3]
        assert [round(row["s"], -1) for row in seen] == [30, 60, 120]
        assert 5 < told["s"] <= 7


class TestHalfOpen:
    def test_one_run_tries_for_all_and_its_success_opens_the_scope(
        self, fleet: Fleet, google: GoogleControl, many: Many
    ) -> None:
        many(6)
        fleet.execute(CLOSE, scope="project", id="google", s=-1)
        fleet.due()

        fleet.run_lane(Lane.SYNC)
        tried = len(google.requests(endpoint="events.list"))
        left = fleet.rows(CLOSED)
        waits = fleet.rows("select 1 from sync.units where next_due_at between now() and now() + interval '6 s'")
        fleet.sync()

        assert (tried, left, len(waits)) == (1, [], 5)
        assert len({entry.account for entry in google.requests(endpoint="events.list")}) == 6

    def test_two_workers_do_not_both_try(
        self, make_fleet: Callable[..., Fleet], fleet: Fleet, google: GoogleControl, many: Many
    ) -> None:
        many(4)
        fleet.execute(CLOSE, scope="project", id="google", s=-1)
        google.add_fault(Fault(kind="slow", seconds=1.0, endpoint="events.list", times=None))
        fleet.due()
        claimed, second = fleet.claim(Lane.SYNC), make_fleet(worker="worker-2")

        with fleet.database.statement() as connection:
            first = scopes.probe(connection, [("project", "google")], hold=timedelta(seconds=10))
        second.run_batch(Lane.SYNC, claimed)

        assert first == {("project", "google")}
        assert google.requests(endpoint="events.list") == []

    def test_a_new_refusal_closes_it_again_and_a_dead_prober_is_replaced(
        self, fleet: Fleet, google: GoogleControl, many: Many
    ) -> None:
        many(3)
        fleet.execute(CLOSE, scope="provider", id="google", s=-1)
        fleet.execute("update sync.cooldowns set probe_until = now() - interval '1 ms'")  # whoever it was
        refuse(google, status=403, reason="accessNotConfigured")
        fleet.due()

        fleet.run_lane(Lane.SYNC)

        closed = {row["scope"]: row for row in fleet.rows(CLOSED)}
        assert len(google.requests(endpoint="events.list")) == 1
        assert closed["project"]["s"] > 100

    def test_a_probe_that_the_network_cut_lets_another_run_try_at_once(
        self, fleet: Fleet, google: GoogleControl, many: Many
    ) -> None:
        (tenant,) = many(1)
        account = fleet.account(tenant)["account_id"]
        fleet.execute(CLOSE, scope="account", id=str(account), s=-1)
        google.add_fault(Fault(kind="reset", times=1))

        fleet.sync(tenant)
        half_open = fleet.one("select probe_until, until < now() as over from sync.cooldowns")
        fleet.sync(tenant)

        assert half_open == {"probe_until": None, "over": True}
        assert fleet.rows(CLOSED) == []

    def test_its_state_can_be_read(self, fleet: Fleet) -> None:
        fleet.execute(CLOSE, scope="project", id="google", s=-1)
        fleet.execute(CLOSE, scope="account", id="ann", s=60)
        with fleet.database.transaction() as connection:
            scopes.probe(connection, [("project", "google"), ("account", "ann")], hold=timedelta(seconds=10))
            closed, half_open = scopes.state(connection, [("project", "google"), ("account", "ann"), ("tenant", "x")])

        assert (closed.scope, closed.probed_for, round(closed.opens_in, -1)) == ("account", None, 60)
        assert (half_open.scope, half_open.reason, round(half_open.probed_for or 0, -1)) == ("project", "test", 10)


class TestLearning:
    @pytest.mark.parametrize(
        ("accounts", "tenants", "reason", "learned"),
        [
            (5, 5, "rateLimitExceeded", True),
            (4, 4, "rateLimitExceeded", False),
            (6, 1, "rateLimitExceeded", False),
            (6, 6, "backendError", False),
        ],
    )
    def test_five_accounts_of_two_tenants_refused_for_quota_close_their_project(
        self, fleet: Fleet, google: GoogleControl, many: Many, accounts: int, tenants: int, reason: str, learned: bool
    ) -> None:
        many(accounts, tenants=tenants)
        status = 429 if reason == "rateLimitExceeded" else 503
        refuse(google, status=status, reason=reason, retry_after=60.0)

        fleet.sync()

        projects = [row for row in fleet.rows(CLOSED) if row["scope"] == "project"]
        assert [row["scope_id"] for row in projects] == (["google"] if learned else [])
        assert all(f"{accounts} accounts of {tenants} tenants" in row["reason"] for row in projects)


def test_a_unit_knows_the_one_provider_of_its_accounts_or_that_it_has_several(
    fleet: Fleet, google: GoogleControl, radicale: Radicale
) -> None:
    tenant = fleet.tenant()
    seen = []
    fleet.google(tenant, google)
    seen.append(fleet.unit(tenant)["provider"])
    radicale.add_user("several")
    radicale.create_calendar("several", "work")
    fleet.caldav(tenant, radicale, "several")
    seen.append(fleet.unit(tenant)["provider"])
    first = fleet.one("select account_id from sync.accounts where provider = 'google'")
    connecting.disconnect(fleet.database, tenant_id=tenant.tenant_id, account_id=first["account_id"])
    seen.append(fleet.unit(tenant)["provider"])
    fleet.google(tenant, google, account=google.create_account("bob@example.test"))
    seen.append(fleet.unit(tenant)["provider"])

    assert seen == ["google", None, "caldav", None]
