"""Google's refusals: who is stopped, for how long, and what is kept meanwhile (G56 to G63)."""

import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from sandbox.google.control import GoogleControl
from sandbox.google.specs import AccountInfo, Fault, SeedSpec
from tests.support.fleet import Fleet, TenantHandle, events_equal_truth
from tests.support.logs import captured_logs
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures

ANN = "ann@example.test"
BOB = "bob@example.test"
TEAM = "team@group.calendar.google.com"
NEW = {
    "id": "fresh00001",
    "summary": "New",
    "start": {"dateTime": "2026-12-01T09:00:00+01:00"},
    "end": {"dateTime": "2026-12-01T10:00:00+01:00"},
}
LAST_RUN = """
select status, error_log from worker.tasks where tenant_id = :tenant and kind = 'sync.unit' order by id desc limit 1
"""
WAIT = "select extract(epoch from next_due_at - clock_timestamp())::float8 as seconds from sync.calendars"
COOLDOWNS = "select scope, scope_id, reason from sync.cooldowns where until > now()"
STALE = "update sync.accounts set access_expires_at = now()"
REOPEN = "update sync.cooldowns set until = now()"

Office = Callable[..., TenantHandle]


@pytest.fixture
def office(fleet: Fleet, google: GoogleControl) -> Office:
    """Makes tenants whose account is synced; with one change at Google that is not here yet."""

    def make(email: str = ANN, *, calendars: tuple[str, ...] = (), tenant: TenantHandle | None = None) -> TenantHandle:
        owner = tenant or fleet.tenant()
        account = google.create_account(email, refresh_token=f"1//{email}")
        for calendar in calendars:
            google.create_calendar(email, calendar)
        for calendar in (email, *calendars):
            google.seed(email, calendar, SeedSpec(events=10))
        fleet.google(owner, google, account=account)
        fleet.run()
        for calendar in (email, *calendars):
            google.insert(email, calendar, NEW)
        google.clear_requests()
        return owner

    return make


@pytest.fixture
def acme(office: Office) -> TenantHandle:
    return office()


class TestTokens:
    def test_g56_one_401_costs_one_refresh_and_one_retry(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle
    ) -> None:
        google.add_fault(Fault(kind="status", status=401, reason="authError"))

        fleet.sync()

        assert "fresh00001" in fleet.visible(acme)
        assert [request.endpoint for request in google.requests()] == ["events.list", "token", "events.list"]
        assert fleet.calendar(acme)["failures"] == 0

    def test_g56_a_second_401_asks_for_reconnection_and_does_not_loop(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle
    ) -> None:
        google.add_fault(Fault(kind="status", status=401, reason="authError", times=None))

        fleet.sync()
        fleet.sync()

        assert fleet.account(acme)["state"] == "needs_reauth"
        assert [request.endpoint for request in google.requests()] == ["events.list", "token", "events.list"]
        assert len(fleet.visible(acme)) > 0

    def test_g57_a_revoked_grant_stops_its_account_at_once_after_one_token_request(
        self, fleet: Fleet, google: GoogleControl, office: Office
    ) -> None:
        acme = office(calendars=(TEAM,))
        held = fleet.events(acme)
        google.revoke_grant(ANN)
        fleet.execute(STALE)

        fleet.sync()
        fleet.sync()

        assert [request.endpoint for request in google.requests(account=ANN)] == ["token"]
        assert fleet.account(acme)["state"] == "needs_reauth"
        assert "invalid_grant" in fleet.account(acme)["state_reason"]
        assert fleet.events(acme) == held

    def test_g57_other_accounts_and_tenants_go_on(self, fleet: Fleet, google: GoogleControl, office: Office) -> None:
        acme = office()
        office(BOB, tenant=acme)
        other = office("carol@example.test")
        google.revoke_grant(ANN)

        fleet.sync()

        states = fleet.rows("select identity, state from sync.accounts order by identity")
        assert [row["state"] for row in states] == ["needs_reauth", "connected", "connected"]
        events_equal_truth(fleet, acme, google, BOB, BOB)
        events_equal_truth(fleet, other, google, "carol@example.test", "carol@example.test")

    def test_g57_the_tenant_sees_that_the_account_has_to_be_connected_again(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle
    ) -> None:
        fleet.clear_outbox()
        google.revoke_grant(ANN)

        fleet.sync()

        assert list(fleet.outbox(acme, "accounts")) == [fleet.account(acme)["account_id"]]

    def test_g57_an_account_that_is_connected_again_goes_on_where_it_was(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle
    ) -> None:
        google.revoke_grant(ANN)
        fleet.sync()
        google.restore_grant(ANN)
        google.churn(10, account=ANN)

        fleet.google(acme, google, account=AccountInfo(email=ANN, refresh_token=f"1//{ANN}", access_token=""))
        fleet.run()

        events_equal_truth(fleet, acme, google, ANN, ANN)
        assert fleet.account(acme)["state"] == "connected"
        assert "syncToken" in google.requests(endpoint="events.list")[-1].query

    @pytest.mark.parametrize(
        "fault",
        [
            Fault(kind="status", endpoint="token", status=503, times=None),
            Fault(kind="status", endpoint="token", status=500, html=True, times=None),
            Fault(kind="html_200", endpoint="token", times=None),
            Fault(kind="not_json", endpoint="token", times=None),
            Fault(kind="cut_gzip", endpoint="token", times=None),
            Fault(kind="reset", endpoint="token", times=None),
            Fault(kind="redirect", endpoint="token", times=None),
            Fault(kind="hang", endpoint="token", times=None),
        ],
        ids=lambda fault: f"{fault.kind} {fault.status}",
    )
    def test_g58_a_token_endpoint_in_trouble_is_asked_again_later_and_accuses_nobody(
        self, make_fleet: Callable[..., Fleet], google: GoogleControl, acme: TenantHandle, fault: Fault
    ) -> None:
        fleet = make_fleet(sync_unit_deadline="1s")
        held = fleet.calendar(acme)["cursor"]
        google.add_fault(fault)
        fleet.execute(STALE)

        fleet.sync()

        assert fleet.account(acme)["state"] == "connected"
        assert fleet.calendar(acme)["cursor"] == held
        assert fleet.calendar(acme)["failures"] == 1
        assert fleet.one(WAIT)["seconds"] < 60
        google.clear_faults()
        fleet.sync()
        assert "fresh00001" in fleet.visible(acme)

    @pytest.mark.parametrize(
        ("status", "reason", "message"),
        [
            (401, "invalid_client", "The OAuth client was not found."),
            (400, "invalid_grant", "Invalid JWT: Token must be a short-lived token. Check your iat and exp values."),
        ],
    )
    def test_g58_our_own_set_up_calls_the_operator_and_accuses_nobody(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle, status: int, reason: str, message: str
    ) -> None:
        google.add_fault(
            Fault(kind="status", endpoint="token", status=status, reason=reason, message=message, times=None)
        )
        fleet.execute(STALE)

        with captured_logs(fleet.settings) as log:
            fleet.sync()

        assert '"level": "error"' in log.getvalue()
        assert "operator" in log.getvalue()
        assert fleet.account(acme)["state"] == "connected"
        assert fleet.calendar(acme)["failures"] == 0
        assert [(row["scope"], row["scope_id"]) for row in fleet.rows(COOLDOWNS)] == [("project", "google")]

    def test_p59_ten_calendars_of_an_account_share_one_refresh(
        self, fleet: Fleet, google: GoogleControl, office: Office
    ) -> None:
        teams = tuple(f"team{number}@group.calendar.google.com" for number in range(9))
        acme = office(calendars=teams)
        fleet.execute(STALE)

        fleet.sync()

        assert len(google.requests(endpoint="token")) == 1
        assert len(google.requests(endpoint="events.list")) == 10
        assert {row["failures"] for row in fleet.rows("select failures from sync.calendars")} == {0}
        assert fleet.unit(acme)["changed_runs"] == 2

    def test_p59_ten_calendars_that_get_a_401_at_once_share_one_refresh(
        self, fleet: Fleet, google: GoogleControl, office: Office
    ) -> None:
        office(calendars=tuple(f"team{number}@group.calendar.google.com" for number in range(9)))
        google.expire_access_tokens(ANN)

        fleet.sync()

        assert len(google.requests(endpoint="token")) == 1
        assert {row["failures"] for row in fleet.rows("select failures from sync.calendars")} == {0}

    def test_p59_a_fresh_access_token_serves_every_worker_until_it_ends(
        self, make_fleet: Callable[..., Fleet], fleet: Fleet, google: GoogleControl, acme: TenantHandle
    ) -> None:
        fleet.execute(STALE)
        fleet.sync()

        fleet.sync()
        make_fleet(worker="worker-2").sync()

        assert len(google.requests(endpoint="token")) == 1
        assert len(google.requests(endpoint="events.list")) == 3

    def test_p59_an_answer_without_a_refresh_token_keeps_the_old_one(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle
    ) -> None:
        before = bytes(fleet.account(acme)["credentials"])

        for _ in range(3):
            fleet.execute(STALE)
            fleet.sync()

        assert bytes(fleet.account(acme)["credentials"]) == before
        assert [request.status for request in google.requests(endpoint="token")] == [200, 200, 200]


class TestForbidden:
    @pytest.mark.parametrize(
        ("reason", "least"),
        [
            ("rateLimitExceeded", 1),
            ("userRateLimitExceeded", 1),
            ("quotaExceeded", 300),
            ("dailyLimitExceeded", 300),
            ("variableTermLimitExceeded", 300),
        ],
    )
    def test_g60_a_limit_makes_the_account_wait_and_accuses_nobody(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle, reason: str, least: int
    ) -> None:
        held = fleet.calendar(acme)["cursor"]
        google.add_fault(Fault(kind="status", status=403, reason=reason, times=None))

        fleet.sync()

        assert fleet.calendar(acme)["cursor"] == held
        assert fleet.calendar(acme)["failures"] == 0
        assert fleet.account(acme)["state"] == "connected"
        assert [row["reason"] for row in fleet.rows(COOLDOWNS)] == [reason]
        assert least < fleet.one(WAIT)["seconds"] < 6 * 3600

    @pytest.mark.parametrize("reason", ["insufficientPermissions", "forbidden", "requiredAccessLevel"])
    def test_g60_a_right_that_is_lost_shows_in_the_calendars_state(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle, reason: str
    ) -> None:
        google.add_fault(Fault(kind="status", status=403, reason=reason, times=None))

        for _ in range(3):
            fleet.sync()

        assert (fleet.calendar(acme)["state"], fleet.calendar(acme)["state_reason"]) == ("lost", reason)
        assert fleet.account(acme)["state"] == "connected"

    def test_g60_a_forbidden_calendar_stops_no_other_of_its_account(
        self, fleet: Fleet, google: GoogleControl, office: Office
    ) -> None:
        acme = office(calendars=(TEAM,))
        google.add_fault(Fault(kind="status", status=403, reason="forbidden", calendar=TEAM, times=None))

        fleet.sync()

        events_equal_truth(fleet, acme, google, ANN, ANN)
        assert fleet.calendar(acme, ANN)["last_error"] is None
        assert fleet.calendar(acme, TEAM)["last_error"].startswith("forbidden")

    def test_g60_an_account_without_google_calendar_is_at_its_end(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle
    ) -> None:
        google.add_fault(Fault(kind="status", status=403, reason="notACalendarUser", times=None))

        fleet.sync()
        fleet.sync()

        assert fleet.account(acme)["state"] == "unusable"
        assert len(google.requests()) == 1
        assert len(fleet.visible(acme)) > 0

    def test_g60_a_403_without_a_known_reason_is_no_verdict_on_the_account(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle
    ) -> None:
        google.add_fault(Fault(kind="status", status=403, html=True))

        fleet.sync()

        assert fleet.account(acme)["state"] == "connected"
        assert fleet.calendar(acme)["state"] == "synced"
        assert fleet.calendar(acme)["failures"] == 1


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("fault", "least"),
        [
            (Fault(kind="status", status=429, reason="rateLimitExceeded", retry_after=30), 29),
            (
                Fault(kind="status", status=429, reason="rateLimitExceeded", retry_after=30, retry_after_form="date"),
                27,
            ),
            (Fault(kind="status", status=429, reason="rateLimitExceeded"), 1),
            (Fault(kind="status", status=403, reason="userRateLimitExceeded", retry_after=30), 29),
            (Fault(kind="status", status=503, retry_after=30), 29),
        ],
        ids=["seconds", "date", "none", "403", "503"],
    )
    def test_g61_nothing_is_asked_before_the_moment_that_google_named(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle, fault: Fault, least: float
    ) -> None:
        google.add_fault(fault)
        fleet.sync()
        waits = fleet.one(WAIT)["seconds"]
        google.clear_requests()

        fleet.sync()

        assert least < waits < 120
        assert google.requests() == []
        assert fleet.calendar(acme)["failures"] == 0

    def test_g61_what_waits_holds_no_worker_and_no_other_tenant(
        self, fleet: Fleet, google: GoogleControl, office: Office
    ) -> None:
        office()
        other = office(BOB)
        google.add_fault(
            Fault(kind="status", status=429, reason="rateLimitExceeded", retry_after=30, account=ANN, times=None)
        )
        begun = time.monotonic()

        fleet.sync()
        fleet.sync()

        assert time.monotonic() - begun < 15
        events_equal_truth(fleet, other, google, BOB, BOB)
        assert fleet.calendar(other)["failures"] == 0
        assert fleet.runner._active == {}

    def test_g61_after_that_moment_it_goes_on(self, fleet: Fleet, google: GoogleControl, acme: TenantHandle) -> None:
        google.add_fault(Fault(kind="status", status=429, reason="rateLimitExceeded", retry_after=3600))
        fleet.sync()
        fleet.execute(REOPEN)

        fleet.sync()

        events_equal_truth(fleet, acme, google, ANN, ANN)

    def test_g61_calendars_of_a_limited_account_stop_within_the_run(
        self, fleet: Fleet, google: GoogleControl, office: Office
    ) -> None:
        office(calendars=tuple(f"team{number}@group.calendar.google.com" for number in range(19)))
        google.add_fault(Fault(kind="status", status=429, reason="rateLimitExceeded", retry_after=30, times=None))

        fleet.sync()

        assert len(google.requests()) <= 8
        assert {row["failures"] for row in fleet.rows("select failures from sync.calendars")} == {0}


class TestAnswersThatAreNone:
    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            (Fault(kind="status", status=500), "http_500"),
            (Fault(kind="status", status=502, html=True), "http_502"),
            (Fault(kind="status", status=503), "http_503"),
            (Fault(kind="status", status=504), "http_504"),
            (Fault(kind="html_200"), "not_json"),
            (Fault(kind="not_json"), "not_json"),
            (Fault(kind="truncated_json"), "not_json"),
            (Fault(kind="cut_gzip"), "body_cut"),
            (Fault(kind="reset"), "body_cut"),
            (Fault(kind="redirect"), "redirected"),
            (Fault(kind="huge_body", size=65 * 2**20), "body_too_large"),
            (Fault(kind="endless_body"), "body_too_large"),
            (Fault(kind="page_without_tokens"), "no_cursor"),
        ],
        ids=lambda value: f"{value.kind} {value.status}" if isinstance(value, Fault) else "",
    )
    @pytest.mark.parametrize("list_kind", ["delta", "full"])
    def test_g63_it_leaves_cursor_and_rows_alone_and_is_recorded_by_name(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle, fault: Fault, reason: str, list_kind: str
    ) -> None:
        held = (fleet.events(acme), fleet.tombstones(acme), fleet.outbox(acme))
        cursors = {"delta": fleet.calendar(acme)["cursor"], "full": None}
        fleet.execute("update sync.calendars set cursor = null where :full", full=list_kind == "full")
        google.add_fault(fault)

        fleet.sync()

        calendar, run = fleet.calendar(acme), fleet.one(LAST_RUN, tenant=acme.tenant_id)
        assert (fleet.events(acme), fleet.tombstones(acme), fleet.outbox(acme)) == held
        assert calendar["cursor"] == cursors[list_kind]
        assert calendar["failures"] == 1
        assert calendar["last_error"].startswith(reason)
        assert (run["status"], run["error_log"]) == ("failed", calendar["last_error"])
        assert len(google.requests()) == 1
        fleet.sync()
        events_equal_truth(fleet, acme, google, ANN, ANN)
        assert (fleet.calendar(acme)["failures"], fleet.calendar(acme)["last_error"]) == (0, None)

    def test_g63_no_redirect_is_followed_with_a_token(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle
    ) -> None:
        for endpoint in ("events.list", "token"):
            google.add_fault(Fault(kind="redirect", endpoint=endpoint, url=f"{google.base_url}/portal", times=None))

        fleet.sync()
        fleet.execute(STALE)
        fleet.sync()

        assert google.requests(endpoint="other") == []
        assert {request.endpoint for request in google.requests()} == {"events.list", "token"}

    def test_g63_failures_that_last_are_asked_about_ever_more_seldom(
        self, fleet: Fleet, google: GoogleControl, acme: TenantHandle
    ) -> None:
        google.add_fault(Fault(kind="status", status=503, times=None))
        waits = []

        for _ in range(8):
            fleet.sync()
            waits.append(fleet.one(WAIT)["seconds"])

        assert len(google.requests()) == 8
        assert waits == sorted(waits)
        assert waits[-1] > 10 * waits[0]
        assert waits[-1] <= 1.1 * timedelta(hours=1).total_seconds()

    def test_g63_a_hang_ends_with_the_units_deadline(
        self, make_fleet: Callable[..., Fleet], google: GoogleControl, acme: TenantHandle
    ) -> None:
        fleet = make_fleet(sync_unit_deadline="500ms")
        held = (fleet.calendar(acme)["cursor"], fleet.events(acme))
        google.add_fault(Fault(kind="hang"))

        fleet.sync()

        assert fleet.calendar(acme)["last_error"].startswith("deadline")
        assert fleet.calendar(acme)["failures"] == 1
        assert (fleet.calendar(acme)["cursor"], fleet.events(acme)) == held
        assert fleet.unit(acme)["state"] == "idle"
