"""Series and their exceptions: whichever comes first, an exception belongs to its series by key and original start.

The numbers are those of the list of edge cases, `g` for Google.
"""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.google_office import ANN, Office, daily_all_day, exception, kinds, meeting, meetings, weekly
from tests.support.wiretap import Wiretap, without

pytest_plugins = ["tests.support.google_fixtures"]

MASTER, SECOND, THIRD, FOURTH = (
    "standup",
    "standup_20261208T090000Z",
    "standup_20261215T090000Z",
    "standup_20261222T090000Z",
)
STATUSES = ["confirmed", "cancelled"]
OTHER_WORDS = {
    "another offset": {"dateTime": "2026-12-08T04:00:00-05:00", "timeZone": "America/New_York"},
    "UTC": {"dateTime": "2026-12-08T09:00:00Z"},
    "the next day elsewhere": {"dateTime": "2026-12-08T23:00:00+14:00", "timeZone": "Pacific/Kiritimati"},
    "a zone and no offset": {"dateTime": "2026-12-08T10:00:00", "timeZone": "Europe/Berlin"},
    "fractions of a second": {"dateTime": "2026-12-08T10:00:00.000+01:00", "timeZone": "Europe/Berlin"},
}
TIMED: dict[str, Any] = {
    "start": {"dateTime": "2026-12-01T10:00:00+01:00", "timeZone": "Europe/Berlin", "date": None},
    "end": {"dateTime": "2026-12-01T10:30:00+01:00", "timeZone": "Europe/Berlin", "date": None},
}
ALL_DAY: dict[str, Any] = {
    "start": {"date": "2026-12-01", "dateTime": None, "timeZone": None},
    "end": {"date": "2026-12-02", "dateTime": None, "timeZone": None},
}


class TestArrival:
    @pytest.mark.parametrize("status", STATUSES)
    @pytest.mark.parametrize("page_size", [1, 10], ids=["pages apart", "on one page"])
    def test_g36_an_exception_that_is_listed_before_its_master_belongs_to_it(
        self, office: Office, page_size: int, status: str
    ) -> None:
        office.google.configure(page_size=page_size)
        office.seed(exception(status=status), meeting(1), weekly())

        office.sync()

        assert office.events.keys() == {SECOND, MASTER, "meeting00001"}
        assert (office.events[SECOND]["series_key"], office.events[SECOND]["status"]) == (MASTER, status)
        office.assert_truth()

    @pytest.mark.parametrize("status", STATUSES)
    @pytest.mark.parametrize("page_size", [1, 10], ids=["pages apart", "on one page"])
    def test_g36_an_exception_that_comes_before_its_master_in_a_delta_belongs_to_it(
        self, office: Office, page_size: int, status: str
    ) -> None:
        office.sync()
        office.google.configure(page_size=page_size)
        office.seed(exception(status=status), meeting(1), weekly())

        asked = office.sync()

        assert kinds(asked)[0] == "delta"
        assert office.events.keys() == {SECOND, MASTER, "meeting00001"}
        assert (office.events[SECOND]["series_key"], office.events[SECOND]["status"]) == (MASTER, status)

    @pytest.mark.parametrize("status", STATUSES)
    def test_g36_an_exception_that_comes_a_delta_before_its_master_is_kept_for_it(
        self, office: Office, status: str
    ) -> None:
        office.sync()
        office.seed(exception(status=status))
        office.sync()
        office.seed(weekly())

        office.sync()

        assert office.events.keys() == {SECOND, MASTER}
        assert (office.events[SECOND]["series_key"], office.events[SECOND]["status"]) == (MASTER, status)

    def test_g36_an_exception_that_came_before_its_master_goes_with_it(self, office: Office) -> None:
        office.sync()
        office.seed(exception())
        office.sync()
        office.seed(weekly())
        office.sync()
        office.delete(MASTER)

        office.sync()

        assert office.events == {}
        assert office.tombstones.keys() == {SECOND, MASTER}

    @pytest.mark.parametrize("change", ["override", "cancel"])
    def test_g37_a_delta_with_one_exception_touches_neither_the_master_nor_the_others(
        self, office: Office, change: str
    ) -> None:
        office.seed(weekly(), *meetings(2))
        office.override("20261208", summary="elsewhere")
        office.cancel("20261215")
        office.sync()
        before = office.events
        getattr(office, change)("20261222")

        asked = office.sync()

        after = office.events
        assert kinds(asked) == ["delta"]
        assert after.pop(FOURTH)["series_key"] == MASTER
        assert after == before

    def test_g38_a_delta_with_the_master_alone_leaves_its_exceptions_as_they_are(
        self, tapped_office: Office, tap: Wiretap
    ) -> None:
        tapped_office.seed(weekly())
        tapped_office.override("20261208", summary="elsewhere")
        tapped_office.cancel("20261215")
        tapped_office.sync()
        before = tapped_office.events
        tapped_office.patch(MASTER, summary="renamed")

        tapped_office.sync()

        after = tapped_office.events
        assert [item["id"] for item in tap.pages[-1]["items"]] == [MASTER]
        assert after[MASTER]["title"] == "renamed"
        assert {key: after[key] for key in (SECOND, THIRD)} == {key: before[key] for key in (SECOND, THIRD)}
        assert after.keys() == before.keys()
        tapped_office.assert_truth()

    def test_g38_a_master_that_is_written_anew_without_any_change_leaves_everything_as_it_is(
        self, office: Office
    ) -> None:
        office.seed(weekly())
        office.override("20261208", summary="elsewhere")
        office.cancel("20261215")
        office.sync()
        before = office.events
        office.seed(weekly())

        office.sync()

        after = office.events
        assert {key: after[key] for key in (SECOND, THIRD)} == {key: before[key] for key in (SECOND, THIRD)}
        office.assert_truth()


class TestAloneStanding:
    def test_g39_an_invitation_to_one_occurrence_stands_alone(self, office: Office) -> None:
        office.seed(exception("theirs"), meeting(1))

        office.sync()

        assert office.visible == {"theirs_20261208T090000Z", "meeting00001"}
        assert office.events["theirs_20261208T090000Z"]["title"] == "Override of 20261208"
        office.assert_truth()

    def test_g39_its_cancellation_removes_it(self, tapped_office: Office, tap: Wiretap) -> None:
        tapped_office.seed(exception("theirs"), meeting(1))
        tapped_office.sync()
        tapped_office.seed(exception("theirs", status="cancelled"))

        tapped_office.sync()

        assert tap.pages[-1]["items"][0]["status"] == "cancelled"
        assert tapped_office.visible == {"meeting00001"}

    def test_g39_it_survives_a_resync(self, office: Office) -> None:
        office.seed(exception("theirs"), meeting(1))
        office.sync()
        before = office.events
        office.expire()

        office.sync()

        assert office.events == before

    def test_g39_it_is_gone_after_a_resync_that_does_not_name_it(self, office: Office) -> None:
        office.seed(exception("theirs"), meeting(1))
        office.sync()
        office.seed(exception("theirs", status="cancelled"))
        office.google.configure(tombstone_days=0)
        office.expire()

        office.sync()

        assert office.visible == {"meeting00001"}

    def test_g39_invitations_to_two_occurrences_are_two_events(self, office: Office) -> None:
        office.seed(exception("theirs"), exception("theirs", "20261215"))
        office.sync()
        office.seed(exception("theirs", status="cancelled"))

        office.sync()

        assert office.visible == {"theirs_20261215T090000Z"}


class TestOriginalStart:
    @pytest.mark.parametrize("words", OTHER_WORDS.values(), ids=OTHER_WORDS)
    def test_g41_the_original_start_in_other_words_names_the_same_instance(
        self, tapped_office: Office, tap: Wiretap, words: dict[str, str]
    ) -> None:
        tapped_office.seed(weekly())
        tapped_office.override("20261208", summary="first words")
        tapped_office.sync()
        before = tapped_office.events[SECOND]
        tapped_office.override("20261208", summary="other words", originalStartTime=words)

        tapped_office.sync()

        after = tapped_office.events[SECOND]
        assert tap.pages[-1]["items"][0]["originalStartTime"] == words
        assert tapped_office.events.keys() == {MASTER, SECOND}
        assert (after["event_id"], after["title"]) == (before["event_id"], "other words")
        assert after["original_start"] == before["original_start"] == datetime(2026, 12, 8, 9, tzinfo=UTC)
        assert after["original_all_day"] is False

    @pytest.mark.parametrize("words", OTHER_WORDS.values(), ids=OTHER_WORDS)
    def test_g41_a_cancellation_in_other_words_cancels_the_same_instance(
        self, office: Office, words: dict[str, str]
    ) -> None:
        office.seed(weekly())
        office.override("20261208", summary="elsewhere")
        office.sync()
        office.seed(exception(status="cancelled", originalStartTime=words))

        office.sync()

        assert office.visible == {MASTER}
        assert office.events[SECOND]["original_start"] == datetime(2026, 12, 8, 9, tzinfo=UTC)

    def test_g41_an_instance_that_was_moved_keeps_its_original_start(self, office: Office) -> None:
        moved = {"dateTime": "2026-12-10T16:00:00+01:00", "timeZone": "Europe/Berlin"}
        office.seed(weekly())
        office.override("20261208", start=moved, end=moved)

        office.sync()

        assert office.events[SECOND]["original_start"] == datetime(2026, 12, 8, 9, tzinfo=UTC)
        assert office.events[SECOND]["starts_at"] == datetime(2026, 12, 10, 15, tzinfo=UTC)


class TestAllDay:
    def test_g42_an_exception_of_an_all_day_series_is_named_by_its_date(self, office: Office) -> None:
        office.seed(daily_all_day())
        office.google.override_instance(ANN, ANN, "oncall", "2026-12-02", {"summary": "swapped"})
        office.google.cancel_instance(ANN, ANN, "oncall", "2026-12-03")

        office.sync()

        swapped, cancelled = office.events["oncall_20261202"], office.events["oncall_20261203"]
        assert (swapped["series_key"], swapped["all_day"], swapped["title"]) == ("oncall", True, "swapped")
        assert (swapped["original_all_day"], cancelled["original_all_day"]) == (True, True)
        assert [row["original_start"].date().isoformat() for row in (swapped, cancelled)] == [
            "2026-12-02",
            "2026-12-03",
        ]
        assert cancelled["status"] == "cancelled"

    @pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
    @pytest.mark.parametrize(
        ("series", "day", "to"),
        [(weekly(), "20261208T090000Z", ALL_DAY), (daily_all_day("standup"), "20261202", TIMED)],
        ids=["to all-day", "to timed"],
    )
    def test_g42_exceptions_that_no_longer_match_the_toggled_master_are_not_shown(
        self, tapped_office: Office, tap: Wiretap, series: dict[str, Any], day: str, to: dict[str, Any], told: bool
    ) -> None:
        tapped_office.seed(series, meeting(1))
        tapped_office.google.override_instance(ANN, ANN, MASTER, f"{MASTER}_{day}", {"summary": "stale"})
        tapped_office.sync()
        tapped_office.patch(MASTER, **to)
        tap.rewrite = without(lambda item: not told and "recurringEventId" in item)

        tapped_office.sync()

        assert tapped_office.visible == {MASTER, "meeting00001"}

    def test_g42_an_exception_made_after_the_toggle_stays(self, office: Office) -> None:
        office.seed(weekly())
        office.override("20261208", summary="stale")
        office.sync()
        office.patch(MASTER, **ALL_DAY)
        office.google.override_instance(ANN, ANN, MASTER, "2026-12-08", {"summary": "fresh"})

        office.sync()

        assert office.visible == {MASTER, "standup_20261208"}
        office.assert_truth()

    def test_g42_toggled_there_and_back_the_series_has_no_exceptions(self, office: Office) -> None:
        office.seed(weekly())
        office.override("20261208", summary="stale")
        office.sync()
        office.patch(MASTER, **ALL_DAY)
        office.sync()
        office.patch(MASTER, **TIMED)

        office.sync()

        assert office.visible == {MASTER}
        office.assert_truth()

    def test_g42_a_toggle_that_a_resync_finds_leaves_no_stale_exception(
        self, tapped_office: Office, tap: Wiretap
    ) -> None:
        tapped_office.seed(weekly())
        tapped_office.override("20261208", summary="stale")
        tapped_office.sync()
        tapped_office.patch(MASTER, **ALL_DAY)
        tapped_office.expire()
        tap.rewrite = without(lambda item: "recurringEventId" in item)

        tapped_office.sync()

        assert tapped_office.visible == {MASTER}


class TestNoExpansion:
    def test_g48_single_events_are_never_asked_for(self, office: Office) -> None:
        office.seed(weekly(), daily_all_day())
        office.google.configure(page_size=1)
        office.sync()
        office.patch(MASTER, summary="renamed")
        office.sync()
        office.expire()
        office.sync()

        asked = office.google.requests(endpoint="events.list")

        assert {entry.query["singleEvents"] for entry in asked} == {"false"}
        assert office.google.requests(endpoint="events.instances") == []

    def test_g48_a_touched_series_without_an_end_is_one_row(self, tapped_office: Office, tap: Wiretap) -> None:
        tapped_office.seed(weekly())
        tapped_office.sync()
        tapped_office.patch(MASTER, summary="renamed")

        tapped_office.sync()

        assert len(tap.pages[-1]["items"]) == 1
        assert tapped_office.events.keys() == {MASTER}
