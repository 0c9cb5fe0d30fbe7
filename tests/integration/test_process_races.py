"""Two at one process: an end and a late word, a zombie and its successor, and a clock that was set back."""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from config.settings import Settings
from tenantsync.processes import publishing, service, syncs
from tenantsync.processes.publishing import Publisher
from tenantsync.processes.service import Held, ProcessLost
from tests.support.logs import captured_logs
from tests.support.mirror import plant_calendar
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.stage import Stage
from tests.support.waiting import wait_until

pytest_plugins = ["tests.support.stage_fixtures"]

GONE = "update process.processes set lease_until = now() - interval '1 second' where process_id = :process"
QUIET = "update process.processes set started_at = now() - interval '31 s' where process_id = :process"
WAITING = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
SPOILED = """
create function process.spoil() returns trigger language plpgsql as $$ begin raise exception 'spoiled'; end $$;
create trigger spoil before update on process.processes for each row
  when (old.process_id = '{process}' and old.last_sequence <> new.last_sequence) execute function process.spoil()
"""

Behind = Callable[[Callable[[Any], object], Callable[[], Any]], Any]


@pytest.fixture(autouse=True)
def log(settings: Settings) -> Iterator[io.StringIO]:
    """The product's own log: structlog's default takes seconds to paint a traceback."""
    with captured_logs(settings) as lines:
        yield lines


@pytest.fixture
def behind(stage: Stage) -> Iterator[Behind]:
    """Does the first in a transaction, and the second from a thread that has to wait for its commit."""
    with ThreadPoolExecutor(1) as thread:

        def do(first: Callable[[Any], object], second: Callable[[], Any]) -> Any:
            with stage.database.transaction() as connection:
                first(connection)
                waiting: Future[Any] = thread.submit(second)
                wait_until(lambda: waiting.done() or stage.column(WAITING), about="somebody who waits")
            return waiting.result(10)

        yield do


@pytest.fixture
def spoiled(stage: Stage) -> Iterator[Callable[[UUID], None]]:
    """Has Postgres refuse whatever is told of one process."""

    def spoil(process: UUID) -> None:
        with stage.database.transaction() as connection:
            connection.exec_driver_sql(SPOILED.format(process=process))

    yield spoil
    stage.execute("drop function if exists process.spoil() cascade")


class TestTheEnd:
    @pytest.mark.parametrize("how", ["complete", "fail"])
    def test_a_snapshot_that_waited_does_not_take_back_what_the_end_says(
        self, stage: Stage, publisher: Publisher, how: str
    ) -> None:
        held = stage.begin()
        for percentage in (10, 40):
            soon = datetime.now(UTC) + timedelta(hours=1)
            publisher.publish(held, "progress", {"percentage": percentage, "estimated_completion": soon})

        end = {
            "complete": lambda c: service.complete(c, held=held),
            "fail": lambda c: service.fail(c, held=held, error="no"),
        }[how]
        stage.do(end)

        row = stage.row(held.process_id)
        assert (row.percentage, row.estimated_completion_at) == (100.0 if how == "complete" else 40.0, None)
        assert stage.types(held.process_id)[-2:] == [
            "progress",
            "process_completed" if how == "complete" else "process_error",
        ]

    def test_a_snapshot_that_was_kept_while_the_process_ended_is_not_told(
        self, stage: Stage, publisher: Publisher, behind: Behind
    ) -> None:
        held = stage.begin()
        publisher.publish(held, "progress", {"percentage": 10})

        behind(
            lambda c: service.complete(c, held=held), lambda: publisher.publish(held, "progress", {"percentage": 40})
        )
        stage.execute("update process.snapshots set due_at = now() where due_at is not null")
        publishing.flush_late(stage.database)

        assert stage.last(held.process_id).event_type == "process_completed"
        assert stage.row(held.process_id).percentage == 100.0
        assert stage.column("select 1 from process.snapshots where due_at is not null") == []

    def test_a_process_that_ends_meanwhile_shows_no_sign_of_life_any_more(self, stage: Stage, behind: Behind) -> None:
        held = stage.begin()
        stage.execute(QUIET, process=held.process_id)

        done = behind(lambda c: service.complete(c, held=held), lambda: service.tend(stage.database))

        assert done["heartbeats"] == 0
        assert stage.last(held.process_id).event_type == "process_completed"


class TestOneThatCannotBeSeenTo:
    def test_keeps_no_other_process_from_a_heartbeat(self, stage: Stage, spoiled: Callable[[UUID], None]) -> None:
        first, second = stage.begin().process_id, stage.begin().process_id
        for process in (first, second):
            stage.execute(QUIET, process=process)
        spoiled(first)

        assert stage.tend() == {"heartbeats": 1}
        assert stage.last(second).event_type == "heartbeat"

    def test_keeps_no_other_process_from_its_last_snapshot(
        self, stage: Stage, publisher: Publisher, spoiled: Callable[[UUID], None]
    ) -> None:
        both = [stage.begin(), stage.begin()]
        for held in both:
            publisher.publish(held, "progress", {"percentage": 1})
            publisher.publish(held, "progress", {"percentage": 5})
        publisher.close()
        stage.execute("update process.snapshots set due_at = now() where due_at is not null")
        spoiled(both[0].process_id)

        assert publishing.flush_late(stage.database) == 1
        assert stage.last(both[1].process_id).data == {"percentage": 5}


class TestZombies:
    @pytest.fixture
    def lost(self, stage: Stage, publisher: Publisher) -> Held:
        """An attempt that was given up while a piece of its text waited in its worker."""
        held = stage.begin()
        publisher.publish(held, "section_chunk", {"section_index": 0, "chunk": "of the first"})
        stage.execute(GONE, process=held.process_id)
        stage.tend()
        return held

    def test_the_next_attempt_in_the_same_worker_is_not_blamed_for_the_last_one(
        self, stage: Stage, publisher: Publisher, lost: Held
    ) -> None:
        wait_until(lambda: not publisher._waiting(), about="the thread that writes pieces")
        held = stage.begin(lost.process_id)

        publisher.publish(held, "section_completed", {"section_index": 0, "content": "x"})

        assert stage.last(held.process_id).event_type == "section_completed"

    def test_the_next_attempts_pieces_arrive_and_those_of_the_last_one_do_not(
        self, stage: Stage, publisher: Publisher, lost: Held
    ) -> None:
        held = stage.begin(lost.process_id)
        publisher.publish(held, "section_chunk", {"section_index": 0, "chunk": "of the second"})
        with pytest.raises(ProcessLost):
            publisher.flush()

        chunks = [one.data["chunk"] for one in stage.events(held.process_id) if one.event_type == "section_chunk"]
        assert chunks == ["of the second"]


class TestClocks:
    def test_a_clock_that_was_set_back_holds_up_no_snapshot(self, stage: Stage, publisher: Publisher) -> None:
        held = stage.begin()
        publisher.publish(held, "progress", {"percentage": 1})
        stage.execute("update process.snapshots set published_at = now() + interval '1 hour'")

        publisher.publish(held, "progress", {"percentage": 2})

        wait_until(lambda: stage.last(held.process_id).data.get("percentage") == 2, about="the snapshot", longest=2)

    def test_a_snapshot_that_waits_for_a_moment_that_went_away_is_told(
        self, stage: Stage, publisher: Publisher
    ) -> None:
        held = stage.begin()
        publisher.publish(held, "progress", {"percentage": 1})
        publisher.publish(held, "progress", {"percentage": 2})
        publisher.close()
        stage.execute("update process.snapshots set due_at = now() + interval '1 hour' where due_at is not null")

        assert publishing.flush_late(stage.database) == 1
        assert stage.last(held.process_id).data["percentage"] == 2


class TestMending:
    def test_a_run_that_takes_a_deserted_process_over_just_then_keeps_it(self, stage: Stage, behind: Behind) -> None:
        """The look found it deserted; by the time that it is held, another run is at it."""
        tenant, subject = stage.tenant.tenant_id, stage.tenant.workspace_id
        about = [syncs.About(syncs.SYNC_NOW, subject, subject, "office")]
        plant_calendar(stage.database, stage.tenant)
        first = stage.do(lambda c: syncs.begin(c, tenant_id=tenant, about=about, worker="w"))[subject]
        stage.execute("update process.processes set updated_at = now() - interval '1 minute'")

        mended = behind(
            lambda c: syncs.begin(c, tenant_id=tenant, about=about, worker="w"), lambda: syncs.mend(stage.database)
        )

        row = stage.row(first.process_id)
        assert (mended, row.state, row.attempt) == (0, "running", 2)
