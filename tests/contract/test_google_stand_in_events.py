"""Single events, series, calendars and roles at the stand-in follow Google's rules."""

from datetime import datetime
from typing import Any

import pytest

from sandbox.google.control import GoogleControl
from sandbox.google.specs import AccountInfo, SeedSpec
from tests.contract.google_schema import ANN, DAILY_ALL_DAY, EVENTS, MEETING, WEEKLY, CheckedClient, reason

pytest_plugins = ["tests.contract.google_fixtures"]


class TestEvents:
    def test_ids_are_base32hex_and_stay_taken_after_a_deletion(self, client: CheckedClient) -> None:
        path = "calendars/primary/events"
        made = client.ask("POST", path, schema="Event", body=MEETING).json()["id"]
        mine = MEETING | {"id": "abc123v"}

        first = client.ask("POST", path, schema="Event", body=mine)
        client.ask("DELETE", f"{path}/abc123v", schema="")
        second = client.ask("POST", path, schema="Event", body=mine)
        bad = client.ask("POST", path, schema="Event", body=MEETING | {"id": "Not-Base32"})

        assert set(made) <= set("abcdefghijklmnopqrstuv0123456789")
        assert first.status_code == 200
        assert reason(second) == (409, "duplicate")
        assert reason(bad) == (400, "invalid")

    def test_an_etag_is_twice_the_update_time_and_no_two_updates_share_one(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        google.hold_clock()
        google.seed(ANN, ANN, SeedSpec(events=20, series_every=0))
        google.insert(ANN, ANN, MEETING)
        google.insert(ANN, ANN, MEETING)

        items, _ = client.all("primary")

        stamps = [round(datetime.fromisoformat(item["updated"]).timestamp() * 1000) for item in items.values()]
        assert [item["etag"] for item in items.values()] == [f'"{stamp * 2000}"' for stamp in stamps]
        assert stamps == sorted(set(stamps))

    def test_a_change_of_reminders_alone_renews_the_etag_but_not_the_update_time(
        self, google: GoogleControl, ann: AccountInfo
    ) -> None:
        before = google.insert(ANN, ANN, MEETING)

        after = google.patch(ANN, ANN, before["id"], {"reminders": {"useDefault": False}})

        assert after["updated"] == before["updated"]
        assert after["etag"] != before["etag"]

    def test_conditional_requests_are_honoured(self, google: GoogleControl, client: CheckedClient) -> None:
        event = google.insert(ANN, ANN, MEETING)
        path = f"calendars/primary/events/{event['id']}"
        stale = {"If-Match": '"1"'}

        unchanged = client.ask("GET", path, schema="Event", headers={"If-None-Match": event["etag"]})
        refused = client.ask("PATCH", path, schema="Event", body={"summary": "x"}, headers=stale)
        done = client.ask("PATCH", path, schema="Event", body={"summary": "x"}, headers={"If-Match": event["etag"]})

        assert unchanged.status_code == 304
        assert reason(refused) == (412, "conditionNotMet")
        assert done.json()["summary"] == "x"

    def test_a_put_replaces_what_a_patch_would_keep(self, google: GoogleControl, client: CheckedClient) -> None:
        event = google.insert(ANN, ANN, MEETING | {"location": "Room 1"})
        path = f"calendars/primary/events/{event['id']}"

        patched = client.ask("PATCH", path, schema="Event", body={"summary": "new"}).json()
        replaced = client.ask("PUT", path, schema="Event", body=MEETING).json()

        assert patched["location"] == "Room 1"
        assert "location" not in replaced
        assert replaced["iCalUID"] == event["iCalUID"]

    def test_a_deleted_event_can_still_be_got_is_gone_for_deletion_and_can_be_restored(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        event = google.insert(ANN, ANN, MEETING)["id"]
        path = f"calendars/primary/events/{event}"

        first = client.ask("DELETE", path, schema="")
        got = client.ask("GET", path, schema="Event")
        second = client.ask("DELETE", path, schema="")
        google.restore(ANN, ANN, event)

        assert first.status_code == 204
        assert got.json()["status"] == "cancelled"
        assert reason(second) == (410, "deleted")
        assert client.all("primary")[0][event]["summary"] == "Planning"

    def test_instance_ids_are_in_utc_while_the_series_keeps_its_local_time(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        spring = {"start": {"dateTime": "2026-03-24T10:00:00+01:00", "timeZone": "Europe/Berlin"}}
        ends = {"end": {"dateTime": "2026-03-24T11:00:00+01:00", "timeZone": "Europe/Berlin"}}
        rule = {"recurrence": ["RRULE:FREQ=WEEKLY;COUNT=2"]}
        master = google.insert(ANN, ANN, WEEKLY | spring | ends | rule)["id"]

        page = client.ask("GET", f"calendars/primary/events/{master}/instances", schema="Events").json()

        assert [item["id"] for item in page["items"]] == [
            f"{master}_20260324T090000Z",
            f"{master}_20260331T080000Z",
        ]
        assert page["items"][1]["start"]["dateTime"] == "2026-03-31T10:00:00+02:00"

    def test_an_edited_occurrence_becomes_an_exception_with_the_key_of_its_original_day(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        master = google.insert(ANN, ANN, DAILY_ALL_DAY)["id"]
        moved = {"start": {"date": "2026-12-20"}, "end": {"date": "2026-12-21"}}
        path = f"calendars/primary/events/{master}_20261203"

        done = client.ask("PATCH", path, schema="Event", body=moved).json()
        outside = client.ask("GET", f"calendars/primary/events/{master}_20261209", schema="Event")

        assert done["originalStartTime"] == {"date": "2026-12-03"}
        assert client.all("primary")[0][f"{master}_20261203"]["start"] == {"date": "2026-12-20"}
        assert reason(outside) == (404, "notFound")

    def test_exdates_and_until_end_a_series_in_its_own_zone(self, google: GoogleControl, client: CheckedClient) -> None:
        lines = ["RRULE:FREQ=WEEKLY;UNTIL=20261222T090000Z", "EXDATE;TZID=Europe/Berlin:20261208T100000"]
        google.insert(ANN, ANN, WEEKLY | {"recurrence": lines})

        items, _ = client.all("primary", singleEvents="true")

        days = [item["start"]["dateTime"][8:10] for item in items.values()]
        assert days == ["01", "15", "22"]

    def test_exceptions_that_no_longer_fit_the_series_come_as_cancelled(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        master = google.insert(ANN, ANN, WEEKLY)["id"]
        override = google.override_instance(ANN, ANN, master, "2026-12-08T09:00:00Z", {"summary": "moved"})
        _, token = client.all("primary")
        google.patch(ANN, ANN, master, {"recurrence": ["RRULE:FREQ=WEEKLY;BYDAY=TU;COUNT=1"]})

        delta, _ = client.all("primary", syncToken=token)

        assert delta[master]["sequence"] == 1
        assert delta[override["id"]]["status"] == "cancelled"

    def test_this_and_following_ends_one_series_and_starts_another(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        master = google.insert(ANN, ANN, WEEKLY)["id"]

        tail = google.split(ANN, ANN, master, "2026-12-15T09:00:00Z", {"summary": "New name"})
        window = {"timeMin": "2026-12-01T00:00:00Z", "timeMax": "2026-12-24T00:00:00Z"}
        items, _ = client.all("primary", singleEvents="true", **window)

        assert tail["id"] == f"{master}_R20261215T090000"
        assert [item["summary"] for item in items.values()] == ["Stand-up"] * 2 + ["New name"] * 2

    def test_a_move_leaves_a_stub_behind_and_keeps_the_uid(self, google: GoogleControl, client: CheckedClient) -> None:
        google.create_calendar(ANN, "team")
        event = google.insert(ANN, ANN, WEEKLY)
        google.cancel_instance(ANN, ANN, event["id"], "2026-12-08T09:00:00Z")
        _, source = client.all("primary")
        _, target = client.all("team")

        path = f"calendars/primary/events/{event['id']}/move"
        moved = client.ask("POST", path, {"destination": "team"}, schema="Event").json()
        left, _ = client.all("primary", syncToken=source)
        came, _ = client.all("team", syncToken=target)

        assert set(left[event["id"]]) == {"kind", "etag", "id", "status"}
        assert moved["iCalUID"] == event["iCalUID"]
        assert [item["status"] for item in came.values()] == ["confirmed", "cancelled"]

    def test_an_event_cannot_move_to_where_its_id_lives_and_an_occurrence_cannot_move_at_all(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        google.create_calendar(ANN, "team")
        master = google.insert(ANN, ANN, WEEKLY)["id"]
        google.seed_events(ANN, "team", [WEEKLY | {"id": master}])
        query = {"destination": "team"}

        whole = client.ask("POST", f"{EVENTS}/{master}/move", query, schema="Event")
        part = client.ask("POST", f"{EVENTS}/{master}_20261208T090000Z/move", query, schema="Event")

        assert reason(whole) == (409, "duplicate")
        assert reason(part) == (400, "cannotChangeOrganizerOfInstance")

    def test_a_series_can_move_there_and_back(self, google: GoogleControl, client: CheckedClient) -> None:
        google.create_calendar(ANN, "team")
        master = google.insert(ANN, ANN, WEEKLY)["id"]
        google.override_instance(ANN, ANN, master, "2026-12-08T09:00:00Z", {"summary": "moved"})
        before = [item["id"] for item in google.truth(ANN, ANN)]

        google.move(ANN, ANN, master, destination="team")
        google.move(ANN, "team", master, destination=ANN)

        assert [item["id"] for item in google.truth(ANN, ANN)] == before
        assert client.all("team")[0] == {}

    def test_a_restored_series_tells_of_its_exceptions_again_and_a_deleted_one_has_no_occurrences(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        master = google.insert(ANN, ANN, WEEKLY)["id"]
        override = google.override_instance(ANN, ANN, master, "2026-12-08T09:00:00Z", {"summary": "moved"})
        google.delete(ANN, ANN, master)
        _, token = client.all("primary")

        path = f"calendars/primary/events/{master}_20261215T090000Z"
        while_deleted = client.ask("GET", path, schema="Event")
        google.restore(ANN, ANN, master)
        delta, _ = client.all("primary", syncToken=token)

        assert reason(while_deleted) == (404, "notFound")
        assert set(delta) == {master, override["id"]}

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"end": None}, "required"),
            ({"end": {"dateTime": "2026-12-01T09:00:00+01:00"}}, "timeRangeEmpty"),
            ({"end": {"date": "2026-12-02"}}, "invalid"),
            ({"start": {"dateTime": "tomorrow"}}, "invalid"),
            ({"status": "gone"}, "invalid"),
            ({"start": {"dateTime": "2026-12-01T10:00:00Z"}, "recurrence": ["RRULE:FREQ=DAILY"]}, "required"),
            ({"recurrence": ["RRULE:FREQ=NEVER"]}, "invalid"),
        ],
    )
    def test_a_malformed_write_is_refused(self, client: CheckedClient, change: Any, why: str) -> None:
        body = {key: value for key, value in (MEETING | change).items() if value is not None}

        refused = client.ask("POST", "calendars/primary/events", schema="Event", body=body)

        assert reason(refused) == (400, why)

    def test_an_override_may_stand_without_a_master_and_write_its_start_in_another_zone(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        start = {"dateTime": "2026-12-02T04:00:00-05:00", "timeZone": "America/New_York"}
        alone = MEETING | {"id": "m1m1m1_20261202T090000Z", "recurringEventId": "m1m1m1"}
        google.seed_events(ANN, ANN, [alone | {"originalStartTime": start}])
        _, token = client.all("primary")
        google.delete(ANN, ANN, alone["id"])

        delta, _ = client.all("primary", syncToken=token)

        assert delta[alone["id"]]["originalStartTime"] == start
        assert client.all("primary")[0] == {}


class TestCalendarsAndRoles:
    def test_the_calendar_list_pages_and_hides_what_is_hidden_or_deleted(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        google.create_calendar(ANN, "shown")
        google.create_calendar(ANN, "secret", hidden=True)
        google.create_calendar(ANN, "old")
        google.remove_calendar(ANN, "old")
        path = "users/me/calendarList"

        first = client.ask("GET", path, {"maxResults": 1}, schema="CalendarList").json()
        rest_query = {"maxResults": 1, "pageToken": first["nextPageToken"]}
        rest = client.ask("GET", path, rest_query, schema="CalendarList").json()
        whole = client.ask("GET", path, {"showHidden": "true", "showDeleted": "true"}, schema="CalendarList").json()

        assert [first["items"][0]["id"], rest["items"][0]["id"]] == [ANN, "shown"]
        assert first["items"][0]["primary"] is True
        assert {item["id"]: item.get("deleted", False) for item in whole["items"]} == {
            ANN: False,
            "shown": False,
            "secret": False,
            "old": True,
        }

    def test_a_calendar_list_delta_tells_of_entries_but_not_of_acl_changes(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        google.create_calendar(ANN, "kept")
        google.create_calendar(ANN, "gone")
        path = "users/me/calendarList"
        token = client.ask("GET", path, schema="CalendarList").json()["nextSyncToken"]
        google.update_calendar(ANN, "kept", access_role="reader")
        google.remove_calendar(ANN, "gone")

        delta = client.ask("GET", path, {"syncToken": token}, schema="CalendarList").json()
        google.expire_calendar_list_tokens(ANN)
        expired = client.ask("GET", path, {"syncToken": delta["nextSyncToken"]}, schema="CalendarList")
        restricted = client.ask("GET", path, {"syncToken": token, "showHidden": "false"}, schema="CalendarList")

        assert [(item["id"], item["deleted"]) for item in delta["items"]] == [("gone", True)]
        assert reason(expired) == (410, "fullSyncRequired")
        assert reason(restricted) == (400, "syncTokenWithRequestRestrictions")

    def test_primary_is_an_alias_and_an_odd_id_is_escaped_once(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        google.create_calendar(ANN, "a#b%c/d@größe")

        primary = client.ask("GET", "calendars/primary", schema="Calendar")
        odd = client.ask("GET", "calendars/a%23b%25c%2Fd%40gr%C3%B6%C3%9Fe", schema="Calendar")
        entry = client.ask("GET", "users/me/calendarList/primary", schema="CalendarListEntry")
        twice = client.ask("GET", "calendars/a%2523b%2525c%252Fd%2540gr", schema="Calendar")

        assert primary.json()["id"] == entry.json()["id"] == ANN
        assert odd.json()["id"] == "a#b%c/d@größe"
        assert reason(twice) == (404, "notFound")

    def test_a_free_busy_reader_sees_times_only_and_may_not_write(
        self, google: GoogleControl, client: CheckedClient
    ) -> None:
        event = google.insert(ANN, ANN, MEETING | {"location": "Room 1"})["id"]
        google.update_calendar(ANN, ANN, access_role="freeBusyReader")

        page = client.list("primary").json()
        refused = client.ask("DELETE", f"calendars/primary/events/{event}", schema="")

        assert page["accessRole"] == "freeBusyReader"
        assert not {"summary", "location", "creator"} & page["items"][0].keys()
        assert page["items"][0]["start"] == MEETING["start"]
        assert reason(refused) == (403, "requiredAccessLevel")

    def test_another_accounts_calendar_is_not_found(self, google: GoogleControl, client: CheckedClient) -> None:
        google.create_account("bob@example.test")

        assert reason(client.list("bob@example.test")) == (404, "notFound")
