"""Odd data: one bad event is set aside and costs nobody else, odd ids work, and nobody's rows meet another's.

The numbers are those of the list of edge cases, `g` for Google, `p` for the platform.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any
from urllib.parse import unquote

import pytest
from sqlalchemy.exc import IntegrityError

from config.queues import Lane
from db.ids import new_id
from db.repositories import units
from sandbox.google.control import GoogleControl
from tenantsync.calendars.connecting import AccountExists, NoSuchCalendar
from tests.support.fleet import Fleet
from tests.support.google_office import ANN, Office, kinds, meeting, meetings
from tests.support.wiretap import Wiretap, adding, mapping

pytest_plugins = ["tests.support.google_fixtures"]

BOB = "bob@example.test"
TEAM = "team@group.calendar.google.com"
NO_EVENTS: Any = [
    "year_zero", "missing_start", "missing_end", "end_before_start", "unknown_event_type", "huge_description",
    "nul_text", "lone_surrogate", "wrong_types",
]  # fmt: skip
DOUBTFUL: Any = ["bad_time_zone", "bad_recurrence", "every_second"]
NOISE = "".join(sha256(bytes([n % 256, n // 256])).hexdigest() for n in range(500))  # does not compress
IDEOGRAPHS = "".join(chr(0x4E00 + int(NOISE[n : n + 3], 16)) for n in range(0, 3 * 1024, 3))
OFFSET_OF_A_DAY: Any = {"start": {"dateTime": "2026-12-01T10:00:00+23:59"}}
STRANGERS = {
    "a week date": {"start": {"date": "2026-W49-2"}, "end": {"date": "2026-W49-3"}},
    "a date without dashes": {"start": {"date": "20261201"}, "end": {"date": "20261202"}},
    "the first moment": {"start": {"dateTime": "0001-01-01T00:00:00+14:00"}},
    "the last moment": {"end": {"dateTime": "9999-12-31T23:59:59-12:00"}},
    "an offset of a day": OFFSET_OF_A_DAY,
    "no offset at all": {"start": {"dateTime": "2026-12-01T10:00:00"}},
    "a start that is a list": {"start": ["2026-12-01T10:00:00Z"]},
    "an end that is a number": {"end": 20261201},
    "date and time at once": {"start": {"date": "2026-12-01", "dateTime": "2026-12-01T10:00:00Z"}},
    "an updated that is a week": {"updated": "2026-W49-2"},
    "an updated that is a word": {"updated": "yesterday"},
    "a status of its own": {"status": "maybe"},
    "a status of null": {"status": None},
    "an etag that is a number": {"etag": 5},
    "a very long series id": {"recurringEventId": NOISE, "originalStartTime": {"dateTime": "2026-12-01T09:00:00Z"}},
    "a series id that is a number": {"recurringEventId": 5},
    "a very long id": {"id": IDEOGRAPHS},
    "a very long uid": {"iCalUID": NOISE},
    "an original start that is none": {"recurringEventId": "x", "originalStartTime": {"date": "soon"}},
    "a huge number": {"sequence": 10**400},
    "NUL in a key": {"extendedProperties": {"private": {"a\0b": "c"}}},
    "a lone surrogate in a key": {"extendedProperties": {"private": {"\ud83d": "c"}}},
    "a tab, a backslash and line ends": {"summary": "a\tb\\c\\N\nd\r\\."},
}
IDS = [
    "de.german#holiday@group.v.calendar.google.com",
    "100%@example.test",
    "a%2Fb%2520c@example.test",
    "team/one@example.test",
    "a b+c&d=e?f;g@example.test",
    "büro-会議@example.test",
]


class TestMalformedEvents:
    @pytest.mark.parametrize("kind", NO_EVENTS)
    def test_g49_one_malformed_event_is_set_aside_with_its_reason_and_the_others_are_applied(
        self, office: Office, kind: Any
    ) -> None:
        office.seed(*meetings(3))
        bad = office.google.add_poison(ANN, ANN, kind)
        office.seed(*meetings(3, first=4))

        office.sync()

        assert office.visible == {f"meeting{number:05d}" for number in range(1, 7)}
        assert office.set_aside.keys() == {bad}
        assert office.set_aside[bad]
        assert office.health == ("synced", 0)

    @pytest.mark.parametrize("kind", NO_EVENTS)
    def test_g49_a_malformed_event_in_a_delta_does_not_keep_the_token_from_advancing(
        self, tapped_office: Office, tap: Wiretap, kind: Any
    ) -> None:
        tapped_office.seed(*meetings(3))
        tapped_office.sync()
        tapped_office.google.add_poison(ANN, ANN, kind)
        tapped_office.patch("meeting00002", summary="changed beside it")
        tapped_office.sync()
        cursor = tap.pages[-1]["nextSyncToken"]

        asked = tapped_office.sync()

        assert asked[0].query["syncToken"] == cursor
        assert tapped_office.events["meeting00002"]["title"] == "changed beside it"

    @pytest.mark.parametrize("kind", DOUBTFUL)
    def test_g49_an_event_that_cannot_be_expanded_is_kept_or_set_aside_but_never_dropped(
        self, office: Office, kind: Any
    ) -> None:
        office.seed(*meetings(3))
        bad = office.google.add_poison(ANN, ANN, kind)

        office.sync()

        assert bad in office.visible | office.set_aside.keys()
        assert office.visible >= {"meeting00001", "meeting00002", "meeting00003"}
        assert office.health == ("synced", 0)

    @pytest.mark.parametrize("odd", STRANGERS.values(), ids=STRANGERS)
    def test_g49_a_stranger_is_kept_or_set_aside_and_costs_no_other_event(
        self, tapped_office: Office, tap: Wiretap, odd: Any
    ) -> None:
        tapped_office.seed(*meetings(3))
        tapped_office.sync()
        tapped_office.patch("meeting00002", summary="changed beside it")
        stranger = {"status": "confirmed", **meeting(99), **odd}
        tap.rewrite = adding({1: [stranger]})

        tapped_office.sync()

        assert tapped_office.titles["meeting00002"] == "changed beside it"
        assert len(tapped_office.titles) + len(tapped_office.set_aside) == 4
        assert tapped_office.calendar["cursor"] == tap.pages[-1]["nextSyncToken"]
        assert tapped_office.health == ("synced", 0)

    def test_g49_a_stranger_in_a_listing_that_is_staged_costs_no_other_event(self, office: Office) -> None:
        office.seed(meeting(0, **OFFSET_OF_A_DAY), *meetings(2600))

        office.sync()

        assert office.titles.keys() >= {f"meeting{number:05d}" for number in range(1, 2601)}
        assert office.set_aside.keys() == {"meeting00000"}
        assert office.health == ("synced", 0)

    def test_g49_a_stranger_costs_the_other_tenants_of_its_batch_nothing(self, office: Office) -> None:
        bob = replace(office, tenant=office.fleet.tenant("bob"), account=office.google.create_account(BOB), key=BOB)
        bob.fleet.google(bob.tenant, bob.google, account=bob.account)
        office.fleet.run()
        office.seed(meeting(0, **OFFSET_OF_A_DAY))
        bob.seed(*meetings(3))

        office.fleet.sync()

        bob.assert_truth()
        assert (bob.health, bob.fleet.unit(bob.tenant)["state"]) == (("synced", 0), "idle")
        assert office.set_aside.keys() == {"meeting00000"}

    def test_g49_the_other_2499_of_a_page_are_applied(self, office: Office) -> None:
        office.seed(*meetings(2499))
        bad = office.google.add_poison(ANN, ANN, "lone_surrogate")

        office.sync()

        assert len(office.visible) == 2499
        assert office.set_aside.keys() == {bad}

    def test_g49_every_malformed_event_has_its_own_reason(self, office: Office) -> None:
        bad = {office.google.add_poison(ANN, ANN, kind) for kind in NO_EVENTS}

        office.sync()

        assert office.set_aside.keys() == bad
        assert len(set(office.set_aside.values())) >= len(NO_EVENTS) - 1

    def test_g49_an_event_that_was_mended_leaves_quarantine_and_is_shown(self, office: Office) -> None:
        office.seed(meeting(1, start={"dateTime": "0000-12-30T00:00:00Z"}))
        office.sync()
        aside = office.set_aside.keys()
        office.seed(meeting(1))

        office.sync()

        assert aside == {"meeting00001"}
        assert office.set_aside == {}
        office.assert_truth()

    def test_g49_a_malformed_event_that_was_deleted_leaves_quarantine(self, office: Office) -> None:
        bad = office.google.add_poison(ANN, ANN, "year_zero")
        office.sync()
        office.delete(bad)

        office.sync()

        assert (office.set_aside, office.events) == ({}, {})

    def test_g49_a_malformed_event_is_set_aside_once_however_often_it_is_listed(self, office: Office) -> None:
        bad = office.google.add_poison(ANN, ANN, "year_zero")
        office.sync()
        office.expire()

        office.sync()

        assert office.set_aside.keys() == {bad}
        assert office.health == ("synced", 0)

    def test_g49_a_good_event_that_turned_bad_does_not_stop_the_calendar(self, office: Office) -> None:
        office.seed(*meetings(3))
        office.sync()
        office.seed(meeting(1, end={"dateTime": "1999-01-01T00:00:00Z"}), meeting(2, summary="changed"))

        office.sync()

        assert office.set_aside.keys() == {"meeting00001"}
        assert office.events["meeting00002"]["title"] == "changed"
        assert office.health == ("synced", 0)

    @pytest.mark.parametrize("item", [None, 5, "text", [], {}, {"id": ""}, {"id": 5}], ids=repr)
    def test_g49_an_item_without_an_id_costs_no_other_event(
        self, tapped_office: Office, tap: Wiretap, item: Any
    ) -> None:
        tapped_office.seed(*meetings(3))
        tap.rewrite = lambda _, page: page | {"items": [item, *page["items"]]}

        tapped_office.sync()

        assert len(tapped_office.visible) == 3
        assert len(tapped_office.set_aside) == 1
        assert tapped_office.health == ("synced", 0)


class TestAccessRoles:
    def test_g50_a_calendar_of_busy_times_alone_is_stored_without_titles(
        self, make_office: Callable[..., Office]
    ) -> None:
        office = make_office(calendar={"calendar": TEAM, "access_role": "freeBusyReader"})
        office.seed(*meetings(3))

        office.sync()

        assert [(row["title"], row["visibility"]) for row in office.events.values()] == [(None, "private")] * 3
        assert all(row["starts_at"] for row in office.events.values())
        assert (office.health, office.set_aside) == (("synced", 0), {})
        office.assert_truth()

    def test_g50_an_upgrade_to_reader_fills_the_titles_in(self, make_office: Callable[..., Office]) -> None:
        office = make_office(calendar={"calendar": TEAM, "access_role": "freeBusyReader"})
        office.seed(*meetings(3))
        office.sync()
        office.google.update_calendar(ANN, TEAM, access_role="reader")
        office.expire()

        office.sync()

        assert {row["title"] for row in office.events.values()} == {"Meeting 1", "Meeting 2", "Meeting 3"}
        office.assert_truth()

    def test_g50_a_downgrade_to_busy_times_takes_the_titles_away(self, make_office: Callable[..., Office]) -> None:
        office = make_office(calendar={"calendar": TEAM, "access_role": "reader"})
        office.seed(*meetings(3))
        office.sync()
        office.google.update_calendar(ANN, TEAM, access_role="freeBusyReader")
        office.expire()

        office.sync()

        assert {row["title"] for row in office.events.values()} == {None}
        assert "Meeting 1" not in str(office.events)


class TestUnknownFields:
    def test_g51_fields_that_nobody_knows_are_ignored_and_kept_in_raw(self, office: Office) -> None:
        unknown = {"eventLabelId": "label-7", "telepathy": {"range": [1, 2.5, None]}, "x" * 300: True, "": "empty"}
        office.seed(meeting(1, **unknown))

        office.sync()

        raw = office.events["meeting00001"]["raw"]
        assert {key: raw[key] for key in unknown} == unknown
        assert office.set_aside == {}
        office.assert_truth()

    def test_g51_a_change_of_an_unknown_field_alone_is_a_change(self, office: Office) -> None:
        office.seed(meeting(1, eventLabelId="label-7"))
        office.sync()
        before = office.versions
        office.seed(meeting(1, eventLabelId="label-8"))

        office.sync()

        assert office.events["meeting00001"]["raw"]["eventLabelId"] == "label-8"
        assert office.versions["meeting00001"] > before["meeting00001"]


class TestIds:
    @pytest.mark.parametrize("calendar", IDS)
    def test_g52_a_calendar_id_is_escaped_exactly_once(
        self, make_office: Callable[..., Office], tap: Wiretap, calendar: str
    ) -> None:
        office = make_office(calendar={"calendar": calendar}, google_api_endpoint=f"{tap.url}/calendar/v3/")
        office.seed(*meetings(3))
        office.sync()
        office.patch("meeting00001", summary="changed")
        tap.raw_paths.clear()

        office.sync()

        names = [path.partition("/calendars/")[2].partition("/events")[0] for path in tap.raw_paths]
        assert calendar in [unquote(name) for name in names]
        assert {"#", "/", "?", " "}.isdisjoint("".join(names))
        office.assert_truth()

    def test_p53_the_primary_calendar_is_kept_under_its_address(self, office: Office) -> None:
        office.sync()

        keys = office.fleet.rows("select provider_key from sync.calendars")

        assert keys == [{"provider_key": ANN}]
        assert {entry.path.split("/")[4] for entry in office.google.requests(endpoint="events.list")} <= {
            ANN,
            ANN.replace("@", "%40"),
        }

    def test_p53_primary_and_the_address_are_one_row(self, fleet: Fleet, google: GoogleControl) -> None:
        acme, account = fleet.tenant(), google.create_account(ANN)
        with suppress(NoSuchCalendar):
            fleet.google(acme, google, account=account, only=("primary",))
        with suppress(AccountExists):
            fleet.google(acme, google, account=account, only=(ANN,))

        fleet.run()

        assert fleet.calendar(acme)["provider_key"] == ANN

    def test_p53_an_account_that_is_connected_anew_keeps_its_one_row(self, office: Office) -> None:
        office.sync()
        before = office.calendar
        office.fleet.execute("update sync.accounts set state = 'needs_reauth'")
        office.fleet.google(office.tenant, office.google, account=office.account)

        office.sync()

        assert office.calendar["calendar_id"] == before["calendar_id"]


class TestSeparation:
    def test_p54_the_same_ids_in_two_tenants_are_separate_rows(self, make_office: Callable[..., Office]) -> None:
        ann = make_office(ANN, calendar={"calendar": TEAM})
        bob = make_office(BOB, calendar={"calendar": TEAM})
        ann.seed(meeting(1, summary="Ann's"), meeting(2))
        bob.seed(meeting(1, summary="Bob's"), meeting(2))
        ann.sync()
        bob.sync()
        bob.delete("meeting00002")

        bob.sync()

        assert (ann.visible, bob.visible) == ({"meeting00001", "meeting00002"}, {"meeting00001"})
        assert (ann.events["meeting00001"]["title"], bob.events["meeting00001"]["title"]) == ("Ann's", "Bob's")
        assert ann.tombstones == {}

    def test_p54_two_tenants_that_connect_one_account_have_rows_and_tokens_of_their_own(self, office: Office) -> None:
        other = replace(office, tenant=office.fleet.tenant("other"))
        office.fleet.google(other.tenant, office.google, account=office.account)
        office.seed(*meetings(3))
        office.sync()
        other.sync()
        office.google.forget_sync_token(office.calendar["cursor"])

        asked = [kinds(office.sync()), kinds(other.sync())]

        assert asked == [["delta", "full"], ["delta"]]
        assert office.events.keys() == other.events.keys()
        assert {row["event_id"] for row in office.events.values()}.isdisjoint(
            row["event_id"] for row in other.events.values()
        )

    def test_p54_two_accounts_of_one_tenant_have_rows_and_tokens_of_their_own(
        self, make_office: Callable[..., Office]
    ) -> None:
        ann = make_office(ANN, calendar={"calendar": TEAM})
        bob = replace(ann, account=ann.google.create_account(BOB))
        bob.google.create_calendar(BOB, TEAM)
        ann.fleet.google(ann.tenant, ann.google, account=bob.account)
        ann.seed(meeting(1, summary="Ann's"))
        bob.seed(meeting(1, summary="Bob's"))
        ann.sync()
        bob.expire()

        asked_of_ann = ann.sync()

        asked_of_bob = ann.google.requests(account=BOB, calendar=TEAM, endpoint="events.list")
        titles = ann.fleet.rows(
            "select a.identity, e.title from sync.events e join sync.calendars c using (calendar_id)"
            " join sync.accounts a using (account_id) where e.provider_key = 'meeting00001' order by 1"
        )
        assert titles == [{"identity": ANN, "title": "Ann's"}, {"identity": BOB, "title": "Bob's"}]
        assert (kinds(asked_of_ann), kinds(asked_of_bob)) == (["delta"], ["full", "delta", "full"])

    def test_p54_a_run_cannot_move_the_token_of_another_tenants_calendar(
        self, make_office: Callable[..., Office]
    ) -> None:
        ann, bob = make_office(ANN), make_office(BOB)
        ann.sync()
        bob.sync()
        before = bob.calendar
        ann.fleet.due(ann.tenant)
        (claimed,) = ann.fleet.claim(Lane.SYNC)
        with ann.fleet.database.transaction() as connection:
            held = [(claimed.unit_id, claimed.fence)]
            units.start(connection, batch_id=new_id(), units=held, worker="worker-1", lease=timedelta(seconds=5))
        foreign = {
            "unit_id": claimed.unit_id,
            "calendar_id": before["calendar_id"],
            "success": True,
            "attempted": True,
            "cursor": "of another tenant",
            "query_version": 99,
            "delay": 60.0,
            "listed": True,
            "calls": 1,
            "bytes": 1,
            "added": 1,
            "blamed": False,
            "bulk": False,
        }

        with ann.fleet.database.transaction() as connection:
            run = {"unit_id": claimed.unit_id, "fence": claimed.fence, "outcome": "quiet"}
            ended = units.finish(connection, runs=[run], calendars=[foreign])

        assert ended == {claimed.unit_id}
        assert bob.calendar == before

    @pytest.mark.parametrize("table", ["sync.calendars", "sync.accounts"])
    def test_p54_a_row_that_names_another_tenants_parent_is_refused_by_the_database(
        self, make_office: Callable[..., Office], table: str
    ) -> None:
        ann, bob = make_office(ANN), make_office(BOB)

        with pytest.raises(IntegrityError):
            ann.fleet.execute(
                f"update {table} set tenant_id = :theirs where tenant_id = :ours",
                theirs=bob.tenant.tenant_id,
                ours=ann.tenant.tenant_id,
            )


class TestOrder:
    def test_g55_content_that_a_late_worker_fetched_earlier_does_not_overwrite_newer_content(
        self, make_office: Callable[..., Office], make_fleet: Callable[..., Fleet], tap: Wiretap
    ) -> None:
        slow = make_office(google_api_endpoint=f"{tap.url}/calendar/v3/", sync_lease="60s")
        successor = replace(slow, fleet=make_fleet(worker="worker-2"))
        slow.seed(meeting(1, summary="first"))
        slow.sync()
        slow.patch("meeting00001", summary="older")
        slow.fleet.due()
        tap.hold(page=1)
        late = threading.Thread(target=slow.fleet.run_lane, args=(Lane.SYNC,))
        late.start()
        tap.wait_until_held()
        slow.patch("meeting00001", summary="newer")
        slow.lose_lease()
        successor.run()

        tap.release()
        late.join()

        assert slow.events["meeting00001"]["title"] == "newer"
        slow.assert_truth()

    def test_g55_a_change_of_reminders_alone_is_applied_though_updated_stays(self, office: Office) -> None:
        office.seed(meeting(1))
        office.sync()
        before = office.events["meeting00001"]
        office.patch("meeting00001", reminders={"useDefault": False, "overrides": [{"method": "popup", "minutes": 3}]})

        office.sync()

        after = office.events["meeting00001"]
        assert after["raw"]["updated"] == before["raw"]["updated"]
        assert after["raw"]["reminders"]["overrides"] == [{"method": "popup", "minutes": 3}]
        assert after["version"] > before["version"]
        office.assert_truth()

    def test_g55_a_later_answer_wins_though_its_updated_is_older(self, tapped_office: Office, tap: Wiretap) -> None:
        tapped_office.seed(meeting(1))
        tapped_office.sync()
        tapped_office.patch("meeting00001", summary="restored from a backup")
        tap.rewrite = mapping(lambda item: item | {"updated": "2001-01-01T00:00:00.000Z"})

        tapped_office.sync()

        assert tapped_office.events["meeting00001"]["title"] == "restored from a backup"
