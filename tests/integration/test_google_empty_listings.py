"""A listing without events is believed when it is seen twice; old tombstones in a listing are nobody's news.

The numbers are those of the list of edge cases, `g` for Google.
"""

from collections.abc import Callable
from datetime import timedelta

import pytest

from sandbox.google.specs import Fault
from tests.support.google_office import Office, kinds, meetings

pytest_plugins = ["tests.support.google_fixtures"]


class TestEmptyListings:
    def test_g24_an_empty_listing_of_a_calendar_with_rows_sweeps_nothing_at_once(self, office: Office) -> None:
        office.fill(events=500)
        office.sync()
        rows = office.table()
        healthy = office.calendar
        office.expire()
        office.google.add_fault(Fault(kind="empty_full_list", times=None))

        office.sync()

        assert office.table() == rows
        assert office.calendar["state"] == "confirming"
        assert office.calendar["last_success_at"] == healthy["last_success_at"]
        assert office.calendar["last_error"]

    def test_g24_a_listing_of_thousands_of_tombstones_and_nothing_else_is_an_empty_one(self, office: Office) -> None:
        office.fill(events=0, tombstones=2600)
        held = office.seed(*meetings(5))
        office.sync()
        office.delete(*held)
        office.expire()

        office.sync()

        assert office.visible == set(held)
        assert office.calendar["state"] == "confirming"

    def test_g24_the_second_listing_waits(self, make_office: Callable[..., Office]) -> None:
        office = make_office(sync_confirm_empty_after="7m")
        office.seed(*meetings(3))
        office.sync()
        office.expire()
        office.google.add_fault(Fault(kind="empty_full_list", times=None))
        office.sync()

        asked = office.run()

        assert asked == []
        pause = office.calendar["next_due_at"] - office.calendar["last_attempt_at"]
        assert timedelta(minutes=6) < pause < timedelta(minutes=8)

    def test_g24_rows_that_the_second_listing_names_stay(self, office: Office) -> None:
        office.fill(events=500)
        office.sync()
        rows = office.table()
        office.expire()
        office.google.add_fault(Fault(kind="empty_full_list", list_kind="full"))
        office.sync()

        asked = office.sync()

        assert kinds(asked) == ["full"]
        assert office.table() == rows
        assert (office.calendar["state"], office.calendar["last_error"]) == ("synced", None)

    @pytest.mark.parametrize("tombstone_days", [0, 30], ids=["without tombstones", "with tombstones"])
    def test_g24_a_calendar_that_was_truly_emptied_is_emptied_by_the_second_listing(
        self, office: Office, tombstone_days: float
    ) -> None:
        held = office.seed(*meetings(500))
        office.sync()
        office.google.configure(tombstone_days=tombstone_days)
        office.delete(*held)
        office.expire()
        office.sync()

        asked = office.sync()

        assert kinds(asked) == ["full"]
        assert office.events == {}
        assert office.tombstones.keys() == set(held)
        assert (office.calendar["state"], office.calendar["event_count"]) == ("synced", 0)

    def test_g24_a_failure_between_the_two_listings_sweeps_nothing(self, office: Office) -> None:
        office.seed(*meetings(5))
        office.sync()
        rows = office.table()
        office.expire()
        office.google.add_fault(Fault(kind="empty_full_list", list_kind="full"))
        office.google.add_fault(Fault(kind="status", status=503, list_kind="full", skip=1))
        office.sync()

        office.sync()

        assert office.table() == rows
        assert office.calendar["state"] != "synced"
        assert office.google.faults() == []

    def test_g24_the_second_listing_may_follow_at_once(self, make_office: Callable[..., Office]) -> None:
        office = make_office(sync_confirm_empty_after="1ms")
        held = office.seed(*meetings(5))
        office.sync()
        office.delete(*held)
        office.expire()
        office.sync()

        office.run()

        assert (office.events, office.calendar["state"]) == ({}, "synced")

    def test_g24_an_empty_calendar_without_rows_needs_no_second_listing(self, office: Office) -> None:
        office.sync()
        office.expire()

        asked = office.sync()

        assert kinds(asked) == ["delta", "full"]
        assert office.calendar["state"] == "synced"

    def test_g24_deletions_that_a_delta_names_need_no_second_listing(self, office: Office) -> None:
        held = office.seed(*meetings(50))
        office.sync()
        office.delete(*held)

        asked = office.sync()

        assert kinds(asked) == ["delta"]
        assert office.events == {}


class TestOldTombstones:
    def test_g26_old_tombstones_of_a_first_listing_become_neither_rows_nor_news(self, office: Office) -> None:
        office.fill(events=12, tombstones=500, series_every=0)

        office.sync()

        assert len(office.events) == 12
        assert office.tombstones == {}
        assert office.outbox.keys() == {row["event_id"] for row in office.events.values()}
        office.assert_truth()

    def test_g26_old_tombstones_of_a_resync_become_neither_rows_nor_news(self, office: Office) -> None:
        office.fill(events=12, tombstones=500)
        office.sync()
        office.delete(min(office.visible))
        office.sync()
        office.fleet.clear_outbox()
        rows = office.table()
        office.expire()

        office.sync()

        assert office.table() == rows

    def test_g26_a_calendar_with_tombstones_alone_is_an_empty_one(self, office: Office) -> None:
        office.fill(events=0, tombstones=500)

        office.sync()

        assert office.table() == {"events": {}, "tombstones": {}, "set_aside": {}, "outbox": {}}
        assert office.calendar["state"] == "synced"
