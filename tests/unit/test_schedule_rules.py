"""Every tick that an entry promises is accounted for exactly once, whatever the clock and the operator do."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beat_schedule import OCCURRENCES, WAKE_UPS
from config.timetable import Entry
from tenantsync.schedule import rules
from tenantsync.schedule.rules import Plan, Rule, Standing, plan, refusals

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def followed(policy: str, *, every: timedelta = HOUR, since: datetime = NOON) -> Standing:
    return Standing(Rule(every, policy), since=since, last_tick=since, earlier=0)  # type: ignore[arg-type]


def planned(standing: Standing, *, now: datetime, room: int = 50) -> Plan:
    return plan(standing, rule=standing.rule, now=now, room=room)


class TestPolicies:
    @pytest.mark.parametrize("policy", ["latest", "all", "skip"])
    def test_nothing_is_owed_before_the_first_tick(self, policy: str) -> None:
        result = planned(followed(policy, since=NOON + SECOND), now=NOON + HOUR - SECOND)

        assert (result.due, result.skipped) == ((), None)

    @pytest.mark.parametrize("policy", ["latest", "all", "skip"])
    def test_a_tick_in_time_is_owed_at_its_own_moment_and_not_at_that_of_the_look(self, policy: str) -> None:
        result = planned(followed(policy), now=NOON + HOUR + SECOND)

        assert (result.due, result.skipped) == ((NOON + HOUR,), None)
        assert result.after.last_tick == NOON + HOUR

    def test_latest_owes_the_newest_and_skips_those_before_in_one_span(self) -> None:
        result = planned(followed("latest"), now=NOON + 100 * HOUR + 59 * 60 * SECOND)

        assert result.due == (NOON + 100 * HOUR,)
        assert result.skipped == rules.Span(99, NOON + HOUR, NOON + 99 * HOUR, rules.OUTDATED)

    def test_skip_owes_nothing_late_and_skips_all_of_it_in_one_span(self) -> None:
        result = planned(followed("skip"), now=NOON + 100 * HOUR + rules.FRESH + SECOND)

        assert result.due == ()
        assert result.skipped == rules.Span(100, NOON + HOUR, NOON + 100 * HOUR, rules.MISSED)
        assert result.after.last_tick == NOON + 100 * HOUR

    def test_skip_owes_the_newest_while_it_is_fresh(self) -> None:
        result = planned(followed("skip"), now=NOON + 3 * HOUR + rules.FRESH)

        assert result.due == (NOON + 3 * HOUR,)
        assert result.skipped is not None
        assert result.skipped.ticks == 2

    def test_all_owes_every_one_the_oldest_first_as_far_as_there_is_room(self) -> None:
        first = planned(followed("all"), now=NOON + 7 * HOUR, room=5)
        second = planned(first.after, now=NOON + 7 * HOUR, room=5)
        full = planned(second.after, now=NOON + 9 * HOUR, room=0)

        assert first.due == tuple(NOON + number * HOUR for number in range(1, 6))
        assert second.due == (NOON + 6 * HOUR, NOON + 7 * HOUR)
        assert (full.due, full.after) == ((), second.after)

    def test_an_outage_of_a_year_costs_one_row(self) -> None:
        result = planned(followed("latest", every=SECOND), now=NOON + timedelta(days=365))

        assert len(result.due) == 1
        assert result.skipped is not None
        assert result.skipped.ticks == 365 * 86_400 - 1

    @pytest.mark.parametrize("policy", ["latest", "all", "skip"])
    def test_a_clock_that_was_stepped_back_owes_nothing_twice(self, policy: str) -> None:
        standing = planned(followed(policy), now=NOON + HOUR).after

        back = planned(standing, now=NOON - 5 * HOUR)
        again = planned(back.after, now=NOON + HOUR + SECOND)

        assert (back.due, back.skipped, back.after) == ((), None, standing)
        assert (again.due, again.skipped) == ((), None)

    def test_a_daylight_saving_change_moves_no_tick(self) -> None:
        before = datetime(2026, 10, 25, 0, 0, tzinfo=UTC)  # Berlin's clocks go back at 01:00 UTC
        standing, due = followed("all", since=before), []

        for hours in range(1, 5):
            result = planned(standing, now=before + hours * HOUR)
            standing = result.after
            due += result.due

        assert due == [before + hours * HOUR for hours in range(1, 5)]

    def test_an_edit_promises_from_now_on_and_forgets_nothing_of_before(self) -> None:
        standing = planned(followed("latest"), now=NOON + 5 * HOUR).after

        edited = plan(standing, rule=Rule(timedelta(minutes=10), "all"), now=NOON + 6 * HOUR + 30 * SECOND)
        after = planned(edited.after, now=NOON + 6 * HOUR + timedelta(minutes=20))

        assert edited.due == (NOON + 6 * HOUR,)
        assert edited.after.expected == 6
        assert after.due == (NOON + 6 * HOUR + timedelta(minutes=10), NOON + 6 * HOUR + timedelta(minutes=20))
        assert after.after.expected == 8


@dataclass
class World:
    """A tiny model of it: the moments that were promised, reckoned tick by tick, and those accounted for."""

    standing: Standing
    now: datetime
    highest: datetime
    promised: list[tuple[timedelta, datetime]] = field(default_factory=list)
    """Rules with the moment since when each is promised."""
    accounted: list[datetime] = field(default_factory=list)
    open: int = 0

    def tick(self, rule: Rule) -> None:
        result = plan(self.standing, rule=rule, now=self.now, room=5 - self.open)
        self.accounted += result.due
        self.open += len(result.due) if self.standing.rule.policy == "all" else 0
        if result.skipped is not None:
            span, every = result.skipped, self.standing.rule.every
            moments = [span.first + number * every for number in range(span.ticks)]
            assert moments[-1] == span.last
            self.accounted += moments
        if result.after.rule != self.standing.rule:
            self.promised.append((result.after.rule.every, result.after.since))
        self.standing = result.after

    def expected(self, upto: datetime) -> list[datetime]:
        """Every promised moment up to one, the slow way: each second is asked."""
        found = []
        ends = [since for _, since in self.promised[1:]] + [upto]
        for (every, since), end in zip(self.promised, ends, strict=True):
            moment = since.replace(microsecond=0) + SECOND
            while moment <= end:
                if (moment - datetime(1970, 1, 1, tzinfo=UTC)) % every == timedelta(0):
                    found.append(moment)
                moment += SECOND
        return found


RULES = st.builds(
    Rule,
    st.sampled_from([1, 2, 3, 7, 60]).map(lambda n: timedelta(seconds=n)),
    st.sampled_from(["latest", "all", "skip"]),
)
MOVES = st.one_of(
    st.tuples(st.just("wait"), st.integers(0, 2_500)),
    st.tuples(st.just("step back"), st.integers(1, 100_000)),
    st.tuples(st.just("outage"), st.integers(30_000, 90_000)),
    st.tuples(st.just("edit"), RULES),
    st.tuples(st.just("beats"), st.integers(1, 3)),
    st.tuples(st.just("finish"), st.integers(1, 5)),
)


@settings(max_examples=2_000, deadline=None)
@given(RULES, st.lists(MOVES, max_size=12))
def test_every_promised_tick_is_accounted_for_exactly_once(rule: Rule, moves: list[tuple[str, object]]) -> None:
    start = NOON + timedelta(milliseconds=250)
    world = World(Standing(rule, start, start, 0), now=start, highest=start, promised=[(rule.every, start)])

    for move, value in moves:
        if move in ("wait", "outage"):
            world.now += timedelta(milliseconds=int(str(value)))
        elif move == "step back":
            world.now -= timedelta(milliseconds=int(str(value)))
        elif move == "edit":
            assert isinstance(value, Rule)
            rule = value
        elif move == "finish":
            world.open = max(0, world.open - int(str(value)))
        for _ in range(int(str(value)) if move == "beats" else 0):
            world.tick(rule)
    world.now = max(world.now, world.standing.last_tick)
    while True:
        world.open, before = 0, world.standing
        world.tick(rule)
        if world.standing == before:
            break

    last = max(world.now, world.standing.last_tick)
    assert sorted(world.accounted) == world.expected(last)
    assert replace(world.standing, last_tick=last).expected == len(world.accounted)


TASKS = {"sync.dispatch", "retention.cleanup", "metrics.collect"}
WAKE = {"dispatch": {"task": "sync.dispatch"}}


class TestRefusals:
    def test_the_timetable_that_is_shipped_is_not_refused(self) -> None:
        tasks = {one["task"] for one in WAKE_UPS.values()} | {one.task for one in OCCURRENCES.values()}

        assert refusals(WAKE_UPS, OCCURRENCES, tasks) == []

    @pytest.mark.parametrize(
        ("name", "entry", "words"),
        [
            ("a", Entry("", every=HOUR, policy="latest"), "names no task: give it one of metrics.collect"),
            ("a", Entry("no.such", every=HOUR, policy="latest"), "'no.such', which does not exist"),
            ("a", Entry("sync.dispatch", every=HOUR, policy="latest"), "as entry 'dispatch' does"),
            ("dispatch", Entry("metrics.collect", every=HOUR, policy="latest"), "is a wake-up and an occurrence"),
            ("a", Entry("metrics.collect", every=timedelta(0), policy="latest"), "between one second and 366 days"),
            ("a", Entry("metrics.collect", every=-HOUR, policy="latest"), "between one second and 366 days"),
            ("a", Entry("metrics.collect", every=SECOND / 2, policy="latest"), "between one second and 366 days"),
            ("a", Entry("metrics.collect", every=60, policy="latest"), "should be a timedelta"),  # type: ignore[arg-type]
            ("a", Entry("metrics.collect", every=HOUR, policy="newest"), "'newest': it should be one of latest, all"),  # type: ignore[arg-type]
            ("a@b", Entry("metrics.collect", every=HOUR, policy="latest"), "unusable name"),
            ("", Entry("metrics.collect", every=HOUR, policy="latest"), "unusable name"),
        ],
    )
    def test_an_entry_that_cannot_be_followed_is_named_with_what_to_do(
        self, name: str, entry: Entry, words: str
    ) -> None:
        (found,) = refusals(WAKE, {name: entry}, TASKS)

        assert found.startswith(f"entry {name!r} of beat_schedule.py")
        assert words in found

    def test_two_entries_of_one_task_are_refused(self) -> None:
        entry = Entry("metrics.collect", every=HOUR, policy="latest")

        (found,) = refusals(WAKE, {"a": entry, "b": entry}, TASKS)

        assert "entry 'b'" in found
        assert "as entry 'a' does" in found

    @pytest.mark.parametrize("wake_up", [{"task": ""}, {"task": None}, {}])
    def test_a_wake_up_that_names_no_task_is_refused(self, wake_up: dict[str, object]) -> None:
        (found,) = refusals({"lost": wake_up}, {}, TASKS)

        assert "entry 'lost' of beat_schedule.py names no task" in found

    def test_everything_that_is_wrong_is_said_at_once(self) -> None:
        entry = Entry("no.such", every=timedelta(0), policy="never")  # type: ignore[arg-type]

        assert len(refusals({"lost": {}}, {"a": entry, "B": entry}, TASKS)) == 8
