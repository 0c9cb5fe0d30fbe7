"""Grants, quotas and the control API of the stand-in, and the stand-in as a process."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp
import httpx
import pytest

from sandbox.google.control import ControlRefusedError, GoogleControl
from sandbox.google.server import is_loopback
from sandbox.google.specs import AccountInfo, Fault, FleetSpec, QuotaRules, SeedSpec
from tests.contract.google_schema import ANN, EVENTS, WEEKLY, CheckedClient, grant_of, reason

pytest_plugins = ["tests.contract.google_fixtures"]


@pytest.fixture
def stand_in_process(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    ready = tmp_path / "ready.json"
    command = [sys.executable, "-m", "sandbox.google", "--port", "0", "--ready-file", str(ready)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 20
            while not ready.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            yield process, json.loads(ready.read_text())["port"]
        finally:
            process.kill()


class TestGrants:
    def test_a_refresh_gives_a_new_access_token_and_no_refresh_token(
        self, google: GoogleControl, ann: AccountInfo
    ) -> None:
        answer = httpx.post(google.token_uri, data=grant_of(google, ann)).json()

        assert set(answer) == {"access_token", "expires_in", "scope", "token_type"}
        assert answer["access_token"] != ann.access_token

    @pytest.mark.parametrize(
        ("change", "status", "error"),
        [
            ({"client_secret": "wrong"}, 401, "invalid_client"),
            ({"grant_type": "password"}, 400, "unsupported_grant_type"),
            ({"refresh_token": "made-up"}, 400, "invalid_grant"),
            ({"refresh_token": ""}, 400, "invalid_request"),
        ],
    )
    def test_a_wrong_refresh_is_refused(
        self, google: GoogleControl, ann: AccountInfo, change: dict[str, str], status: int, error: str
    ) -> None:
        answer = httpx.post(google.token_uri, data=grant_of(google, ann) | change)

        assert (answer.status_code, answer.json()["error"]) == (status, error)

    def test_a_revoked_grant_ends_refreshing_and_every_access_token_of_that_account_alone(
        self, google: GoogleControl, ann: AccountInfo, client: CheckedClient
    ) -> None:
        bob = google.create_account("bob@example.test")
        other = CheckedClient(google.api_endpoint, bob.access_token)
        google.revoke_grant(ANN)

        refresh = httpx.post(google.token_uri, data=grant_of(google, ann))

        assert refresh.status_code == 400
        assert refresh.json() == {
            "error": "invalid_grant",
            "error_description": "Token has been expired or revoked.",
        }
        assert reason(client.list("primary")) == (401, "authError")
        assert other.list("primary").status_code == 200
        other.close()

    def test_access_tokens_expire_by_the_clock_or_at_once(self, google: GoogleControl, client: CheckedClient) -> None:
        short = CheckedClient(google.api_endpoint, google.issue_access_token(ANN, ttl_s=60))

        before = short.list("primary").status_code
        google.advance_clock(61)
        after = short.list("primary").status_code
        long = client.list("primary").status_code
        google.expire_access_tokens(ANN)
        short.close()

        assert (before, after, long) == (200, 401, 200)
        assert reason(client.list("primary")) == (401, "authError")

    def test_without_a_token_login_is_required(self, google: GoogleControl, client: CheckedClient) -> None:
        del client.http.headers["Authorization"]

        assert reason(client.list("primary")) == (401, "required")


class TestQuotas:
    @pytest.mark.parametrize(
        ("rules", "expected"),
        [
            (QuotaRules(per_user=2), (403, "userRateLimitExceeded")),
            (QuotaRules(per_project=2), (403, "rateLimitExceeded")),
            (QuotaRules(per_user=2, status=429), (429, "rateLimitExceeded")),
            (QuotaRules(per_project=2, project_reason="quotaExceeded"), (403, "quotaExceeded")),
        ],
    )
    def test_a_sliding_window_refuses_what_is_too_much_and_lets_through_what_comes_later(
        self,
        google: GoogleControl,
        client: CheckedClient,
        rules: QuotaRules,
        expected: tuple[int, str],
    ) -> None:
        google.hold_clock()
        google.configure(quota=rules.model_dump())

        passed = [client.list("primary").status_code]
        google.advance_clock(40)
        passed.append(client.list("primary").status_code)
        refused = client.list("primary")
        google.advance_clock(21)
        later = client.list("primary")
        too_much = client.list("primary")

        assert passed == [200, 200]
        assert reason(refused) == expected
        assert (later.status_code, too_much.status_code) == (200, expected[0])

    def test_one_users_quota_is_not_anothers(self, google: GoogleControl, client: CheckedClient) -> None:
        bob = google.create_account("bob@example.test")
        other = CheckedClient(google.api_endpoint, bob.access_token)
        google.configure(quota={"per_user": 1})

        statuses = [client.list("primary").status_code for _ in range(2)]
        others = other.list("primary").status_code
        other.close()

        assert (statuses, others) == ([200, 403], 200)

    def test_retry_after_names_the_moment_when_the_window_opens(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        google.hold_clock(datetime(2026, 11, 20, tzinfo=UTC))
        client.http.headers["Authorization"] = f"Bearer {google.issue_access_token(ANN)}"
        google.configure(quota={"per_user": 1, "retry_after": "seconds"})
        client.list("primary")
        google.advance_clock(20)

        seconds = client.list("primary").headers["Retry-After"]
        google.configure(quota={"per_user": 1, "retry_after": "date"})
        date = parsedate_to_datetime(client.list("primary").headers["Retry-After"])

        assert seconds == "40"
        assert date == datetime(2026, 11, 20, 0, 1, tzinfo=UTC)


class TestControl:
    def test_the_log_and_the_counters_tell_who_asked_what(self, google: GoogleControl, client: CheckedClient) -> None:
        client.list("primary", maxResults=5)
        client.list("nowhere")

        first, second = google.requests(account=ANN, endpoint="events.list")
        tally = google.counters().accounts[ANN]

        assert (first.calendar, first.query, first.status) == (ANN, {"maxResults": "5"}, 200)
        assert (second.calendar, second.status) == ("nowhere", 404)
        assert (tally.requests, tally.by_status) == (2, {"200": 1, "404": 1})
        assert tally.bytes_sent == first.bytes_sent + second.bytes_sent > 0
        assert google.requests(since=second.seq) == []

    async def test_latency_delays_every_request_but_not_one_after_the_other(
        self, google: GoogleControl, ann: AccountInfo
    ) -> None:
        google.configure(latency_ms=100)
        headers = {"Authorization": f"Bearer {ann.access_token}"}
        begun = time.monotonic()

        async with aiohttp.ClientSession(headers=headers) as session:

            async def ask() -> int:
                async with session.get(google.api_endpoint + EVENTS) as response:
                    return response.status

            statuses = await asyncio.gather(*[ask() for _ in range(10)])

        assert statuses == [200] * 10
        assert 0.1 <= time.monotonic() - begun < 0.9
        assert google.counters().total.peak == 10

    def test_twenty_thousand_events_are_seeded_within_seconds(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        begun = time.monotonic()

        rows = google.seed(ANN, ANN, SeedSpec(events=20_000, tombstones=100))

        assert rows == 20_000 + 1000 * 2 + 100
        assert time.monotonic() - begun < 10

    def test_a_seeded_fleet_is_ready_and_alike_for_the_same_seed(self, google: GoogleControl) -> None:
        spec = FleetSpec(accounts=3, calendars=2, seed=SeedSpec(events=5))

        first = google.seed_fleet(spec)
        ids = [[item["id"] for item in google.truth(one.email, one.calendars[1])] for one in first]
        google.reset(seed=1)
        again = google.seed_fleet(spec)

        assert [one.email for one in again] == [one.email for one in first]
        assert ids == [[item["id"] for item in google.truth(one.email, one.calendars[1])] for one in again]

    def test_churn_makes_edits_that_the_next_delta_tells(self, google: GoogleControl, client: CheckedClient) -> None:
        google.seed(ANN, ANN, SeedSpec(events=40, series_every=4))
        _, token = client.all("primary")

        done = google.churn(30, account=ANN)
        delta, _ = client.all("primary", syncToken=token)

        assert done > 20
        assert 0 < len(delta) <= done

    def test_what_cannot_be_done_is_refused_with_a_reason(self, google: GoogleControl) -> None:
        with pytest.raises(ControlRefusedError, match="no account 'nobody'"):
            google.seed("nobody", "x", SeedSpec(events=1))
        with pytest.raises(ControlRefusedError, match="latency_msec"):
            google.configure(latency_msec=5)

    def test_a_series_override_through_the_control_api_needs_an_occurrence(
        self, google: GoogleControl, ann: AccountInfo
    ) -> None:
        master = google.insert(ANN, ANN, WEEKLY)["id"]

        with pytest.raises(ControlRefusedError, match="notFound"):
            google.override_instance(ANN, ANN, master, "2026-12-09T09:00:00Z", {"summary": "x"})

    def test_a_sync_token_from_before_a_reset_is_foreign_even_under_the_same_seed(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        _, token = client.all("primary")
        google.reset(seed=1)
        again = CheckedClient(google.api_endpoint, google.create_account(ANN).access_token)

        refused = again.list("primary", syncToken=token)
        again.close()

        assert reason(refused) == (400, "invalid")

    @pytest.mark.parametrize(
        ("remote", "expected"),
        [("127.0.0.1", True), ("127.3.2.1", True), ("::1", True), ("10.0.0.7", False), (None, False), ("", False)],
    )
    def test_the_control_api_is_for_loopback_clients_only(self, remote: str | None, expected: bool) -> None:
        assert is_loopback(remote) is expected

    def test_it_runs_as_a_process_says_its_port_and_stops_on_sigterm_even_with_a_request_hanging(
        self, stand_in_process: tuple[subprocess.Popen[str], int]
    ) -> None:
        process, port = stand_in_process
        with GoogleControl(f"http://127.0.0.1:{port}") as control:
            client = CheckedClient(control.api_endpoint, control.create_account(ANN).access_token)
            control.add_fault(Fault(kind="hang"))
            with pytest.raises(httpx.ReadTimeout):
                client.http.get(EVENTS, timeout=0.1)
            client.close()

        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=10)

        assert process.returncode == 0
        assert "ya29" not in output
