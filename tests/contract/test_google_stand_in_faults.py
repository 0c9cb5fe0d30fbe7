"""The stand-in misbehaves exactly as scripted, and only there."""

import gzip
import json
import time
from datetime import UTC, datetime
from typing import Any, get_args

import httpx
import pytest

from sandbox.google.control import GoogleControl
from sandbox.google.errors import CATALOGUE
from sandbox.google.specs import AccountInfo, Fault, Poison, SeedSpec
from tests.contract.google_schema import ANN, EVENTS, MEETING, CheckedClient, check_list, grant_of, reason

pytest_plugins = ["tests.contract.google_fixtures"]


class TestWireFaults:
    @pytest.mark.parametrize(("status", "why"), sorted(CATALOGUE))
    def test_every_row_of_the_error_table_can_be_scripted(
        self, google: GoogleControl, client: CheckedClient, status: int, why: str
    ) -> None:
        google.add_fault(Fault(kind="status", status=status, reason=why))

        refused, after = client.list("primary"), client.list("primary")

        assert reason(refused) == (status, why)
        assert refused.json()["error"]["code"] == status
        assert refused.json()["error"]["message"] == CATALOGUE[status, why].message
        assert after.status_code == 200

    @pytest.mark.parametrize("kind", ["html_200", "not_json", "truncated_json"])
    def test_a_success_can_hold_something_other_than_json(
        self, google: GoogleControl, client: CheckedClient, kind: Any
    ) -> None:
        google.insert(ANN, ANN, MEETING)
        google.add_fault(Fault(kind=kind))

        response = client.http.get(EVENTS)

        assert response.status_code == 200
        with pytest.raises(json.JSONDecodeError):
            response.json()

    def test_a_gzip_body_can_be_cut(self, google: GoogleControl, client: CheckedClient) -> None:
        google.insert(ANN, ANN, MEETING)
        google.add_fault(Fault(kind="cut_gzip"))

        with client.http.stream("GET", EVENTS) as response:
            raw = b"".join(response.iter_raw())

        assert response.headers["Content-Encoding"] == "gzip"
        with pytest.raises(EOFError):
            gzip.decompress(raw)

    def test_a_connection_can_be_reset_in_the_middle_of_a_body(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        google.insert(ANN, ANN, MEETING)
        google.add_fault(Fault(kind="reset"))

        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            client.http.get(EVENTS)

    def test_a_request_can_hang_and_is_logged_as_unanswered(self, google: GoogleControl, client: CheckedClient) -> None:
        google.add_fault(Fault(kind="hang"))

        with pytest.raises(httpx.ReadTimeout):
            client.http.get(EVENTS, timeout=0.2)

        (entry,) = google.requests()
        assert (entry.status, entry.faults) == (None, ["hang"])

    @pytest.mark.parametrize("kind", ["slow", "drip"])
    def test_an_answer_can_be_slow_as_a_whole_or_byte_by_byte(
        self, google: GoogleControl, client: CheckedClient, kind: Any
    ) -> None:
        google.add_fault(Fault(kind=kind, seconds=0.3))
        begun = time.monotonic()

        page = client.list("primary").json()

        assert time.monotonic() - begun >= 0.25
        assert page["nextSyncToken"]

    def test_a_body_can_be_endless(self, google: GoogleControl, client: CheckedClient) -> None:
        google.add_fault(Fault(kind="endless_body"))
        received = 0

        with client.http.stream("GET", EVENTS) as response:
            for chunk in response.iter_bytes():
                received += len(chunk)
                if received > 2_000_000:
                    break

        assert client.list("primary").status_code == 200

    def test_a_body_can_be_huge_and_small_on_the_wire(self, google: GoogleControl, client: CheckedClient) -> None:
        google.add_fault(Fault(kind="huge_body", size=5_000_000))

        response = client.http.get(EVENTS)

        assert len(response.json()["description"]) == 5_000_000
        assert google.requests()[-1].bytes_sent < 50_000

    def test_a_redirect_shows_whether_the_token_was_carried_along(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        google.add_fault(Fault(kind="redirect", url=f"{google.base_url}/portal"))

        answer = client.http.get(EVENTS)
        client.http.get(answer.headers["Location"])

        assert answer.status_code == 302
        (entry,) = google.requests(endpoint="other")
        assert (entry.path, entry.bearer) == ("/portal", True)

    @pytest.mark.parametrize("html", [False, True])
    @pytest.mark.parametrize("form", ["seconds", "date"])
    def test_a_scripted_error_can_be_html_and_carry_retry_after_in_both_forms(
        self, google: GoogleControl, client: CheckedClient, html: bool, form: Any
    ) -> None:
        google.hold_clock(datetime(2026, 11, 20, tzinfo=UTC))
        google.add_fault(
            Fault(
                kind="status",
                status=429,
                reason="rateLimitExceeded",
                html=html,
                retry_after=30,
                retry_after_form=form,
            )
        )

        response = client.list("primary")

        expected = "30" if form == "seconds" else "Fri, 20 Nov 2026 00:00:30 GMT"
        assert response.headers["Retry-After"] == expected
        assert response.headers["Content-Type"].startswith("text/html" if html else "application/json")


class TestFaultScripts:
    def test_a_fault_skips_then_strikes_so_many_times_and_is_used_up(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        google.add_fault(Fault(kind="status", skip=1, times=2))

        statuses = [client.list("primary").status_code for _ in range(4)]

        assert statuses == [200, 503, 503, 200]
        assert google.faults() == []

    def test_a_fault_without_a_count_lasts_until_it_is_cleared(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        number = google.add_fault(Fault(kind="always_410", times=None))

        during = [reason(client.list("primary")) for _ in range(3)]
        google.clear_faults(number=number)

        assert during == [(410, "fullSyncRequired")] * 3
        assert client.list("primary").status_code == 200

    def test_a_fault_strikes_only_what_it_is_aimed_at(self, google: GoogleControl, client: CheckedClient) -> None:
        google.create_calendar(ANN, "team")
        google.create_account("bob@example.test")
        google.seed_events(ANN, ANN, [MEETING] * 3)
        _, token = client.all("primary")
        google.add_fault(Fault(kind="status", account="bob@example.test", times=None))
        google.add_fault(Fault(kind="status", calendar="team", times=None))
        google.add_fault(Fault(kind="status", endpoint="calendarList.list", times=None))
        google.add_fault(Fault(kind="status", status=410, reason="x", list_kind="delta", page="later"))
        google.insert(ANN, ANN, MEETING)
        google.insert(ANN, ANN, MEETING)

        pages = [client.list("primary"), client.list("primary", syncToken=token, maxResults=1)]
        second = client.list("primary", syncToken=token, maxResults=1, pageToken=pages[1].json()["nextPageToken"])

        assert [page.status_code for page in pages] == [200, 200]
        assert second.status_code == 410
        assert client.list("team").status_code == 503
        assert client.http.get("users/me/calendarList").status_code == 503

    def test_sync_tokens_can_expire_at_a_chosen_request(self, google: GoogleControl, client: CheckedClient) -> None:
        _, token = client.all("primary")
        google.add_fault(Fault(kind="expire_tokens", skip=1))

        statuses = [client.list("primary", syncToken=token).status_code for _ in range(2)]

        assert statuses == [200, 410]

    def test_faults_can_be_aimed_at_the_token_endpoint_and_only_by_name(
        self, google: GoogleControl, ann: AccountInfo
    ) -> None:
        google.add_fault(Fault(kind="status", account=ANN, times=None))
        google.add_fault(Fault(kind="status", endpoint="token", account=ANN, skip=1))

        answers = [httpx.post(google.token_uri, data=grant_of(google, ann)) for _ in range(2)]

        assert [answer.status_code for answer in answers] == [200, 503]
        assert answers[1].json()["error"] == "backendError"


class TestPageQuirks:
    def test_a_last_page_can_come_without_any_token(self, google: GoogleControl, client: CheckedClient) -> None:
        google.add_fault(Fault(kind="page_without_tokens"))

        page = client.http.get(EVENTS).json()

        assert not {"nextPageToken", "nextSyncToken"} & page.keys()

    def test_a_first_page_can_wrongly_hold_a_sync_token(self, google: GoogleControl, client: CheckedClient) -> None:
        google.seed_events(ANN, ANN, [MEETING] * 3)
        google.add_fault(Fault(kind="sync_token_on_first_page"))

        page = client.http.get(EVENTS, params={"maxResults": 2}).json()

        assert {"nextPageToken", "nextSyncToken"} <= page.keys()

    def test_a_page_token_can_repeat_for_ever(self, google: GoogleControl, client: CheckedClient) -> None:
        google.seed_events(ANN, ANN, [MEETING] * 3)
        google.add_fault(Fault(kind="same_page_token_forever", times=None))

        first = client.list("primary", maxResults=2).json()["nextPageToken"]
        again = [client.list("primary", maxResults=2, pageToken=first).json() for _ in range(3)]

        assert {page["nextPageToken"] for page in again} == {first}

    @pytest.mark.parametrize(("kind", "items"), [("empty_page_with_token", []), ("page_without_items", None)])
    def test_a_page_can_be_empty_or_have_no_items_at_all_and_the_list_goes_on(
        self, google: GoogleControl, client: CheckedClient, kind: Any, items: list[Any] | None
    ) -> None:
        ids = google.seed_events(ANN, ANN, [MEETING] * 3)
        google.add_fault(Fault(kind=kind))

        pages = list(client.pages("primary", maxResults=2))

        assert pages[0].get("items") == items
        assert [item["id"] for page in pages[1:] for item in page["items"]] == ids

    def test_an_empty_delta_can_have_no_items_and_a_token(self, google: GoogleControl, client: CheckedClient) -> None:
        _, token = client.all("primary")
        google.add_fault(Fault(kind="page_without_items"))

        page = client.list("primary", syncToken=token).json()

        assert "items" not in page
        assert page["nextSyncToken"]

    def test_an_item_can_come_twice_over_two_pages(self, google: GoogleControl, client: CheckedClient) -> None:
        ids = google.seed_events(ANN, ANN, [MEETING] * 4)
        google.add_fault(Fault(kind="duplicate_item_over_pages"))

        pages = client.pages("primary", maxResults=2)

        assert [item["id"] for page in pages for item in page["items"]] == [*ids[:2], *ids[1:]]

    def test_a_full_list_can_claim_that_nothing_is_there(self, google: GoogleControl, client: CheckedClient) -> None:
        google.seed(ANN, ANN, SeedSpec(events=50))
        google.add_fault(Fault(kind="empty_full_list"))

        lied, told = client.list("primary").json(), client.list("primary").json()

        assert lied["items"] == []
        check_list(lied)
        assert len(told["items"]) >= 50

    def test_pages_can_be_smaller_than_asked(self, google: GoogleControl, client: CheckedClient) -> None:
        google.seed_events(ANN, ANN, [MEETING] * 5)
        google.configure(page_size=2)

        assert [len(page["items"]) for page in client.pages("primary", maxResults=2500)] == [2, 2, 1]


class TestPoison:
    @pytest.mark.parametrize("kind", get_args(Poison))
    def test_a_poisoned_event_is_served_among_the_good_ones(
        self, google: GoogleControl, client: CheckedClient, kind: Any
    ) -> None:
        good = google.insert(ANN, ANN, MEETING)["id"]
        bad = google.add_poison(ANN, ANN, kind)

        plain = client.http.get(EVENTS)
        filtered = client.http.get(EVENTS, params={"timeMin": "2026-01-01T00:00:00Z", "singleEvents": "true"})

        assert [item["id"] for item in plain.json()["items"]] == [good, bad]
        assert filtered.status_code == 200

    def test_raw_bodies_are_stored_as_they_are(self, google: GoogleControl, client: CheckedClient) -> None:
        google.seed_events(ANN, ANN, [{"id": "x", "wild": 1}], raw=True)

        (item,) = client.http.get(EVENTS).json()["items"]

        assert item == {"id": "x", "wild": 1, "etag": item["etag"]}
