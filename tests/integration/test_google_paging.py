"""Pages and tokens: what counts is the last page's token together with the rows of all pages, or nothing.

The numbers are those of the list of edge cases, `g` for Google.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.queues import Lane
from sandbox.google.specs import Fault
from tests.support.fleet import Fleet
from tests.support.google_office import Office, kinds, meeting, meetings
from tests.support.wiretap import Wiretap, adding, repeating, replacing

pytest_plugins = ["tests.support.google_fixtures"]

BREAKS = ["reset", "truncated_json", "cut_gzip", "html_200", "status"]
TOKENS = {
    "padded": "CPDAlvWDx70CEPDAlvWDx70CGAU=",
    "base64": "CMi+w6bRsfwC/Mi+w6bRsfwCGAUgnvmb8wE==",
    "base64url": "COD779Kvn-YC_EAAYAQ==",
    "reserved": "a%2Bb%b&syncToken=c;d?e#f:g@h,i j",
    "long": "Aa0+/=-_" * 512,
}


class TestInterruption:
    @pytest.mark.parametrize("kind", BREAKS)
    def test_g1_a_delta_that_breaks_off_on_page_three_leaves_no_trace(self, office: Office, kind: Any) -> None:
        office.seed(*meetings(3))
        office.sync()
        before = office.stored()
        office.google.configure(page_size=2)
        office.seed(*meetings(6, first=2))
        office.google.add_fault(Fault(kind=kind, list_kind="delta", page="later", skip=1))

        asked = office.sync()

        assert kinds(asked) == ["delta", "delta+", "delta+"]
        assert office.stored() == before

    def test_g1_the_run_after_a_broken_delta_ends_at_truth(self, office: Office) -> None:
        office.seed(*meetings(3))
        office.sync()
        office.google.configure(page_size=2)
        office.seed(*meetings(6, first=2))
        office.delete("meeting00001")
        office.google.add_fault(Fault(kind="reset", list_kind="delta", page="later", skip=1))
        office.sync()

        asked = office.sync()

        assert kinds(asked) == ["delta", "delta+", "delta+", "delta+"]
        office.assert_truth()

    def test_g1_a_first_listing_that_breaks_off_after_pages_were_staged_shows_nothing(self, office: Office) -> None:
        office.fill(events=3000)
        office.google.configure(page_size=900)
        office.google.add_fault(Fault(kind="reset", list_kind="full", page="later", skip=2))

        asked = office.sync()

        assert kinds(asked) == ["full", "full+", "full+", "full+"]
        assert office.events == {}
        assert (office.calendar["cursor"], office.calendar["state"]) == (None, "new")

    def test_g1_a_listing_that_broke_off_after_pages_were_staged_starts_over_and_ends_at_truth(
        self, office: Office
    ) -> None:
        office.fill(events=3000)
        office.google.configure(page_size=900)
        office.google.add_fault(Fault(kind="reset", list_kind="full", page="later", skip=2))
        office.sync()
        office.churn(50)

        office.sync()

        office.assert_truth()

    def test_g1_a_worker_that_was_taken_over_after_page_two_writes_nothing(
        self, make_office: Callable[..., Office], make_fleet: Callable[..., Fleet], tap: Wiretap
    ) -> None:
        slow = make_office(google_api_endpoint=f"{tap.url}/calendar/v3/", sync_lease="60s")
        successor = replace(slow, fleet=make_fleet(worker="worker-2"))
        slow.seed(*meetings(3))
        slow.sync()
        slow.google.configure(page_size=2)
        slow.seed(*meetings(6, first=2))
        slow.fleet.due()
        tap.hold(page=3)
        late = threading.Thread(target=slow.fleet.run_lane, args=(Lane.SYNC,))
        late.start()
        tap.wait_until_held()
        slow.churn(20)
        slow.lose_lease()
        assert kinds(successor.run())[0] == "delta"
        done = successor.stored()

        tap.release()
        late.join()

        assert slow.stored() == done
        slow.assert_truth()


class TestQuery:
    def test_g2_every_further_page_of_a_full_listing_repeats_the_query_and_adds_the_page_token(
        self, office: Office
    ) -> None:
        office.google.configure(page_size=2)
        office.seed(*meetings(6))

        first, *further = [entry.query for entry in office.sync()]

        tokens = [query.pop("pageToken") for query in further]
        assert further == [first, first]
        assert len(set(tokens)) == 2
        assert first.keys().isdisjoint({"syncToken", "pageToken"})

    def test_g2_every_further_page_of_a_delta_repeats_the_sync_token_too(self, office: Office) -> None:
        office.seed(*meetings(1))
        office.sync()
        cursor = office.calendar["cursor"]
        office.google.configure(page_size=2)
        office.seed(*meetings(6))

        first, *further = [entry.query for entry in office.sync()]

        tokens = [query.pop("pageToken") for query in further]
        assert further == [first, first]
        assert len(set(tokens)) == 2
        assert first["syncToken"] == cursor

    def test_g2_a_delta_is_asked_for_with_the_parameters_of_the_full_listing(self, office: Office) -> None:
        (full,) = office.sync()

        (delta,) = office.sync()

        assert {**full.query, "syncToken": delta.query["syncToken"]} == delta.query

    def test_g2_the_fixed_query_keeps_series_whole_and_asks_for_deletions_without_any_window(
        self, office: Office
    ) -> None:
        (full,) = office.sync()

        assert full.query["singleEvents"] == "false"
        assert full.query["showDeleted"] == "true"
        assert full.query["maxResults"] == "2500"
        assert full.query.keys().isdisjoint({"timeMin", "timeMax", "q", "orderBy", "updatedMin"})


class TestTokens:
    def test_g3_a_sync_token_on_the_first_page_of_many_is_not_taken_for_the_end(
        self, tapped_office: Office, tap: Wiretap
    ) -> None:
        tapped_office.google.configure(page_size=2)
        tapped_office.seed(*meetings(6))
        tapped_office.google.add_fault(Fault(kind="sync_token_on_first_page"))

        asked = tapped_office.sync()

        assert "nextSyncToken" in tap.pages[0]
        assert kinds(asked) == ["full", "full+", "full+"]
        assert tapped_office.calendar["cursor"] == tap.pages[-1]["nextSyncToken"]
        tapped_office.assert_truth()

    def test_g3_a_sync_token_on_the_first_page_of_a_delta_is_not_taken_for_the_end(
        self, tapped_office: Office, tap: Wiretap
    ) -> None:
        tapped_office.sync()
        tapped_office.google.configure(page_size=2)
        tapped_office.seed(*meetings(6))
        tapped_office.google.add_fault(Fault(kind="sync_token_on_first_page"))

        asked = tapped_office.sync()

        assert "nextSyncToken" in tap.pages[1]
        assert kinds(asked) == ["delta", "delta+", "delta+"]
        assert tapped_office.calendar["cursor"] == tap.pages[-1]["nextSyncToken"]
        tapped_office.assert_truth()

    def test_g6_a_quiet_delta_with_a_new_token_stores_the_new_token(self, tapped_office: Office, tap: Wiretap) -> None:
        tapped_office.sync()
        before = tapped_office.calendar["cursor"]

        tapped_office.sync()

        assert tap.pages[-1]["items"] == []
        assert tapped_office.calendar["cursor"] == tap.pages[-1]["nextSyncToken"] != before

    @pytest.mark.parametrize(("list_kind", "older"), [("delta", 0), ("full", 1)])
    def test_g7_a_last_page_with_neither_token_fails_the_sync_and_changes_nothing(
        self, office: Office, list_kind: Any, older: int
    ) -> None:
        office.seed(*meetings(5))
        office.sync()
        before = office.stored()
        office.seed(*meetings(3, first=4))
        office.delete("meeting00001")
        office.fleet.execute("update sync.calendars set query_version = query_version - :older", older=older)
        office.google.add_fault(Fault(kind="page_without_tokens", list_kind=list_kind))

        asked = office.sync()

        assert kinds(asked) == [list_kind]
        assert office.stored() == before
        assert (office.calendar["failures"], office.fleet.unit(office.tenant)["failed_runs"]) == (1, 1)
        assert office.calendar["last_error"]

    def test_g7_a_first_listing_that_ends_with_neither_token_stores_nothing(self, office: Office) -> None:
        office.seed(*meetings(5))
        office.google.add_fault(Fault(kind="page_without_tokens"))

        office.sync()

        assert office.events == {}
        assert (office.calendar["state"], office.calendar["cursor"], office.calendar["failures"]) == ("new", None, 1)

    @pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
    def test_g13_a_token_survives_storage_and_the_address_byte_for_byte(
        self, tapped_office: Office, tap: Wiretap, token: str
    ) -> None:
        tap.rewrite = replacing(nextSyncToken=token)
        tapped_office.sync()

        asked = tapped_office.sync()

        assert tapped_office.calendar["cursor"] == token
        assert asked[0].query["syncToken"] == token

    def test_g13_a_token_of_four_kilobytes_works(self, office: Office) -> None:
        office.google.configure(sync_token_length=4096)
        office.seed(*meetings(3))
        office.sync()
        office.seed(*meetings(3, first=2))

        asked = office.sync()

        assert kinds(asked) == ["delta"]
        assert len(office.calendar["cursor"]) == 4096
        office.assert_truth()


class TestPages:
    @pytest.mark.parametrize("page", ["first", "later"])
    @pytest.mark.parametrize("kind", ["empty_page_with_token", "page_without_items"])
    def test_g4_g5_a_listing_goes_on_after_a_page_without_items(self, office: Office, kind: Any, page: Any) -> None:
        office.google.configure(page_size=2)
        office.seed(*meetings(6))
        office.google.add_fault(Fault(kind=kind, page=page))

        asked = office.sync()

        assert kinds(asked) == ["full", "full+", "full+", "full+"]
        office.assert_truth()

    @pytest.mark.parametrize("page", ["first", "later"])
    @pytest.mark.parametrize("kind", ["empty_page_with_token", "page_without_items"])
    def test_g4_g5_a_delta_goes_on_after_a_page_without_items(self, office: Office, kind: Any, page: Any) -> None:
        office.sync()
        office.google.configure(page_size=2)
        office.seed(*meetings(6))
        office.google.add_fault(Fault(kind=kind, page=page))

        asked = office.sync()

        assert kinds(asked) == ["delta", "delta+", "delta+", "delta+"]
        office.assert_truth()

    def test_g5_a_quiet_delta_without_an_items_key_is_a_success(self, tapped_office: Office, tap: Wiretap) -> None:
        tapped_office.seed(*meetings(3))
        tapped_office.sync()
        tapped_office.google.add_fault(Fault(kind="page_without_items"))

        tapped_office.sync()

        assert "items" not in tap.pages[-1]
        assert tapped_office.calendar["cursor"] == tap.pages[-1]["nextSyncToken"]
        assert tapped_office.calendar["failures"] == 0
        tapped_office.assert_truth()

    @pytest.mark.parametrize("older", [0, 1], ids=["delta", "full"])
    def test_g8_a_page_token_that_repeats_ends_the_run_with_an_error(self, office: Office, older: int) -> None:
        office.seed(*meetings(5))
        office.sync()
        before = office.stored()
        office.google.configure(page_size=1)
        office.seed(*meetings(5))
        office.fleet.execute("update sync.calendars set query_version = query_version - :older", older=older)
        office.google.add_fault(Fault(kind="same_page_token_forever", times=None))

        asked = office.sync()

        assert len(asked) <= 4
        assert office.stored() == before
        assert office.calendar["failures"] == 1

    def test_g8_a_listing_with_more_pages_than_a_calendar_can_have_ends_with_an_error(self, office: Office) -> None:
        office.seed(*meetings(2))
        office.google.add_fault(Fault(kind="empty_page_with_token", times=None))

        asked = office.sync()

        assert len(asked) <= 2000
        assert office.events == {}
        assert (office.calendar["failures"], office.calendar["cursor"]) == (1, None)

    @pytest.mark.parametrize(
        ("first", "last", "title"),
        [
            (meeting(9, summary="old"), meeting(9, summary="new"), ["new"]),
            (meeting(9, summary="old"), {"id": "meeting00009", "status": "cancelled"}, []),
            ({"id": "meeting00009", "status": "cancelled"}, meeting(9, summary="new"), ["new"]),
        ],
        ids=["changed", "deleted", "restored"],
    )
    @pytest.mark.parametrize("known", [0, 1], ids=["unknown", "known"])
    def test_g9_of_an_event_on_two_pages_of_a_delta_the_later_one_stands(
        self, tapped_office: Office, tap: Wiretap, first: Any, last: Any, title: list[str], known: int
    ) -> None:
        tapped_office.seed(*[meeting(9, summary="stored")] * known)
        tapped_office.sync()
        tapped_office.google.configure(page_size=2)
        tapped_office.seed(*meetings(6))
        tap.rewrite = adding({1: [{"status": "confirmed", **first}], 3: [{"status": "confirmed", **last}]})

        tapped_office.sync()

        stored = tapped_office.fleet.rows("select title from sync.events where provider_key = 'meeting00009'")
        assert [row["title"] for row in stored] == title
        assert tapped_office.visible >= {f"meeting{number:05d}" for number in range(1, 7)}

    @pytest.mark.parametrize("first", ["confirmed", "cancelled"])
    def test_g9_of_an_event_on_two_pages_of_a_full_listing_the_later_one_stands(
        self, tapped_office: Office, tap: Wiretap, first: str
    ) -> None:
        tapped_office.google.configure(page_size=2)
        tapped_office.seed(*meetings(6))
        newer = meeting(9, summary="new", status="confirmed")
        tap.rewrite = adding({1: [meeting(9, summary="old", status=first)], 3: [newer]})

        tapped_office.sync()

        assert tapped_office.events["meeting00009"]["title"] == "new"
        assert len(tapped_office.visible) == 7


class TestReplay:
    @settings(
        max_examples=10,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        edits=st.integers(1, 40),
        replays=st.integers(1, 3),
        page_size=st.integers(1, 12),
        doubled=st.lists(st.integers(0, 12), max_size=5),
    )
    def test_g10_a_delta_applied_again_and_again_changes_nothing(
        self, tapped_office: Office, tap: Wiretap, edits: int, replays: int, page_size: int, doubled: list[int]
    ) -> None:
        tapped_office.fill(events=10, series_every=3)
        tapped_office.sync()
        cursor = tapped_office.calendar["cursor"]
        tapped_office.churn(edits)
        tapped_office.google.configure(page_size=page_size)
        tap.rewrite = repeating(doubled)
        tapped_office.sync()
        once = tapped_office.table()

        for _ in range(replays):
            tapped_office.use_cursor(cursor)
            assert set(kinds(tapped_office.sync())) <= {"delta", "delta+"}

        assert tapped_office.table() == once
        tapped_office.assert_truth()


class TestQueryVersion:
    def test_p12_another_query_version_ignores_the_stored_token_and_lists_everything(self, office: Office) -> None:
        office.seed(*meetings(5))
        office.sync()
        office.seed(*meetings(2, first=5))
        office.use_older_query()

        asked = office.sync()

        assert kinds(asked) == ["full"]
        office.assert_truth()

    def test_p12_another_query_version_loses_no_row_and_sends_none_again(self, office: Office) -> None:
        office.fill(events=40)
        office.sync()
        office.fleet.clear_outbox()
        before = office.events
        office.use_older_query()

        office.sync()

        assert office.events == before
        assert office.outbox == {}

    def test_p12_after_the_listing_of_another_query_version_deltas_go_on(self, office: Office) -> None:
        office.sync()
        office.use_older_query()
        office.sync()

        asked = office.sync()

        assert kinds(asked) == ["delta"]


class TestChangesWhilePaging:
    def test_g14_what_changes_while_a_delta_is_paged_comes_with_the_next_one(
        self, tapped_office: Office, tap: Wiretap
    ) -> None:
        tapped_office.sync()
        tapped_office.google.configure(page_size=2)
        tapped_office.seed(*meetings(6))
        tap.hold(page=1)
        syncing = threading.Thread(target=tapped_office.sync)
        syncing.start()
        tap.wait_until_held()
        edited = tapped_office.edit_on_both_sides()
        tap.release()
        syncing.join()
        tap.pages.clear()

        asked = tapped_office.sync()

        assert set(kinds(asked)) == {"delta", "delta+"}
        assert {item["id"] for page in tap.pages for item in page["items"]} == edited
        tapped_office.assert_truth()

    @pytest.mark.parametrize("syncs", [0, 1], ids=["first listing", "resync"])
    def test_g14_what_changes_while_everything_is_listed_comes_with_the_next_delta(
        self, tapped_office: Office, tap: Wiretap, syncs: int
    ) -> None:
        tapped_office.seed(*meetings(6))
        tapped_office.google.configure(page_size=2)
        for _ in range(syncs):
            tapped_office.sync()
            tapped_office.expire()
        tap.hold(page=1)
        syncing = threading.Thread(target=tapped_office.sync)
        syncing.start()
        tap.wait_until_held()
        edited = tapped_office.edit_on_both_sides()
        tap.release()
        syncing.join()
        tap.pages.clear()

        asked = tapped_office.sync()

        assert set(kinds(asked)) == {"delta", "delta+"}
        assert {item["id"] for page in tap.pages for item in page["items"]} == edited
        tapped_office.assert_truth()
