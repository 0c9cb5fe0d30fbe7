"""Delays, verdicts and the cutting of messages: pure, so every value is tried and not a few."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.queues import Lane
from config.settings import Settings
from db.repositories.ledger import Capacity
from db.repositories.units import ClaimedUnit
from db.states import AccountState, CalendarState
from tenantsync.calendars import rules
from tenantsync.dispatching import rules as dispatching
from tenantsync.errors import (
    AccountUnusable,
    CalendarUnavailable,
    CursorVoid,
    GrantRevoked,
    OperatorFault,
    RateLimited,
    Refused,
    SyncError,
    Transient,
)
from tests.support.fleet import make_settings

URL = "postgresql://user:password@host/database"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
STANDARD = make_settings(URL)

chances = st.floats(0, 1, exclude_max=True)
failures = st.integers(1, 10_000)


@st.composite
def settings(draw: st.DrawFn) -> Settings:
    """Any settings of delays that the product accepts."""
    ceiling = draw(st.integers(1_000, 86_400_000))
    return STANDARD.model_copy(
        update={
            "worker_max_retries": draw(st.integers(0, 20)),
            "worker_retry_delay": timedelta(milliseconds=draw(st.integers(1, ceiling))),
            "sync_interval": timedelta(milliseconds=draw(st.integers(1_000, 86_400_000))),
            "sync_retry_ceiling": timedelta(milliseconds=ceiling),
        }
    )


class TestBackoff:
    @given(failures, chances, settings())
    def test_p66_a_further_failure_never_shortens_the_wait(self, count: int, chance: float, given_: Settings) -> None:
        before, after = rules.backoff(count, given_, chance), rules.backoff(count + 1, given_, chance)

        assert after >= before

    @given(failures, chances, settings())
    def test_p66_no_wait_exceeds_the_ceiling(self, count: int, chance: float, given_: Settings) -> None:
        delay = rules.backoff(count, given_, chance)

        assert 0 < delay <= given_.sync_retry_ceiling.total_seconds()

    @given(chances)
    def test_p66_waits_grow_from_the_first_delay_to_the_ceiling(self, chance: float) -> None:
        delays = [rules.backoff(count, STANDARD, chance) for count in range(1, 30)]

        assert delays[0] == pytest.approx(STANDARD.worker_retry_delay.total_seconds(), rel=0.2)
        assert delays[-1] == pytest.approx(STANDARD.sync_retry_ceiling.total_seconds(), rel=0.2)
        assert delays[0] < delays[5] < delays[-1]

    @given(failures, settings())
    def test_a_fleet_that_fails_at_once_does_not_come_back_at_once(self, count: int, given_: Settings) -> None:
        earliest, latest = rules.backoff(count, given_, 0.0), rules.backoff(count, given_, 0.999)

        assert latest - earliest >= 0.1 * earliest

    @given(st.floats(0, 1e9), chances)
    def test_spreading_stays_within_the_jitter(self, seconds: float, chance: float) -> None:
        moved = rules.spread(seconds, chance)

        assert seconds * (1 - rules.JITTER) <= moved <= seconds * (1 + rules.JITTER)


class TestVerdicts:
    @given(st.floats(0, 21_600), st.integers(0, 100), chances)
    def test_g61_a_calendar_is_never_due_before_the_moment_that_the_provider_named(
        self, wait: float, before: int, chance: float
    ) -> None:
        error = RateLimited("rateLimitExceeded", retry_after=wait)

        verdict = rules.judge(error, failures=before, settings=STANDARD, chance=chance)

        assert verdict.delay >= wait
        assert verdict.closed is not None
        assert verdict.closed.seconds >= wait
        assert (verdict.blamed, verdict.state, verdict.account_state) == (False, None, None)

    @pytest.mark.parametrize("scope", ["account", "project"])
    def test_a_rate_limit_closes_the_scope_that_the_provider_meant(self, scope: str) -> None:
        error = RateLimited("rateLimitExceeded", retry_after=30, scope=scope)

        verdict = rules.judge(error, failures=0, settings=STANDARD, chance=0.5)

        assert verdict.closed == rules.Closed(scope, 30, "rateLimitExceeded")

    @pytest.mark.parametrize(
        ("error", "state"),
        [
            (GrantRevoked("invalid_grant"), AccountState.NEEDS_REAUTH),
            (AccountUnusable("notACalendarUser"), AccountState.UNUSABLE),
        ],
    )
    def test_a_lost_account_stops_at_the_first_failure(self, error: SyncError, state: AccountState) -> None:
        verdict = rules.judge(error, failures=0, settings=STANDARD, chance=0.5)

        assert verdict.account_state == state
        assert verdict.delay >= 3600

    @given(st.integers(0, 100), chances)
    def test_p65_an_operators_fault_blames_nobody_and_calls_the_operator(self, before: int, chance: float) -> None:
        verdict = rules.judge(OperatorFault("invalid_client"), failures=before, settings=STANDARD, chance=chance)

        assert (verdict.blamed, verdict.alarm) == (False, True)
        assert verdict.closed is not None
        assert verdict.closed.scope == "project"
        assert (verdict.state, verdict.account_state) == (None, None)

    @pytest.mark.parametrize(("before", "state"), [(0, None), (1, None), (2, CalendarState.LOST)])
    def test_g64_a_missing_calendar_is_lost_only_after_several_tries(
        self, before: int, state: CalendarState | None
    ) -> None:
        verdict = rules.judge(CalendarUnavailable("notFound"), failures=before, settings=STANDARD, chance=0.5)

        assert verdict.state == state
        assert verdict.blamed

    def test_g64_a_calendar_that_the_provider_calls_deleted_is_lost_at_once(self) -> None:
        error = CalendarUnavailable("deleted", gone=True)

        verdict = rules.judge(error, failures=0, settings=STANDARD, chance=0.5)

        assert verdict.state == CalendarState.LOST

    @given(st.integers(2, 1000), chances)
    def test_g64_a_lost_calendar_is_not_asked_for_every_quarter_of_an_hour(self, before: int, chance: float) -> None:
        verdict = rules.judge(CalendarUnavailable("notFound"), failures=before, settings=STANDARD, chance=chance)

        assert verdict.delay > 12 * 3600

    @given(st.integers(0, 100), chances)
    def test_our_own_bugs_are_not_retried_quickly(self, before: int, chance: float) -> None:
        quick = rules.judge(Transient("http_503"), failures=0, settings=STANDARD, chance=chance).delay

        verdict = rules.judge(Refused("http_400"), failures=before, settings=STANDARD, chance=chance)

        assert verdict.delay > 10 * quick
        assert verdict.blamed

    @pytest.mark.parametrize("error", [Transient("http_503", "trouble"), CursorVoid("fullSyncRequired")])
    def test_g63_what_passes_by_itself_changes_no_state(self, error: SyncError) -> None:
        verdict = rules.judge(error, failures=0, settings=STANDARD, chance=0.5)

        assert (verdict.state, verdict.account_state, verdict.closed, verdict.alarm) == (None, None, None, False)
        assert verdict.blamed
        assert verdict.error == str(error)


class TestListings:
    @pytest.mark.parametrize(
        ("state", "cursor", "version", "over"),
        [
            ("synced", "cursor", 7, False),
            ("synced", "cursor", 6, True),
            ("synced", "cursor", None, True),
            ("synced", None, 7, True),
            ("new", None, None, True),
            ("resync", "cursor", 7, True),
            ("confirming", "cursor", 7, True),
            ("lost", "cursor", 7, True),
        ],
    )
    def test_p12_only_a_cursor_of_this_version_on_a_synced_calendar_is_used(
        self, state: str, cursor: str | None, version: int | None, over: bool
    ) -> None:
        answer = rules.starts_over(
            state=state,
            cursor=cursor,
            query_version=version,
            current_version=7,
            listed_at=NOW,
            relist_after=None,
            now=NOW,
            chance=0.5,
        )

        assert answer == over

    @pytest.mark.parametrize(("days", "over"), [(6, False), (8, True)])
    def test_g35_a_listing_grows_too_old_where_deletions_are_forgotten(self, days: int, over: bool) -> None:
        answer = rules.starts_over(
            state="synced",
            cursor="cursor",
            query_version=1,
            current_version=1,
            listed_at=NOW - timedelta(days=days),
            relist_after=timedelta(days=7),
            now=NOW,
            chance=0.5,
        )

        assert answer == over

    @pytest.mark.parametrize(
        ("state", "full", "named", "held", "waits"),
        [
            ("resync", True, 0, 500, True),
            ("synced", True, 0, 1, True),
            ("confirming", True, 0, 500, False),
            ("resync", True, 1, 500, False),
            ("new", True, 0, 0, False),
            ("synced", False, 0, 500, False),
        ],
    )
    def test_p24_an_empty_listing_where_rows_are_held_has_to_be_seen_twice(
        self, state: str, full: bool, named: int, held: int, waits: bool
    ) -> None:
        answer = rules.awaits_confirmation(state=state, full=full, named=named, event_count=held)

        assert answer == waits


def claimed(count: int, *, alone: bool) -> list[ClaimedUnit]:
    return [ClaimedUnit(UUID(int=number), UUID(int=0), number, alone) for number in range(count)]


class TestDispatching:
    @given(st.sampled_from(Lane), st.integers(0, 1000), st.integers(0, 5000))
    def test_free_messages_never_count_below_none_and_fill_every_idle_slot(
        self, lane: Lane, slots: int, busy: int
    ) -> None:
        free = dispatching.free_messages(lane, Capacity(slots=slots, busy=busy))

        assert free >= max(0, slots - busy)
        assert free <= 2 * slots

    @given(st.sampled_from(Lane), st.integers(1, 20), st.integers(1, 300))
    def test_what_is_claimed_fits_into_the_free_messages(self, lane: Lane, free: int, batch_size: int) -> None:
        size = dispatching.claim_size(lane, free, batch_size)
        units = claimed(size, alone=lane in (Lane.BULK, Lane.ISOLATED))
        messages = list(dispatching.cut(lane, units, free, batch_size))

        assert size >= free
        assert len(messages) <= free

    @given(st.sampled_from(Lane), st.lists(st.booleans(), max_size=500), st.integers(1, 50), st.integers(1, 1000))
    def test_cutting_loses_and_doubles_no_unit_and_makes_no_message_too_large_or_empty(
        self, lane: Lane, alone: list[bool], free: int, batch_size: int
    ) -> None:
        units = [ClaimedUnit(UUID(int=number), UUID(int=0), number, one) for number, one in enumerate(alone)]
        messages = list(dispatching.cut(lane, units, free, batch_size))

        assert sorted(unit.fence for message in messages for unit in message) == list(range(len(alone)))
        assert all(1 <= len(message) <= batch_size for message in messages)

    @pytest.mark.parametrize("lane", [Lane.BULK, Lane.QUARANTINE, Lane.ISOLATED])
    def test_units_that_may_kill_their_worker_or_parse_a_lot_travel_alone(self, lane: Lane) -> None:
        messages = list(dispatching.cut(lane, claimed(30, alone=True), 4, 200))

        assert {len(message) for message in messages} == {1}

    def test_units_that_were_in_company_when_their_worker_died_are_tried_again_in_small_company(self) -> None:
        messages = list(dispatching.cut(Lane.QUARANTINE, claimed(40, alone=False), 4, 200))

        assert [len(message) for message in messages] == [15, 15, 10]

    def test_a_claim_is_spread_over_the_free_slots(self) -> None:
        messages = list(dispatching.cut(Lane.SYNC, claimed(400, alone=False), 4, 200))

        assert [len(message) for message in messages] == [100, 100, 100, 100]
