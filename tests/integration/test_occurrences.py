"""Occurrences are rows: each tick of each entry once, whoever ticks, whatever is lost, however late it is."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import pairwise
from threading import Barrier
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import DBAPIError

from config.timetable import Entry
from db.repositories import schedules
from db.session import Database
from sandbox.servers.postgres import Postgres
from tenantsync.errors import PublishFailed
from tenantsync.schedule import occurrences, rules, service
from tenantsync.schedule.occurrences import OccurrenceLost, Step, Unfinished
from tests.support.clockwork import CALM, LEASE, Clockwork, Timetable
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.statements import Spoil, StatementTap
from tests.support.waiting import wait_until

SECOND = timedelta(seconds=1)
LATEST = {"job": Entry("test.job", every=CALM, policy="latest")}
ALL = {"job": Entry("test.job", every=CALM, policy="all")}
SKIP = {"job": Entry("test.job", every=CALM, policy="skip")}
MANY = 8


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:  # noqa: F811
    opened = Database(database_url, pool_size=2 * MANY, name="tests")
    yield opened
    opened.close()


@pytest.fixture
def kill(postgres: Postgres) -> Callable[[int], None]:
    """Ends a session at the server, and waits until it is gone."""

    def terminate(backend: int) -> None:
        with postgres.connect() as connection, connection.cursor() as cursor:
            cursor.execute("select pg_terminate_backend(%s, 5000)", (backend,))

    return terminate


@pytest.fixture
def clockwork(database: Database) -> Clockwork:
    return Clockwork(database)


@pytest.fixture
def owed(clockwork: Clockwork) -> Callable[..., UUID]:
    """Makes one occurrence be due; it has been sent."""

    def make(timetable: Timetable = LATEST) -> UUID:
        clockwork.tick(timetable)
        clockwork.pretend(since=timetable["job"].every)
        clockwork.tick(timetable)
        return clockwork.sent[-1]

    return make


class TestTicks:
    def test_nothing_is_owed_of_the_time_before_an_entry_was_there(self, clockwork: Clockwork) -> None:
        clockwork.tick(LATEST)

        assert (clockwork.rows(), clockwork.sent, clockwork.expected()) == ([], [], 0)

    def test_a_tick_becomes_a_row_at_its_own_moment_and_one_message(self, clockwork: Clockwork) -> None:
        clockwork.tick(LATEST)
        clockwork.pretend(since=CALM)
        clockwork.tick(LATEST)

        (row,) = clockwork.rows()
        assert (row.kind, row.status, row.queue) == ("test.job", "pending", "maintenance")
        assert row.due_at.timestamp() % CALM.total_seconds() == 0
        assert clockwork.sent == [row.id]

    @pytest.mark.parametrize("timetable", [LATEST, ALL, {"job": Entry("test.job", every=SECOND, policy="all")}])
    def test_of_eight_that_tick_at_once_each_tick_is_written_once(
        self, clockwork: Clockwork, timetable: Timetable
    ) -> None:
        clockwork.tick(timetable)
        clockwork.pretend(since=20 * timetable["job"].every)
        start = Barrier(MANY)

        def tick(_: int) -> None:
            for _ in range(5):
                start.wait()
                clockwork.tick(timetable)

        with ThreadPoolExecutor(MANY) as pool:
            list(pool.map(tick, range(MANY)))

        moments = [row.due_at for row in clockwork.rows()]
        assert len(moments) == len(set(moments))
        assert clockwork.reading().accounted == clockwork.expected() >= 20
        assert len(clockwork.sent) == len(set(clockwork.sent)) == 1

    def test_eight_that_meet_a_new_timetable_follow_it_once(self, clockwork: Clockwork) -> None:
        start = Barrier(MANY)

        def tick(_: int) -> None:
            start.wait()
            clockwork.tick(LATEST | {"other": Entry("test.other", every=CALM, policy="all")})

        with ThreadPoolExecutor(MANY) as pool:
            list(pool.map(tick, range(MANY)))

        assert (clockwork.reading("job").kind, clockwork.reading("other").kind) == ("test.job", "test.other")

    def test_a_restored_table_that_forgot_how_far_it_was_doubles_nothing(self, clockwork: Clockwork) -> None:
        clockwork.tick(ALL)
        clockwork.pretend(since=5 * CALM)
        clockwork.tick(ALL)
        before = clockwork.rows()

        clockwork.pretend(since=5 * CALM)
        clockwork.tick(ALL)

        assert {row.due_at for row in before} <= {row.due_at for row in clockwork.rows()}
        assert len(clockwork.rows()) == len({row.due_at for row in clockwork.rows()})

    def test_a_clock_that_was_stepped_back_changes_nothing(self, clockwork: Clockwork) -> None:
        clockwork.tick(LATEST)
        clockwork.execute("update worker.schedules set last_tick = now() + interval '1 year'")
        ahead = clockwork.reading().last_tick

        for _ in range(3):
            clockwork.tick(LATEST)

        assert (clockwork.rows(), clockwork.reading().last_tick) == ([], ahead)

    def test_a_tick_that_finds_the_entry_held_goes_on_without_it(self, clockwork: Clockwork) -> None:
        timetable = LATEST | {"other": Entry("test.other", every=CALM, policy="latest")}
        clockwork.tick(timetable)
        clockwork.pretend(since=CALM)

        with clockwork.database.transaction() as connection:
            schedules.lock(connection, kind="test.job")
            clockwork.tick(timetable)

        assert [row.kind for row in clockwork.rows()] == ["test.other"]


class TestOutages:
    def test_latest_does_the_newest_and_records_the_rest_as_one_row(self, clockwork: Clockwork) -> None:
        clockwork.tick(LATEST)
        clockwork.pretend(since=300 * CALM)
        clockwork.tick(LATEST)

        skipped, pending = clockwork.rows()
        assert (pending.status, skipped.status, skipped.error_log) == ("pending", "skipped", rules.OUTDATED)
        assert skipped.result["ticks"] == clockwork.reading().skipped == 299
        assert datetime.fromisoformat(skipped.result["to"]) == pending.due_at - CALM

    def test_skip_does_nothing_late_and_records_all_of_it(self, clockwork: Clockwork) -> None:
        clockwork.tick(SKIP)
        clockwork.pretend(since=30 * CALM)
        clockwork.tick(SKIP)
        (skipped,) = clockwork.rows("skipped")

        assert skipped.error_log == rules.MISSED
        assert skipped.result["ticks"] == clockwork.reading().skipped
        assert clockwork.reading().accounted == clockwork.expected() == 30

    def test_all_does_every_one_in_turn_in_bounded_portions(self, clockwork: Clockwork) -> None:
        clockwork.tick(ALL)
        clockwork.pretend(since=2 * rules.OPEN_AT_ONCE * CALM)
        clockwork.tick(ALL)
        waiting = len(clockwork.rows("pending"))

        while clockwork.sent:
            assert clockwork.run(clockwork.sent.pop())
            clockwork.tick(ALL)

        assert waiting == rules.OPEN_AT_ONCE
        done = [row.due_at for row in clockwork.rows("completed")]
        assert len(done) == clockwork.expected() == clockwork.reading().done >= 2 * rules.OPEN_AT_ONCE
        assert {later - earlier for earlier, later in pairwise(done)} == {CALM}

    @pytest.mark.parametrize("begun", [False, True], ids=["never begun", "its worker is gone"])
    def test_what_nobody_is_at_gives_way_to_a_later_one(
        self, clockwork: Clockwork, owed: Callable[..., UUID], begun: bool
    ) -> None:
        first = owed()
        if begun:
            with clockwork.database.transaction() as connection:
                schedules.begin(connection, occurrence=first, worker="gone", lease=LEASE)
            clockwork.lose()
        clockwork.execute("update worker.tasks set due_at = due_at - :every", every=CALM)
        clockwork.execute("delete from worker.task_keys")
        clockwork.pretend(since=CALM)
        clockwork.tick(LATEST)

        older, newer = clockwork.rows()
        assert (older.id, older.status, older.error_log) == (first, "superseded", service.SUPERSEDED)
        assert newer.status == "pending"
        assert clockwork.reading().superseded == 1


class TestLosses:
    def test_a_crash_between_the_row_and_its_message_loses_nothing(self, clockwork: Clockwork) -> None:
        clockwork.tick(LATEST)
        clockwork.pretend(since=CALM)

        def broken(entry: Entry, occurrence: UUID) -> None:
            raise PublishFailed("the broker is away")

        with pytest.raises(PublishFailed):
            service.tick(clockwork.database, broken, LATEST)
        clockwork.lose()
        clockwork.tick(LATEST)

        assert clockwork.sent == [row.id for row in clockwork.rows()]

    def test_a_message_is_given_its_time_before_it_is_sent_again(
        self, clockwork: Clockwork, owed: Callable[..., UUID]
    ) -> None:
        owed()

        for _ in range(3):
            clockwork.tick(LATEST)

        assert len(clockwork.sent) == 1

    def test_a_message_that_comes_eight_times_is_done_once(
        self, clockwork: Clockwork, owed: Callable[..., UUID]
    ) -> None:
        occurrence, done = owed(), []
        start = Barrier(MANY)

        def run(worker: int) -> bool:
            start.wait()
            return clockwork.run(occurrence, lambda _: {"by": done.append(worker)}, worker=str(worker))

        with ThreadPoolExecutor(MANY) as pool:
            ours = list(pool.map(run, range(MANY)))

        assert (sum(ours), len(done)) == (1, 1)
        assert clockwork.reading().done == 1

    def test_an_occurrence_whose_worker_died_runs_again_and_its_ghost_ends_nothing(
        self, clockwork: Clockwork, owed: Callable[..., UUID]
    ) -> None:
        occurrence = owed()
        with clockwork.database.transaction() as connection:
            ghost = schedules.begin(connection, occurrence=occurrence, worker="ghost", lease=LEASE)
        assert ghost is not None
        clockwork.lose()
        clockwork.tick(LATEST)

        def heir(_: Step) -> dict[str, str]:
            with clockwork.database.transaction() as connection:
                assert not schedules.renew(connection, begun=ghost, worker="ghost", lease=LEASE)
                assert not schedules.end(connection, begun=ghost, result={"by": "ghost"}, error=None)
            return {"by": "heir"}

        assert clockwork.sent == [occurrence, occurrence]
        assert clockwork.run(occurrence, heir, worker="heir")
        (row,) = clockwork.rows()
        assert (row.status, row.attempts, row.worker_id, row.result) == ("completed", 2, "heir", {"by": "heir"})
        assert clockwork.reading().done == 1

    def test_nobody_begins_what_somebody_is_at(self, clockwork: Clockwork, owed: Callable[..., UUID]) -> None:
        occurrence = owed()

        def busy(_: Step) -> None:
            assert not clockwork.run(occurrence, worker="another")

        assert clockwork.run(occurrence, busy)
        assert clockwork.rows()[0].attempts == 1

    def test_a_ghost_that_wakes_in_the_middle_stops_at_its_next_step(
        self, clockwork: Clockwork, owed: Callable[..., UUID]
    ) -> None:
        occurrence, went_on = owed(), []

        def taken_meanwhile(step: Step) -> None:
            clockwork.lose()
            clockwork.run(occurrence, lambda _: {"by": "heir"}, worker="heir")
            wait_until(lambda: _lost(step), about="the ghost notices")
            step()
            went_on.append(True)

        short = timedelta(milliseconds=300)
        ended = occurrences.run(clockwork.database, occurrence, taken_meanwhile, worker="ghost", lease=short)

        assert (ended, went_on) == (False, [])
        assert [row.result for row in clockwork.rows()] == [{"by": "heir"}]

    def test_a_job_longer_than_its_lease_keeps_it(self, clockwork: Clockwork, owed: Callable[..., UUID]) -> None:
        occurrence, seen = owed(), []

        def long(step: Step) -> None:
            def renewed() -> bool:
                step()
                (row,) = clockwork.rows()
                seen.append(row.lease_until)
                return len(set(seen)) > 6

            wait_until(renewed, about="six renewals, twice the length of the lease")

        assert occurrences.run(clockwork.database, occurrence, long, worker="w", lease=SECOND)
        assert clockwork.rows()[0].attempts == 1

    def test_what_lost_five_workers_has_failed_and_says_so(
        self, clockwork: Clockwork, owed: Callable[..., UUID]
    ) -> None:
        occurrence = owed()
        for _ in range(schedules.MOST_ATTEMPTS):
            with clockwork.database.transaction() as connection:
                assert schedules.begin(connection, occurrence=occurrence, worker="doomed", lease=LEASE) is not None
            clockwork.lose()
            clockwork.tick(LATEST)

        (row,) = clockwork.rows()
        assert (row.status, row.attempts) == ("failed", schedules.MOST_ATTEMPTS)
        assert row.error_log == "given up: its worker was lost 5 times"
        assert not clockwork.run(occurrence)
        assert (clockwork.reading().failed, clockwork.reading().accounted) == (1, clockwork.expected())

    def test_a_message_that_names_nothing_is_nothing(self, clockwork: Clockwork) -> None:
        assert not clockwork.run(uuid4())

    def test_one_is_sent_when_the_one_before_is_over(self, clockwork: Clockwork, owed: Callable[..., UUID]) -> None:
        timetable = {"job": Entry("test.job", every=SECOND, policy="all")}
        first = owed(timetable)
        clockwork.pretend(since=5 * SECOND)

        clockwork.tick(timetable)
        held = list(clockwork.sent)
        clockwork.run(first)
        clockwork.tick(timetable)

        assert held == [first]
        assert len(clockwork.sent) == 2


def _lost(step: Step) -> bool:
    try:
        step()
    except OccurrenceLost:
        return True
    return False


@pytest.mark.parametrize("how", list(Spoil))
def test_a_tick_that_dies_at_any_of_its_statements_loses_and_doubles_nothing(
    database_url: str,  # noqa: F811
    clockwork: Clockwork,
    kill: Callable[[int], None],
    how: Spoil,
) -> None:
    tap = StatementTap(kill)
    frail = Database(database_url, pool_size=2, name="frail")
    tap.attach(frail)
    clockwork.tick(LATEST)
    statement = 0

    while True:
        statement += 1
        clockwork.execute("delete from worker.tasks")
        clockwork.execute("delete from worker.task_keys")
        clockwork.execute("update worker.schedules set done = 0, skipped = 0, superseded = 0")
        clockwork.pretend(since=3 * CALM)
        tap.arm(at=statement, how=how)
        with contextlib.suppress(DBAPIError):
            service.tick(frail, lambda *_: None, LATEST)
        tap.disarm()
        clockwork.lose()
        clockwork.tick(LATEST)

        assert [row.status for row in clockwork.rows()] == ["skipped", "pending"]
        assert clockwork.reading().accounted == clockwork.expected() == 3
        assert clockwork.run(clockwork.sent[-1])
        if len(tap.seen) < statement:
            break
    frail.close()

    assert statement > 8


class TestEnds:
    def test_what_a_job_returns_stands_in_the_ledger(self, clockwork: Clockwork, owed: Callable[..., UUID]) -> None:
        assert clockwork.run(owed(), lambda _: {"rows": 3})

        (row,) = clockwork.rows()
        assert (row.status, row.result, row.error_log, row.lease_until) == ("completed", {"rows": 3}, None, None)

    def test_an_error_fails_the_occurrence_and_is_raised(self, clockwork: Clockwork, owed: Callable[..., UUID]) -> None:
        def broken(_: Step) -> None:
            raise ZeroDivisionError("what it says may hold a secret")

        occurrence = owed()
        with pytest.raises(ZeroDivisionError):
            clockwork.run(occurrence, broken)

        (row,) = clockwork.rows()
        assert (row.status, row.error_log) == ("failed", "ZeroDivisionError")
        assert clockwork.reading().failed == 1

    def test_what_could_not_be_finished_says_why_and_what_was_done(
        self, clockwork: Clockwork, owed: Callable[..., UUID]
    ) -> None:
        def unfinished(_: Step) -> None:
            raise Unfinished("http_503: Supabase is away", {"tombstones": 7})

        assert clockwork.run(owed(), unfinished)

        (row,) = clockwork.rows()
        assert (row.status, row.error_log, row.result) == ("failed", "http_503: Supabase is away", {"tombstones": 7})


class TestEdits:
    def test_an_edited_entry_keeps_its_books(self, clockwork: Clockwork) -> None:
        clockwork.tick(LATEST)
        clockwork.pretend(since=7 * CALM)

        clockwork.tick({"job": Entry("test.job", every=SECOND, policy="all")})
        edited = clockwork.reading()
        clockwork.pretend(since=timedelta(hours=1))
        clockwork.tick({"job": Entry("test.job", every=SECOND, policy="all")})

        assert (edited.every, edited.policy, edited.earlier) == (SECOND, "all", 7)
        assert clockwork.reading().accounted == clockwork.expected() == 7 + rules.OPEN_AT_ONCE - 1

    def test_a_renamed_entry_goes_on_where_it_was(self, clockwork: Clockwork, owed: Callable[..., UUID]) -> None:
        clockwork.run(owed())
        before = clockwork.reading()

        clockwork.tick({"better-name": LATEST["job"]})

        after = clockwork.reading("better-name")
        assert (after.done, after.last_tick, after.since) == (before.done, before.last_tick, before.since)

    def test_an_entry_that_names_another_task_leaves_the_books_of_the_first_closed(
        self, clockwork: Clockwork, owed: Callable[..., UUID]
    ) -> None:
        clockwork.run(owed())

        clockwork.tick({"job": Entry("test.other", every=CALM, policy="latest")})

        assert (clockwork.reading("job").kind, clockwork.reading("job").done) == ("test.other", 0)
        assert (clockwork.reading("~test.job").kind, clockwork.reading("~test.job").done) == ("test.job", 1)

    @pytest.mark.parametrize(("lapsed", "status"), [("59 minutes", "pending"), ("61 minutes", "superseded")])
    def test_what_an_entry_owed_when_it_left_the_timetable_is_closed_after_a_deploys_time(
        self, clockwork: Clockwork, owed: Callable[..., UUID], lapsed: str, status: str
    ) -> None:
        owed()
        clockwork.execute("update worker.tasks set lease_until = now() - cast(:lapsed as interval)", lapsed=lapsed)

        clockwork.tick({"other": Entry("test.other", every=CALM, policy="latest")})

        assert [row.status for row in clockwork.rows()] == [status]
        assert clockwork.reading().accounted == clockwork.expected()


def test_the_books_close_over_a_long_mixed_history(clockwork: Clockwork) -> None:
    timetable = LATEST | {
        "every": Entry("test.every", every=7 * SECOND, policy="all"),
        "rarely": Entry("test.rarely", every=13 * SECOND, policy="skip"),
    }
    clockwork.tick(timetable)
    clockwork.pretend(since=2 * CALM)

    def broken(_: Step) -> None:
        raise Unfinished("on purpose", {})

    for number in range(60):
        clockwork.tick(timetable)
        if number % 3 == 0:
            clockwork.lose()
        for occurrence in clockwork.sent[-2:]:
            clockwork.run(occurrence, broken if number % 5 == 0 else lambda _: {})

    for entry in timetable:
        assert clockwork.reading(entry).accounted == clockwork.expected(entry) > 0
