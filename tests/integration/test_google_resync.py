"""Void tokens: exactly one full listing mends them, durably, and never costs a row that still exists.

The numbers are those of the list of edge cases, `g` for Google.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from sandbox.google.specs import Fault
from tests.support.google_office import Office, kinds, meetings, weekly
from tests.support.wiretap import Reply, Wiretap

pytest_plugins = ["tests.support.google_fixtures"]

VOID = {"status": 410, "reason": "fullSyncRequired"}
LATE_FAILURES = ["status", "reset", "cut_gzip", "html_200", "page_without_tokens"]


class TestVoidTokens:
    def test_g15_expired_token_leads_to_exactly_one_full_listing(self, office: Office) -> None:
        office.seed(*meetings(5))
        office.sync()
        dead = office.calendar["cursor"]
        office.google.configure(page_size=2)
        office.expire()

        asked = office.sync()

        assert kinds(asked) == ["delta", "full", "full+", "full+"]
        assert office.calendar["cursor"] != dead
        assert office.health == ("synced", 0)
        office.assert_truth()

    def test_g15_after_the_full_listing_deltas_go_on_with_its_token(self, office: Office) -> None:
        office.seed(*meetings(5))
        office.sync()
        office.expire()
        office.sync()
        cursor = office.calendar["cursor"]
        office.seed(*meetings(2, first=5))

        (asked,) = office.sync()

        assert asked.query["syncToken"] == cursor
        office.assert_truth()

    def test_g15_a_resync_of_what_did_not_change_sends_nothing_to_anybody(self, office: Office) -> None:
        office.fill(events=60, tombstones=5)
        office.sync()
        office.fleet.clear_outbox()
        before = office.events
        office.expire()

        office.sync()

        assert office.events == before
        assert office.outbox == {}

    def test_g15_a_calendar_too_large_for_one_answer_in_memory_resyncs_too(self, office: Office) -> None:
        office.fill(events=2600, series_every=0)
        office.sync()
        office.churn(60)
        office.expire()

        asked = office.sync()

        assert kinds(asked).count("delta") == 1
        assert office.health == ("synced", 0)
        office.assert_truth()

    @pytest.mark.parametrize("status", [400, 410])
    def test_g16_a_garbled_token_leads_to_exactly_one_full_listing(self, office: Office, status: int) -> None:
        office.google.configure(invalid_token_status=status)
        office.seed(*meetings(5))
        office.sync()
        office.use_cursor("x" + office.calendar["cursor"])
        office.delete("meeting00002")

        asked = office.sync()

        assert kinds(asked) == ["delta", "full"]
        assert office.health == ("synced", 0)
        office.assert_truth()

    def test_g16_a_token_of_another_calendar_leads_to_exactly_one_full_listing(
        self, make_office: Callable[..., Office]
    ) -> None:
        ann, bob = make_office(), make_office("bob@example.test")
        ann.seed(*meetings(3))
        ann.sync()
        bob.sync()
        ann.use_cursor(bob.calendar["cursor"])

        asked = ann.sync()

        assert kinds(asked) == ["delta", "full"]
        ann.assert_truth()

    def test_g16_a_garbled_token_is_counted_apart_from_an_expired_one(self, office: Office) -> None:
        office.seed(*meetings(3))
        office.sync()
        office.use_cursor("garbage")
        office.sync()
        office.expire()
        office.sync()

        counted = office.fleet.rows("select result ->> 'void_cursors' as why from worker.tasks order by id")

        assert [row["why"] for row in counted if row["why"]] == ['["invalid_sync_token"]', '["fullSyncRequired"]']

    @pytest.mark.parametrize(
        "fault",
        [
            Fault(kind="status", status=400, reason="badRequest"),
            Fault(kind="status", status=400, reason="invalidParameter"),
            Fault(kind="status", status=400, reason="required"),
            Fault(kind="status", status=400, reason="timeRangeEmpty"),
            Fault(kind="status", status=400, reason="syncTokenWithRequestRestrictions"),
            Fault(kind="status", status=400, reason="invalid", message="Invalid value for maxResults."),
            Fault(kind="status", status=400, html=True),
        ],
        ids=lambda fault: fault.message or ("html" if fault.html else fault.reason),
    )
    def test_g16_any_other_400_causes_neither_a_resync_nor_a_quick_retry(
        self, make_office: Callable[..., Office], fault: Fault
    ) -> None:
        office = make_office(worker_retry_delay="1s", sync_interval="60s")
        office.seed(*meetings(5))
        office.sync()
        before = office.stored()
        office.google.add_fault(fault.model_copy(update={"endpoint": "list", "times": None}))

        asked = office.sync()

        assert kinds(asked) == ["delta"]
        assert office.stored() == before
        assert office.health == ("synced", 1)
        assert office.calendar["next_due_at"] - office.calendar["last_attempt_at"] >= timedelta(seconds=50)

    def test_g16_an_invalid_page_token_is_not_taken_for_an_invalid_sync_token(self, office: Office) -> None:
        office.sync()
        office.google.configure(page_size=2)
        office.seed(*meetings(5))
        refusal = Fault(kind="status", status=400, reason="invalid", message="Invalid page token value.", page="later")
        office.google.add_fault(refusal)

        asked = office.sync()

        assert kinds(asked) == ["delta", "delta+"]
        assert office.calendar["failures"] == 1

    def test_g17_updated_min_too_long_ago_leads_to_one_full_listing(self, office: Office) -> None:
        office.seed(*meetings(5))
        office.sync()
        office.google.add_fault(Fault(kind="status", status=410, reason="updatedMinTooLongAgo", list_kind="delta"))

        asked = office.sync()

        assert kinds(asked) == ["delta", "full"]
        office.assert_truth()

    @pytest.mark.parametrize(
        "reply",
        [
            Reply(
                410, b'{"error":{"errors":[{"domain":"calendar","reason":"neverHeardOf","message":"?"}],"code":410}}'
            ),
            Reply(410, b'{"error":{"code":410,"message":"Gone"}}'),
            Reply(410, b'{"error":"gone"}'),
            Reply(410, b"[]"),
            Reply(410, b""),
            Reply(410, b"<!DOCTYPE html><p><b>410.</b> Gone", "text/html; charset=UTF-8"),
        ],
        ids=["unknown reason", "no reason", "text", "list", "empty", "html"],
    )
    def test_g17_a_410_that_does_not_say_why_leads_to_one_full_listing(
        self, tapped_office: Office, tap: Wiretap, reply: Reply
    ) -> None:
        tapped_office.seed(*meetings(5))
        tapped_office.sync()
        tapped_office.delete("meeting00002")
        tap.replies.append(reply)

        asked = tapped_office.sync()

        assert kinds(asked) == ["full"]
        assert tapped_office.health == ("synced", 0)
        tapped_office.assert_truth()

    def test_g17_a_410_about_a_deleted_resource_is_no_resync(self, office: Office) -> None:
        office.seed(*meetings(5))
        office.sync()
        rows = office.table()
        office.google.add_fault(Fault(kind="status", status=410, reason="deleted", endpoint="list"))

        asked = office.sync()

        assert kinds(asked) == ["delta"]
        assert office.table() == rows
        assert (office.calendar["state"] != "resync", office.calendar["failures"]) == (True, 1)

    @pytest.mark.parametrize("way", [{"kind": "expire_tokens"}, {"kind": "status", **VOID}], ids=["expires", "410"])
    def test_g18_a_token_that_dies_on_page_two_of_a_delta_is_recovered_from(
        self, office: Office, way: dict[str, Any]
    ) -> None:
        office.seed(*meetings(3))
        office.sync()
        office.google.configure(page_size=2)
        office.seed(*meetings(4, first=3))
        office.delete("meeting00001")
        office.google.add_fault(Fault(**way, list_kind="delta", page="later"))

        asked = office.sync()

        assert kinds(asked)[:3] == ["delta", "delta+", "full"]
        assert kinds(asked).count("full") == 1
        assert office.health == ("synced", 0)
        office.assert_truth()

    def test_g19_a_google_that_always_answers_410_is_asked_twice_and_then_backed_off_from(self, office: Office) -> None:
        office.seed(*meetings(5))
        office.sync()
        rows = office.table()
        office.google.add_fault(Fault(kind="always_410", times=None))

        asked = office.sync()

        assert kinds(asked) == ["delta", "full"]
        assert office.table() == rows
        assert office.calendar["failures"] == 1
        assert office.calendar["last_error"]
        assert office.calendar["next_due_at"] - office.calendar["last_attempt_at"] > timedelta(minutes=4)

    def test_g19_a_first_listing_that_answers_410_is_asked_for_once(self, office: Office) -> None:
        office.google.add_fault(Fault(kind="always_410", times=None))

        asked = office.sync()

        assert len(asked) <= 2
        assert office.health == ("new", 1)

    def test_g19_backoff_grows_while_410_goes_on_and_ends_when_it_does(
        self, make_office: Callable[..., Office]
    ) -> None:
        office = make_office(worker_retry_delay="4m")
        office.seed(*meetings(5))
        office.sync()
        office.google.add_fault(Fault(kind="always_410", times=None))
        pauses = []
        for _ in range(3):
            office.sync()
            pauses.append(office.calendar["next_due_at"] - office.calendar["last_attempt_at"])
        office.google.clear_faults()

        office.sync()

        assert pauses[0] < pauses[1] < pauses[2]
        assert office.health == ("synced", 0)
        office.assert_truth()


class TestDurability:
    @pytest.mark.parametrize("kind", ["status", "reset", "html_200", "not_json", "page_without_tokens"])
    def test_g20_a_void_token_stays_void_when_the_full_listing_fails(self, office: Office, kind: Any) -> None:
        office.seed(*meetings(5))
        office.sync()
        healthy = office.calendar
        office.expire()
        office.google.add_fault(Fault(kind=kind, list_kind="full"))

        asked = office.sync()

        assert kinds(asked) == ["delta", "full"]
        assert office.health == ("resync", 1)
        assert office.calendar["last_error"]
        assert office.calendar["last_success_at"] == healthy["last_success_at"]
        assert len(office.visible) == 5

    def test_g20_the_next_run_goes_straight_to_the_full_listing(self, office: Office) -> None:
        office.seed(*meetings(5))
        office.sync()
        office.delete("meeting00003")
        office.expire()
        office.google.add_fault(Fault(kind="status", status=503, list_kind="full", times=2))
        office.sync()

        asked = office.sync() + office.sync()

        assert kinds(asked) == ["full", "full"]
        assert office.health == ("synced", 0)
        office.assert_truth()

    @pytest.mark.parametrize("tombstone_days", [0, 30], ids=["without tombstones", "with tombstones"])
    def test_g21_what_was_deleted_in_the_gap_is_gone_after_the_resync(
        self, office: Office, tombstone_days: float
    ) -> None:
        office.seed(*meetings(5), weekly())
        office.override("20261208")
        office.cancel("20261215")
        office.sync()
        held = office.events
        office.fleet.clear_outbox()
        office.delete("meeting00002")
        office.delete("standup")
        office.google.configure(tombstone_days=tombstone_days)
        office.expire()

        office.sync()

        gone = {"meeting00002", "standup", "standup_20261208T090000Z", "standup_20261215T090000Z"}
        assert office.events.keys() == held.keys() - gone
        assert office.tombstones.keys() == gone
        assert office.outbox.keys() == {held[key]["event_id"] for key in gone}
        office.assert_truth()

    @pytest.mark.parametrize("kind", LATE_FAILURES)
    def test_g23_a_full_listing_that_fails_on_a_late_page_sweeps_nothing(self, office: Office, kind: Any) -> None:
        office.seed(*meetings(6))
        office.sync()
        rows = office.table()
        office.delete("meeting00002")
        office.google.configure(page_size=2, tombstone_days=0)
        office.expire()
        office.google.add_fault(Fault(kind=kind, list_kind="full", page="later", skip=1))

        asked = office.sync()

        assert kinds(asked) == ["delta", "full", "full+", "full+"]
        assert office.table() == rows
        assert office.calendar["state"] == "resync"

    def test_g23_a_listing_that_fails_after_pages_were_staged_sweeps_nothing(self, office: Office) -> None:
        office.fill(events=2800, series_every=0)
        office.sync()
        rows = office.table()
        office.churn(60)
        office.google.configure(page_size=900, tombstone_days=0)
        office.expire()
        office.google.add_fault(Fault(kind="reset", list_kind="full", page="later", skip=2, times=2))

        asked = office.sync()

        assert kinds(asked)[-1] == "full+"
        assert office.table() == rows
        assert office.calendar["failures"] == 1
