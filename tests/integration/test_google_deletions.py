"""`cancelled` means deleted, unless it names an occurrence of a series: then it means that one is not shown.

The numbers are those of the list of edge cases, `g` for Google.
"""

from collections.abc import Callable

import pytest

from tests.support.google_office import ANN, Office, exception, kinds, meeting, meetings, weekly
from tests.support.wiretap import JsonDict, Wiretap, adding, mapping

pytest_plugins = ["tests.support.google_fixtures"]

TEAM = "team@group.calendar.google.com"
GENERATED = ["de.german#holiday@group.v.calendar.google.com", "addressbook#contacts@group.v.calendar.google.com"]


def barest(item: JsonDict) -> JsonDict:
    """A cancelled item with no more than Google promises for it."""
    promised = ("id", "status", "recurringEventId", "originalStartTime")
    return {name: item[name] for name in promised if name in item} if item["status"] == "cancelled" else item


class TestDeletedEvents:
    def test_g27_an_id_and_a_status_suffice_for_a_deletion(self, tapped_office: Office, tap: Wiretap) -> None:
        tapped_office.seed(*meetings(3))
        tapped_office.sync()
        held = tapped_office.events["meeting00002"]
        tapped_office.delete("meeting00002")
        tap.rewrite = mapping(barest)

        tapped_office.sync()

        assert tap.pages[-1]["items"] == [{"id": "meeting00002", "status": "cancelled"}]
        assert tapped_office.events.keys() == {"meeting00001", "meeting00003"}
        assert tapped_office.tombstones["meeting00002"]["event_id"] == held["event_id"]
        assert tapped_office.set_aside == {}
        assert tapped_office.calendar["failures"] == 0

    def test_g27_a_deletion_is_news_for_the_mirror(self, office: Office) -> None:
        office.seed(*meetings(3))
        office.sync()
        held = office.events["meeting00002"]
        office.fleet.clear_outbox()
        office.delete("meeting00002")

        office.sync()

        (tombstone,) = office.tombstones.values()
        assert office.outbox == {held["event_id"]: tombstone["version"]}
        assert tombstone["version"] > held["version"]

    def test_g28_a_deletion_of_what_was_never_here_changes_nothing(self, office: Office) -> None:
        office.seed(*meetings(3))
        office.sync()
        rows = office.table()
        office.seed(meeting(4))
        office.delete("meeting00004")

        asked = office.sync()

        assert kinds(asked) == ["delta"]
        assert office.table() == rows
        assert office.health == ("synced", 0)

    def test_g28_a_cancelled_occurrence_of_a_series_that_was_never_here_is_not_shown(
        self, tapped_office: Office, tap: Wiretap
    ) -> None:
        tapped_office.seed(*meetings(3))
        tapped_office.sync()
        tap.rewrite = adding({1: [exception("nobody", status="cancelled")]})

        tapped_office.sync()

        assert tapped_office.visible == {"meeting00001", "meeting00002", "meeting00003"}
        assert tapped_office.health == ("synced", 0)

    @pytest.mark.parametrize("syncs_between", [0, 1])
    def test_g31_a_restored_event_is_visible_again_with_new_data(self, office: Office, syncs_between: int) -> None:
        office.seed(*meetings(3))
        office.sync()
        office.delete("meeting00002")
        for _ in range(syncs_between):
            office.sync()
        office.patch("meeting00002", status="confirmed", summary="back again")

        office.sync()

        assert office.events["meeting00002"]["title"] == "back again"
        assert office.tombstones == {}
        office.assert_truth()

    def test_g31_a_restored_event_overtakes_its_tombstone_in_the_mirror(self, office: Office) -> None:
        office.seed(*meetings(3))
        office.sync()
        held = office.events["meeting00002"]
        office.delete("meeting00002")
        office.sync()
        tombstone = office.tombstones["meeting00002"]
        office.google.restore(ANN, ANN, "meeting00002")

        office.sync()

        risen = office.events["meeting00002"]
        assert risen["event_id"] == tombstone["event_id"] == held["event_id"]
        assert risen["version"] > tombstone["version"]
        assert office.outbox[held["event_id"]] == risen["version"]

    @pytest.mark.parametrize("syncs_between", [0, 1])
    def test_g31_a_restored_series_is_visible_again_with_its_exceptions(
        self, office: Office, syncs_between: int
    ) -> None:
        office.seed(weekly())
        office.override("20261208", summary="elsewhere")
        office.cancel("20261215")
        office.sync()
        office.delete("standup")
        for _ in range(syncs_between):
            office.sync()
        office.google.restore(ANN, ANN, "standup")

        office.sync()

        assert office.events.keys() == {"standup", "standup_20261208T090000Z", "standup_20261215T090000Z"}
        assert office.events["standup_20261215T090000Z"]["status"] == "cancelled"
        office.assert_truth()

    def test_g32_a_cancelled_event_with_all_its_details_is_deleted_all_the_same(
        self, tapped_office: Office, tap: Wiretap
    ) -> None:
        tapped_office.google.configure(keep_cancelled_details=True)
        tapped_office.seed(*meetings(3))
        tapped_office.sync()
        tapped_office.delete("meeting00002")

        tapped_office.sync()

        assert tap.pages[-1]["items"][0]["summary"] == "Meeting 2"
        assert tapped_office.events.keys() == {"meeting00001", "meeting00003"}
        assert tapped_office.tombstones.keys() == {"meeting00002"}

    def test_g32_cancelled_events_with_details_in_a_full_listing_are_no_events(
        self, tapped_office: Office, tap: Wiretap
    ) -> None:
        tapped_office.google.configure(keep_cancelled_details=True)
        tapped_office.seed(*meetings(3))
        tapped_office.delete("meeting00002")

        tapped_office.sync()

        assert [item["status"] for item in tap.pages[-1]["items"]].count("cancelled") == 1
        assert tapped_office.events.keys() == {"meeting00001", "meeting00003"}

    def test_g33_nothing_is_ever_written_at_google(self, office: Office) -> None:
        office.fill(events=20)
        office.sync()
        office.churn(20)
        office.sync()
        office.expire()
        office.sync()

        methods = {(entry.method, entry.endpoint) for entry in office.google.requests()}

        assert methods == {("POST", "token"), ("GET", "calendarList.list"), ("GET", "events.list")}


class TestCancelledOccurrences:
    def test_g29_a_cancelled_occurrence_disappears_alone(self, tapped_office: Office, tap: Wiretap) -> None:
        tapped_office.seed(weekly(), *meetings(2))
        tapped_office.override("20261208", summary="elsewhere")
        tapped_office.sync()
        before = tapped_office.versions
        tapped_office.cancel("20261215")
        tap.rewrite = mapping(barest)

        tapped_office.sync()

        cancelled = tapped_office.events["standup_20261215T090000Z"]
        assert (cancelled["status"], cancelled["series_key"]) == ("cancelled", "standup")
        assert {
            key: version for key, version in tapped_office.versions.items() if key != cancelled["provider_key"]
        } == before
        assert tapped_office.tombstones == {}

    def test_g29_a_cancelled_override_is_no_longer_shown_and_still_known(self, office: Office) -> None:
        office.seed(weekly())
        office.override("20261208", summary="elsewhere")
        office.sync()
        held = office.events["standup_20261208T090000Z"]
        office.cancel("20261208")

        office.sync()

        cancelled = office.events["standup_20261208T090000Z"]
        assert office.visible == {"standup"}
        assert cancelled["status"] == "cancelled"
        assert cancelled["original_start"] == held["original_start"]

    def test_g29_a_cancelled_occurrence_says_which_one_it_was(self, office: Office) -> None:
        office.seed(weekly())
        office.cancel("20261208")

        office.sync()

        assert office.events["standup_20261208T090000Z"]["original_start"].isoformat() == "2026-12-08T09:00:00+00:00"

    def test_g29_a_cancelled_occurrence_is_known_as_long_as_its_series(self, office: Office) -> None:
        office.seed(weekly())
        office.cancel("20261208")
        office.sync()
        office.patch("standup", summary="renamed")
        office.sync()
        office.google.configure(tombstone_days=0)
        office.expire()
        office.sync()
        kept = office.events.keys()
        office.delete("standup")

        office.sync()

        assert kept == {"standup", "standup_20261208T090000Z"}
        assert office.events == {}

    def test_g29_a_restored_occurrence_is_shown_again(self, office: Office) -> None:
        office.seed(weekly())
        office.cancel("20261208")
        office.sync()
        office.override("20261208", summary="on again")

        office.sync()

        assert office.visible == {"standup", "standup_20261208T090000Z"}
        office.assert_truth()

    @pytest.mark.parametrize("listed", [False, True])
    def test_g30_a_deleted_master_takes_all_its_exceptions_along(self, office: Office, listed: bool) -> None:
        office.google.configure(list_exceptions_of_deleted_master=listed)
        office.seed(weekly(), weekly("retro"), *meetings(2))
        office.override("20261208", summary="elsewhere")
        office.cancel("20261215")
        office.override("20261208", "retro", summary="stays")
        office.sync()
        held = office.events
        office.fleet.clear_outbox()
        office.delete("standup")

        office.sync()

        gone = {"standup", "standup_20261208T090000Z", "standup_20261215T090000Z"}
        assert office.events.keys() == held.keys() - gone
        assert office.tombstones.keys() == gone
        assert office.outbox.keys() == {held[key]["event_id"] for key in gone}
        office.assert_truth()

    @pytest.mark.parametrize("order", [1, -1], ids=["master first", "exceptions first"])
    @pytest.mark.parametrize("page_size", [1, 10])
    def test_g30_the_order_in_which_a_deleted_series_is_told_of_does_not_matter(
        self, tapped_office: Office, tap: Wiretap, order: int, page_size: int
    ) -> None:
        tapped_office.seed(weekly(), meeting(1))
        tapped_office.override("20261208", summary="elsewhere")
        tapped_office.cancel("20261215")
        tapped_office.sync()
        tapped_office.google.configure(page_size=page_size)
        tapped_office.seed(*meetings(3))
        told = [
            {"id": "standup", "status": "cancelled"},
            exception(status="cancelled"),
            exception(day="20261215", status="cancelled"),
        ]
        first, *rest = told[::order]
        tap.rewrite = adding({1: [first, *rest[: page_size - 1]], 2: rest if page_size == 1 else []})

        tapped_office.sync()

        assert tapped_office.events.keys() == {"meeting00001", "meeting00002", "meeting00003"}
        assert tapped_office.tombstones.keys() == {item["id"] for item in told}


class TestMoves:
    @pytest.mark.parametrize("order", [(ANN, TEAM), (TEAM, ANN)], ids=["old home first", "new home first"])
    def test_g34_an_event_that_moved_to_another_calendar_is_visible_once(
        self, make_office: Callable[..., Office], order: tuple[str, str]
    ) -> None:
        team = make_office(calendar={"calendar": TEAM})
        own = team.at(ANN)
        own.seed(meeting(1), meeting(2))
        own.sync()
        own.google.move(ANN, ANN, "meeting00001", destination=TEAM)

        asked = [team.at(key).sync_alone() for key in order]

        assert [kinds(requests) for requests in asked] == [["delta"], ["delta"]]
        assert (own.visible, team.visible) == ({"meeting00002"}, {"meeting00001"})
        own.assert_truth()
        team.assert_truth()

    def test_g34_a_series_moves_with_its_exceptions(self, make_office: Callable[..., Office]) -> None:
        team = make_office(calendar={"calendar": TEAM})
        own = team.at(ANN)
        own.seed(weekly(), meeting(2))
        own.override("20261208", summary="elsewhere")
        own.cancel("20261215")
        own.sync()
        own.google.move(ANN, ANN, "standup", destination=TEAM)

        own.sync()

        assert own.events.keys() == {"meeting00002"}
        assert team.events.keys() == {"standup", "standup_20261208T090000Z", "standup_20261215T090000Z"}

    def test_g34_an_event_that_moved_there_and_back_is_where_it_was(self, make_office: Callable[..., Office]) -> None:
        team = make_office(calendar={"calendar": TEAM})
        own = team.at(ANN)
        own.seed(meeting(1))
        own.sync()
        own.google.move(ANN, ANN, "meeting00001", destination=TEAM)
        own.sync()
        own.google.move(ANN, TEAM, "meeting00001", destination=ANN)

        own.sync()

        assert (own.visible, team.visible) == ({"meeting00001"}, set())

    def test_g34_events_that_share_an_ical_uid_stay_apart(self, make_office: Callable[..., Office]) -> None:
        team = make_office(calendar={"calendar": TEAM})
        own = team.at(ANN)
        own.seed(meeting(1, iCalUID="same@example.test"), meeting(2, iCalUID="same@example.test"))
        team.seed(meeting(1, iCalUID="same@example.test"))
        own.sync()
        own.delete("meeting00001")

        own.sync()

        assert (own.visible, team.visible) == ({"meeting00002"}, {"meeting00001"})


class TestCalendarsThatForgetDeletions:
    @pytest.mark.parametrize("calendar", GENERATED)
    def test_g35_a_deletion_that_no_delta_reports_is_found_by_a_daily_listing(
        self, make_office: Callable[..., Office], calendar: str
    ) -> None:
        office = make_office(calendar={"calendar": calendar, "reports_deletions": False})
        office.seed(*meetings(5))
        office.sync()
        office.google.configure(tombstone_days=0)
        office.delete("meeting00002")
        office.sync()
        unseen = office.visible
        office.days_pass(2)

        asked = office.sync()

        assert "meeting00002" in unseen
        assert kinds(asked) == ["full"]
        assert office.tombstones.keys() == {"meeting00002"}
        office.assert_truth()

    @pytest.mark.parametrize("calendar", GENERATED)
    def test_g35_such_a_calendar_is_listed_once_a_day_and_not_more(
        self, make_office: Callable[..., Office], calendar: str
    ) -> None:
        office = make_office(calendar={"calendar": calendar, "reports_deletions": False})
        office.seed(*meetings(5))
        office.sync()
        office.days_pass(2)

        asked = [kinds(office.sync()) for _ in range(3)]

        assert asked == [["full"], ["delta"], ["delta"]]

    def test_g35_a_daily_listing_of_what_did_not_change_sends_nothing(self, make_office: Callable[..., Office]) -> None:
        office = make_office(calendar={"calendar": GENERATED[0], "reports_deletions": False})
        office.seed(*meetings(5))
        office.sync()
        office.fleet.clear_outbox()
        before = office.events
        office.days_pass(2)

        office.sync()

        assert (office.events, office.outbox) == (before, {})

    def test_g35_an_ordinary_calendar_is_not_listed_again_however_old_its_listing_is(self, office: Office) -> None:
        office.seed(*meetings(5))
        office.sync()
        office.days_pass(400)

        asked = office.sync()

        assert kinds(asked) == ["delta"]
