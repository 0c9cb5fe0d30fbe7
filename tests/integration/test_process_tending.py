"""What nobody does by itself: questions whose time has come, workers that are gone, deadlines, signs of life."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from tenantsync.processes import service
from tenantsync.processes.service import AlreadyAnswered, NewQuestion, ProcessLost
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.stage import LEASE, Stage

pytest_plugins = ["tests.support.stage_fixtures"]

PAST = "update process.questions set {} = now() - interval '1 second' where question_id = :question"
GONE = "update process.processes set lease_until = now() - interval '1 second' where process_id = :process"
HOUR = timedelta(hours=1)


class TestInTime:
    def test_a_question_without_an_answer_falls_back_on_its_default(self, stage: Stage) -> None:
        asked = stage.ask(question=NewQuestion("x", "X", options=["a", "b"], deadline=HOUR, default_answer="b"))
        stage.execute(PAST.format("expires_at"), question=asked.question_id)

        assert stage.tend() == {"expired": 1}

        question = stage.question(asked.question_id)
        assert (question.state, question.answer["selected_index"], question.answered_by) == ("expired", 1, None)
        assert stage.state(asked.process_id) == "pending"
        assert stage.last(asked.process_id).event_type == "input_expired"
        assert stage.last(asked.process_id).data["used_default"] is True
        assert stage.ask(stage.begin(asked.process_id), NewQuestion("x", "X")).answer == question.answer

    def test_without_a_default_its_process_fails_and_says_why(self, stage: Stage) -> None:
        asked = stage.ask(question=NewQuestion("x", "X", deadline=HOUR))
        stage.execute(PAST.format("expires_at"), question=asked.question_id)

        assert stage.tend() == {"expired": 1}

        row = stage.row(asked.process_id)
        assert (row.state, row.error) == ("failed", "nobody answered 'x' in time")
        assert stage.question(asked.question_id).state == "expired"
        assert stage.types(asked.process_id)[-2:] == ["input_expired", "process_error"]

    def test_an_answer_that_comes_too_late_is_refused_though_nobody_has_looked_yet(self, stage: Stage) -> None:
        asked = stage.ask(question=NewQuestion("x", "X", deadline=HOUR))
        stage.execute(PAST.format("expires_at"), question=asked.question_id)

        with pytest.raises(AlreadyAnswered, match="time is over"):
            stage.answer(asked, "late")

    def test_people_are_reminded_once(self, stage: Stage) -> None:
        asked = stage.ask(question=NewQuestion("x", "X", deadline=HOUR, remind_after=HOUR / 2))
        stage.execute(PAST.format("remind_at"), question=asked.question_id)

        assert [stage.tend(), stage.tend()] == [{"reminded": 1}, {}]

        assert stage.last(asked.process_id).event_type == "input_reminder"
        assert stage.last(asked.process_id).data["timeout"] is not None
        assert stage.state(asked.process_id) == "waiting"
        assert stage.question(asked.question_id).reminded_at is not None

    def test_before_their_time_questions_are_left_alone(self, stage: Stage) -> None:
        stage.ask(question=NewQuestion("x", "X", deadline=HOUR, remind_after=HOUR / 2))

        assert stage.tend() == {}

    def test_while_a_process_is_paused_its_question_waits_as_well(self, stage: Stage) -> None:
        asked = stage.ask(question=NewQuestion("x", "X", deadline=HOUR))
        stage.wish("pause", asked.process_id)
        stage.execute(PAST.format("expires_at"), question=asked.question_id)

        assert stage.tend() == {}

        assert stage.question(asked.question_id).state == "open"


class TestStuck:
    def test_a_process_whose_worker_is_gone_runs_again(self, stage: Stage) -> None:
        held = stage.begin()
        stage.do(lambda c: service.start_step(c, held=held, step="integrating"))
        stage.execute(GONE, process=held.process_id)

        assert stage.tend() == {"stuck": 1}

        row = stage.row(held.process_id)
        assert (row.state, row.retry_count, row.lease_until) == ("pending", 1, None)
        assert "its worker was lost in step 'integrating'" in str(row.error)
        assert stage.last(held.process_id).data["error_type"] == "recoverable"
        assert stage.begin(held.process_id).attempt == 2
        with pytest.raises(ProcessLost):
            stage.do(lambda c: service.complete(c, held=held))

    def test_sessions_do_not_stay_in_integrating_for_ever(self, stage: Stage) -> None:
        """The story of the seeds: a session whose worker dies in INTEGRATING, again and again, and nobody looks."""
        process = stage.create(kind="session", max_retries=2)
        for _ in range(3):
            held = stage.begin(process)
            stage.do(lambda c, held=held: service.start_step(c, held=held, step="INTEGRATING"))
            stage.execute(GONE, process=process)
            stage.tend()

        row = stage.row(process)
        assert (row.state, row.attempt, row.retry_count) == ("failed", 3, 2)
        assert row.error == (
            "its worker was lost in step 'INTEGRATING', for the 3. time; look in the worker's log for why it ends"
        )
        assert stage.last(process).data["error_type"] == "fatal"
        assert stage.tend() == {}

    @pytest.mark.parametrize(("word", "state"), [("pause", "paused"), ("cancel", "cancelled")])
    def test_what_people_wanted_of_it_is_done_instead(self, stage: Stage, word: str, state: str) -> None:
        held = stage.begin()
        stage.wish(word, held.process_id)
        stage.execute(GONE, process=held.process_id)

        stage.tend()

        assert (stage.state(held.process_id), stage.row(held.process_id).retry_count) == (state, 0)

    def test_the_tick_sees_to_it_within_a_second(self, stage: Stage) -> None:
        held = stage.begin()
        stage.execute(GONE, process=held.process_id)

        assert service.catch_up(stage.database) == {"late": 0, "stuck": 1}

        assert stage.state(held.process_id) == "pending"

    def test_a_lease_that_was_renewed_meanwhile_is_respected(self, stage: Stage) -> None:
        held = stage.begin()
        stage.execute(GONE, process=held.process_id)
        stage.do(lambda c: service.renew(c, held=held, lease=LEASE))

        assert stage.tend() == {}

    def test_what_waits_for_an_answer_to_nothing_goes_on(self, stage: Stage) -> None:
        asked = stage.ask()
        stage.execute("update process.questions set state = 'withdrawn' where question_id = :q", q=asked.question_id)

        assert stage.tend() == {"unasked": 1}

        assert (stage.state(asked.process_id), stage.last(asked.process_id).event_type) == ("pending", "state_updated")

    def test_what_nobody_can_go_on_with_has_failed(self, stage: Stage) -> None:
        asked = stage.ask(stage.begin(queue=None))
        stage.execute("update process.questions set state = 'withdrawn' where question_id = :q", q=asked.question_id)

        stage.tend()

        assert stage.state(asked.process_id) == "failed"

    @pytest.mark.parametrize("state", ["pending", "running", "waiting", "paused"])
    def test_a_deadline_ends_what_is_open(self, stage: Stage, state: str) -> None:
        asked = stage.ask()
        stage.put(asked.process_id, state)
        stage.execute(
            "update process.processes set deadline_at = now() - interval '1 second' where process_id = :p",
            p=asked.process_id,
        )

        assert stage.tend() == {"overdue": 1}

        row = stage.row(asked.process_id)
        assert row.state == "failed"
        assert str(row.error).startswith("it was to be over by ")
        assert stage.question(asked.question_id).state == "withdrawn"


class TestSignsOfLife:
    OLD = "update process.processes set started_at = now() - interval '31 s' where process_id = :process"
    SHOWN = "update process.snapshots set published_at = now() - interval '31 s' where event_type = 'heartbeat'"

    def test_what_runs_shows_a_heartbeat_every_half_minute(self, stage: Stage) -> None:
        runs, fresh, waits = stage.begin().process_id, stage.begin().process_id, stage.create()
        stage.execute(self.OLD, process=runs)
        stage.execute(self.OLD, process=waits)

        first, second = stage.tend(), stage.tend()
        stage.execute(self.SHOWN)
        third = stage.tend()

        assert [first, second, third] == [{"heartbeats": 1}, {}, {"heartbeats": 1}]
        assert stage.types(runs)[-2:] == ["heartbeat", "heartbeat"]
        assert stage.last(runs).category == "system"
        assert "heartbeat" not in stage.types(fresh) + stage.types(waits)


def test_one_process_that_cannot_be_seen_to_keeps_no_other_waiting(stage: Stage) -> None:
    first, second = stage.begin().process_id, stage.begin().process_id
    for process in (first, second):
        stage.execute(GONE, process=process)
    stage.execute(
        "create function process.spoil() returns trigger language plpgsql as $$ begin raise exception 'spoiled'; end $$"
    )
    with stage.database.transaction() as connection:
        connection.execute(
            text(
                "create trigger spoil before update on process.processes for each row "
                f"when (old.process_id = '{first}') execute function process.spoil()"
            )
        )

    done = stage.tend()
    stage.execute("drop function process.spoil() cascade")

    assert done == {"stuck": 1}
    assert (stage.state(first), stage.state(second)) == ("running", "pending")
