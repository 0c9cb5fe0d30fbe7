"""The stand-in keeps Google Calendar's rules, as far as they are known (`sandbox.google` says how far)."""

import gzip
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from google.oauth2.credentials import Credentials
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

from sandbox.google.control import GoogleControl
from sandbox.google.specs import AccountInfo, SeedSpec
from tests.contract.google_schema import ANN, MEETING, WEEKLY, CheckedClient, reason

pytest_plugins = ["tests.contract.google_fixtures"]

SMALL = SeedSpec(events=23, series_every=5)


class TestFullLists:
    def test_the_pages_hold_every_event_once_and_the_last_one_the_sync_token(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        google.seed(ANN, ANN, SMALL)

        pages = list(client.pages("primary", maxResults=7))

        ids = [item["id"] for page in pages for item in page["items"]]
        assert sorted(ids) == sorted({item["id"] for item in google.truth(ANN, ANN)})
        assert [len(page["items"]) for page in pages[:-1]] == [7] * (len(pages) - 1)

    @pytest.mark.parametrize(("asked", "got"), [(None, 250), (2500, 2500), (9999, 2500)])
    def test_a_page_holds_250_items_by_default_and_never_more_than_2500(
        self, google: GoogleControl, client: CheckedClient, asked: int | None, got: int
    ) -> None:
        google.seed(ANN, ANN, SeedSpec(events=2600, series_every=0, attendees=0))

        page = client.http.get("calendars/primary/events", params={"maxResults": asked} if asked else {})

        assert len(page.json()["items"]) == got

    def test_tombstones_are_listed_on_request_while_they_are_recent(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        google.hold_clock(datetime(2036, 11, 20, tzinfo=UTC))
        client.http.headers["Authorization"] = f"Bearer {google.issue_access_token(ANN)}"
        gone = google.insert(ANN, ANN, MEETING)["id"]
        google.delete(ANN, ANN, gone)

        plain, _ = client.all("primary")
        recent, _ = client.all("primary", showDeleted="true")
        google.advance_clock(31 * 86_400)
        client.http.headers["Authorization"] = f"Bearer {google.issue_access_token(ANN)}"
        later, _ = client.all("primary", showDeleted="true")

        assert gone not in plain
        assert set(recent[gone]) == {"kind", "etag", "id", "status"}
        assert gone not in later

    def test_cancelled_instances_of_a_living_series_are_listed_even_without_show_deleted(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        master = google.insert(ANN, ANN, WEEKLY)["id"]
        google.cancel_instance(ANN, ANN, master, "2026-12-08T10:00:00+01:00")

        items, _ = client.all("primary")
        single, _ = client.all("primary", singleEvents="true")

        bare = items[f"{master}_20261208T090000Z"]
        assert set(bare) == {"kind", "etag", "id", "status", "recurringEventId", "originalStartTime"}
        assert bare["originalStartTime"]["dateTime"] == "2026-12-08T10:00:00+01:00"
        assert bare["id"] not in single

    def test_single_events_expands_a_series_far_into_the_future_but_not_without_end(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        master = google.insert(ANN, ANN, WEEKLY)["id"]
        _, token = client.all("primary", singleEvents="true", maxResults=2500)
        google.patch(ANN, ANN, master, {"summary": "Touched"})

        delta, _ = client.all("primary", singleEvents="true", maxResults=2500, syncToken=token)

        assert 700 <= len(delta) <= 1000
        assert {item["recurringEventId"] for item in delta.values()} == {master}

    def test_a_time_window_bounds_an_expansion(self, google: GoogleControl, client: CheckedClient) -> None:
        google.insert(ANN, ANN, WEEKLY)
        window = {"timeMin": "2026-12-02T00:00:00Z", "timeMax": "2026-12-16T00:00:00Z"}

        items, _ = client.all("primary", singleEvents="true", **window)

        assert [item["start"]["dateTime"][:10] for item in items.values()] == ["2026-12-08", "2026-12-15"]

    def test_ordering_by_start_needs_single_events(self, google: GoogleControl, client: CheckedClient) -> None:
        google.insert(ANN, ANN, WEEKLY | {"recurrence": ["RRULE:FREQ=WEEKLY;COUNT=3"]})
        google.insert(ANN, ANN, MEETING)

        refused = client.list("primary", orderBy="startTime")
        pages = client.pages("primary", token=False, orderBy="startTime", singleEvents="true", maxResults=3)

        starts = [item["start"]["dateTime"] for page in pages for item in page["items"]]
        assert reason(refused) == (400, "invalid")
        assert starts == sorted(starts)
        assert len(starts) == 4

    @pytest.mark.parametrize(
        "query",
        [{"q": "GUEST7@"}, {"iCalUID": "wanted@x"}, {"privateExtendedProperty": "k=v"}, {"q": "findme"}],
    )
    def test_a_filtered_list_finds_its_event_and_ends_without_a_sync_token(
        self, google: GoogleControl, client: CheckedClient, query: Any
    ) -> None:
        google.insert(ANN, ANN, MEETING)
        wanted = MEETING | {
            "iCalUID": "wanted@x",
            "location": "FindMe street",
            "attendees": [{"email": "guest7@example.test"}],
            "extendedProperties": {"private": {"k": "v"}},
        }
        event = google.insert(ANN, ANN, wanted)

        (page,) = client.pages("primary", token=False, **query)

        assert [item["id"] for item in page["items"]] == [event["id"]]

    def test_an_unchanged_list_answers_304(self, client: CheckedClient) -> None:
        etag = client.list("primary").json()["etag"]

        again = client.ask("GET", "calendars/primary/events", schema="Events", headers={"If-None-Match": etag})

        assert again.status_code == 304

    def test_max_attendees_cuts_the_list_and_says_so(self, google: GoogleControl, client: CheckedClient) -> None:
        google.seed(ANN, ANN, SeedSpec(events=1, series_every=0, attendees=3))

        (item,) = client.all("primary", maxAttendees=1)[0].values()

        assert (len(item["attendees"]), item["attendeesOmitted"]) == (1, True)

    def test_a_fields_mask_keeps_only_what_it_names(self, google: GoogleControl, client: CheckedClient) -> None:
        google.insert(ANN, ANN, MEETING)

        page = client.list("primary", fields="nextSyncToken,items(id,status,start/dateTime,end)").json()
        wrong = client.list("primary", fields="items(id")

        assert set(page) == {"items", "nextSyncToken"}
        assert set(page["items"][0]) == {"id", "status", "start", "end"}
        assert set(page["items"][0]["start"]) == {"dateTime"}
        assert reason(wrong) == (400, "invalidParameter")

    def test_a_misspelt_parameter_is_refused(self, client: CheckedClient) -> None:
        assert reason(client.list("primary", singelEvents="true")) == (400, "invalidParameter")

    def test_an_answer_is_gzipped_when_the_client_takes_it(self, client: CheckedClient) -> None:
        request = client.http.build_request("GET", "calendars/primary/events")

        response = client.http.send(request, stream=True)
        raw = b"".join(response.iter_raw())
        response.close()

        assert response.headers["Content-Encoding"] == "gzip"
        assert b"nextSyncToken" in gzip.decompress(raw)


class TestDeltas:
    def test_a_delta_holds_one_entry_per_changed_id_and_only_those(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        google.seed(ANN, ANN, SMALL)
        edited = google.insert(ANN, ANN, MEETING)["id"]
        _, token = client.all("primary")
        google.patch(ANN, ANN, edited, {"summary": "first"})
        google.patch(ANN, ANN, edited, {"summary": "second"})
        short_lived = google.insert(ANN, ANN, MEETING)["id"]
        google.delete(ANN, ANN, short_lived)

        page = client.list("primary", syncToken=token).json()

        assert [item["id"] for item in page["items"]] == [edited, short_lived]
        assert page["items"][0]["summary"] == "second"
        assert page["items"][1]["status"] == "cancelled"

    def test_what_changes_during_paging_comes_in_the_next_delta(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        ids = google.seed_events(ANN, ANN, [MEETING] * 4)
        pages = client.pages("primary", maxResults=2)
        next(pages)
        google.patch(ANN, ANN, ids[0], {"summary": "changed meanwhile"})

        (last,) = list(pages)
        delta, _ = client.all("primary", syncToken=last["nextSyncToken"])

        assert [item["summary"] for item in delta.values()] == ["changed meanwhile"]

    @pytest.mark.parametrize("listed", [False, True])
    def test_a_deleted_master_takes_its_exceptions_along(
        self, google: GoogleControl, client: CheckedClient, listed: bool
    ) -> None:
        google.configure(list_exceptions_of_deleted_master=listed)
        master = google.insert(ANN, ANN, WEEKLY)["id"]
        override = google.override_instance(ANN, ANN, master, "2026-12-08T09:00:00Z", {"summary": "moved"})
        _, token = client.all("primary")
        google.delete(ANN, ANN, master)

        delta, _ = client.all("primary", syncToken=token)

        assert google.truth(ANN, ANN) == []
        assert set(delta) == ({master, override["id"]} if listed else {master})
        assert client.ask("DELETE", f"calendars/primary/events/{override['id']}", schema="").status_code == 410

    @pytest.mark.parametrize(
        ("param", "value", "why"),
        [
            ("timeMin", "2026-01-01T00:00:00Z", "syncTokenWithRequestRestrictions"),
            ("timeMax", "2026-01-01T00:00:00Z", "syncTokenWithRequestRestrictions"),
            ("updatedMin", "2026-11-19T00:00:00Z", "syncTokenWithRequestRestrictions"),
            ("q", "x", "syncTokenWithRequestRestrictions"),
            ("iCalUID", "x", "syncTokenWithRequestRestrictions"),
            ("privateExtendedProperty", "a=b", "syncTokenWithRequestRestrictions"),
            ("sharedExtendedProperty", "a=b", "syncTokenWithRequestRestrictions"),
            ("showDeleted", "false", "syncTokenWithRequestRestrictions"),
            ("orderBy", "updated", "syncTokenWithNonDefaultOrdering"),
            ("singleEvents", "true", "invalidParameter"),
            ("eventTypes", "default", "invalidParameter"),
            ("maxAttendees", "3", "invalidParameter"),
        ],
    )
    def test_what_may_not_stand_beside_a_sync_token_is_refused(
        self, client: CheckedClient, param: str, value: Any, why: str
    ) -> None:
        _, token = client.all("primary")

        refused = client.list("primary", syncToken=token, **{param: value})

        assert reason(refused) == (400, why)

    def test_a_default_spelled_out_is_no_change_and_changes_can_be_let_through(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        _, token = client.all("primary", showDeleted="true")

        spelled_out = client.list("primary", syncToken=token, singleEvents="false")
        google.configure(changed_params="ignore")
        let_through = client.list("primary", syncToken=token, singleEvents="true")

        assert (spelled_out.status_code, let_through.status_code) == (200, 200)

    @pytest.mark.parametrize("mangle", [lambda t: "x" + t, lambda t: t[:-5] + "AAAA=", lambda _: "garbage"])
    def test_a_token_that_was_never_issued_is_invalid(
        self, google: GoogleControl, client: CheckedClient, mangle: Callable[[str], str]
    ) -> None:
        _, token = client.all("primary")

        as_400 = client.list("primary", syncToken=mangle(token))
        google.configure(invalid_token_status=410)
        as_410 = client.list("primary", syncToken=mangle(token))

        assert reason(as_400) == (400, "invalid")
        assert as_400.json()["error"]["message"] == "Invalid sync token value."
        assert reason(as_410) == (410, "fullSyncRequired")

    def test_a_token_is_bound_to_its_calendar_and_its_account(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        google.create_calendar(ANN, "team")
        bob = google.create_account("bob@example.test")
        google.create_calendar("bob@example.test", "team")
        other = CheckedClient(google.api_endpoint, bob.access_token)
        _, token = client.all("team")

        refusals = [client.list("primary", syncToken=token), other.list("team", syncToken=token)]
        other.close()

        assert [reason(refusal) for refusal in refusals] == [(400, "invalid")] * 2

    @pytest.mark.parametrize(
        "void",
        [
            lambda google, _: google.expire_sync_tokens(account=ANN, calendar=ANN),
            lambda google, token: google.forget_sync_token(token),
            lambda google, _: google.advance_clock(61),
        ],
    )
    def test_an_expired_or_forgotten_token_demands_a_full_sync(
        self, google: GoogleControl, client: CheckedClient, void: Callable[[GoogleControl, str], object]
    ) -> None:
        google.configure(sync_token_ttl_s=60)
        _, token = client.all("primary")

        void(google, token)
        refused = client.list("primary", syncToken=token)
        _, fresh = client.all("primary")

        assert reason(refused) == (410, "fullSyncRequired")
        assert refused.json()["error"]["errors"][0]["location"] == "syncToken"
        assert client.list("primary", syncToken=fresh).status_code == 200

    def test_updated_min_reaches_29_days_back(self, google: GoogleControl, client: CheckedClient) -> None:
        google.hold_clock(datetime(2026, 11, 20, tzinfo=UTC))
        client.http.headers["Authorization"] = f"Bearer {google.issue_access_token(ANN)}"
        google.insert(ANN, ANN, MEETING)

        near = client.list("primary", token=False, updatedMin="2026-10-23T00:00:00Z")
        far = client.list("primary", updatedMin="2026-10-20T00:00:00Z")

        assert len(near.json()["items"]) == 1
        assert reason(far) == (410, "updatedMinTooLongAgo")

    def test_a_page_token_belongs_to_its_query(self, google: GoogleControl, client: CheckedClient) -> None:
        google.seed(ANN, ANN, SMALL)
        google.create_calendar(ANN, "team")
        token = client.list("primary", maxResults=5).json()["nextPageToken"]

        refusals = [
            client.list("primary", maxResults=5, pageToken=token, showDeleted="true"),
            client.list("primary", maxResults=6, pageToken=token),
            client.list("team", maxResults=5, pageToken=token),
            client.list("primary", maxResults=5, pageToken="made-up"),
        ]

        assert [reason(refusal) for refusal in refusals] == [(400, "invalid")] * 4
        assert refusals[0].json()["error"]["message"] == "Invalid page token value."

    @pytest.mark.parametrize("length", [56, 4096, 32768])
    def test_a_sync_token_is_url_safe_base64_with_padding_of_the_length_that_was_set(
        self, google: GoogleControl, client: CheckedClient, length: int
    ) -> None:
        google.configure(sync_token_length=length)

        _, token = client.all("primary")
        _, second = client.all("primary", syncToken=token)

        assert (len(token), token[-1]) == (length, "=")
        assert second != token

    def test_a_quiet_calendar_can_answer_with_the_same_token(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        google.configure(new_token_when_quiet=False)
        _, token = client.all("primary")

        _, quiet = client.all("primary", syncToken=token)
        google.insert(ANN, ANN, MEETING)
        _, busy = client.all("primary", syncToken=token)

        assert quiet == token
        assert busy != token

    def test_some_calendars_never_report_a_deletion(self, google: GoogleControl, client: CheckedClient) -> None:
        google.create_calendar(ANN, "birthdays", reports_deletions=False)
        event = google.insert(ANN, "birthdays", MEETING)["id"]
        _, token = client.all("birthdays")
        google.delete(ANN, "birthdays", event)

        delta, _ = client.all("birthdays", syncToken=token)

        assert delta == {}

    def test_a_cancelled_event_can_keep_its_details_when_they_are_asked_for(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        google.configure(keep_cancelled_details=True)
        _, token = client.all("primary")
        event = google.insert(ANN, ANN, MEETING)["id"]
        google.delete(ANN, ANN, event)

        plain, _ = client.all("primary", syncToken=token)
        asked, _ = client.all("primary", syncToken=token, showDeleted="true")

        assert "summary" not in plain[event]
        assert (asked[event]["status"], asked[event]["summary"]) == ("cancelled", "Planning")


class TestOfficialClient:
    def test_it_refreshes_pages_through_a_full_list_and_a_delta_and_reports_errors(
        self, google: GoogleControl, ann: AccountInfo
    ) -> None:
        google.seed(ANN, ANN, SMALL)
        settings_of_ours = google.behaviour()
        credentials = Credentials(  # type: ignore[no-untyped-call]
            token=None,
            refresh_token=ann.refresh_token,
            token_uri=google.token_uri,
            client_id=settings_of_ours.client_id,
            client_secret=settings_of_ours.client_secret,
        )
        service = build("calendar", "v3", credentials=credentials, client_options={"api_endpoint": google.api_endpoint})

        def walk(**params: object) -> tuple[list[str], str]:
            request, ids = service.events().list(calendarId="primary", maxResults=3, **params), []
            while request is not None:
                page = request.execute()
                ids += [item["id"] for item in page["items"]]
                request = service.events().list_next(request, page)
            return ids, page["nextSyncToken"]

        written = {item["id"] for item in google.truth(ANN, ANN)}
        full, token = walk(showDeleted=True)
        google.churn(8)
        delta, newer = walk(showDeleted=True, syncToken=token)
        calendars = service.calendarList().list().execute()["items"]
        google.expire_sync_tokens()
        with pytest.raises(HttpError) as refused:
            walk(showDeleted=True, syncToken=newer)
        service.close()

        assert set(full) == written
        assert len(full) == len(written)
        assert delta
        assert [item["id"] for item in calendars] == [ANN]
        assert (refused.value.status_code, refused.value.error_details[0]["reason"]) == (
            410,
            "fullSyncRequired",
        )
