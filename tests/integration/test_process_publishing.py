"""Publishing: durable events at once, snapshots no oftener than people can see, pieces in groups and all of them."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError

from db.ids import new_id
from db.repositories import process_events
from tenantsync.processes import publishing, service
from tenantsync.processes.publishing import Event, Publisher
from tenantsync.processes.service import PayloadRefused, ProcessLost, ProcessUnknown
from tenantsync.processes.values import Address
from tests.support.kept_database import database, database_url, kept_database  # noqa: F401 — fixtures
from tests.support.mirror import plant_tenant
from tests.support.stage import Stage
from tests.support.waiting import wait_until

pytest_plugins = ["tests.support.stage_fixtures"]

DONE = ("section_completed", {"section_index": 0, "content": "x"})


@pytest.fixture
def process(stage: Stage) -> UUID:
    return stage.create()


@pytest.fixture
def publish(stage: Stage, process: UUID, publisher: Publisher) -> Callable[..., None]:
    """Publishes about the test's process."""

    def one(event_type: str, data: Any, **options: Any) -> None:
        publisher.publish(stage.address(process), event_type, data, **options)

    return one


@pytest.fixture
def messages(stage: Stage, process: UUID) -> Callable[[], list[str]]:
    """What the progress of the test's process says, in order."""
    return lambda: [one.data["message"] for one in stage.events(process) if one.event_type == "progress"]


def test_a_durable_event_is_there_when_publish_returns(
    stage: Stage, process: UUID, publish: Callable[..., None]
) -> None:
    publish(*DONE)

    event = stage.last(process)
    assert (event.event_type, event.sequence, event.category, event.source) == (
        "section_completed", 2, "generation", "worker",
    )  # fmt: skip


def test_what_does_not_fit_is_refused_and_takes_no_number(
    stage: Stage, process: UUID, publish: Callable[..., None]
) -> None:
    for event_type, data in (("no_such", {}), ("section_completed", {}), ("progress", {"message": "\0"})):
        with pytest.raises(PayloadRefused):
            publish(event_type, data)

    publish(*DONE)
    assert [one.sequence for one in stage.events(process)] == [1, 2]


class TestSnapshots:
    def test_the_first_comes_at_once_and_then_the_newest(
        self, publish: Callable[..., None], messages: Callable[[], list[str]]
    ) -> None:
        for number in range(5):
            publish("progress", {"message": str(number)})
        at_once = messages()

        wait_until(lambda: len(messages()) == 2, about="the newest")

        assert (at_once, messages()) == (["0"], ["0", "4"])

    def test_types_and_processes_do_not_wait_for_one_another(
        self, stage: Stage, process: UUID, publisher: Publisher, publish: Callable[..., None]
    ) -> None:
        other = stage.create()

        publish("progress", {"message": "a"})
        publish("state_updated", {"status": "running"})
        publisher.publish(stage.address(other), "progress", {"message": "b"})

        assert stage.types(process)[1:] == ["progress", "state_updated"]
        assert stage.types(other)[1:] == ["progress"]

    def test_immediate_does_not_wait_and_what_waited_of_its_type_is_out_of_date(
        self, stage: Stage, publish: Callable[..., None], messages: Callable[[], list[str]]
    ) -> None:
        for message in ("first", "stale"):
            publish("progress", {"message": message})

        publish("progress", {"message": "now"}, immediate=True)

        assert messages() == ["first", "now"]
        publishing.flush_late(stage.database)
        assert messages() == ["first", "now"]

    def test_a_durable_event_comes_after_what_was_shown_before_it(
        self, stage: Stage, process: UUID, publish: Callable[..., None]
    ) -> None:
        for message in ("first", "almost done"):
            publish("progress", {"message": message})

        publish(*DONE)

        assert stage.types(process)[1:] == ["progress", "progress", "section_completed"]
        assert stage.events(process)[2].data["message"] == "almost done"

    def test_in_one_transaction_the_order_is_that_of_the_events(self, stage: Stage, process: UUID) -> None:
        events = [
            Event("progress", {"message": "1"}),
            Event("progress", {"message": "2"}),
            Event(*DONE),
            Event("progress", {"message": "3"}),
            Event(*DONE),
        ]

        stage.do(
            lambda c: publishing.publish_in(c, process_id=process, tenant_id=stage.tenant.tenant_id, events=events)
        )

        told = [one.data.get("message", "done") for one in stage.events(process)[1:]]
        assert told == ["1", "2", "done", "3", "done"]

    def test_one_whose_writer_never_came_back_is_published_by_the_wake_up(
        self, stage: Stage, process: UUID, messages: Callable[[], list[str]]
    ) -> None:
        for message in ("first", "last"):
            event = Event("progress", {"message": message})
            stage.do(
                lambda c, event=event: publishing.publish_in(
                    c, process_id=process, tenant_id=stage.tenant.tenant_id, events=[event]
                )
            )

        wait_until(lambda: publishing.flush_late(stage.database), about="the last one being due")

        assert messages() == ["first", "last"]
        assert publishing.flush_late(stage.database) == 0

    def test_the_row_shows_the_percentage_that_was_published_last(
        self, stage: Stage, process: UUID, publish: Callable[..., None]
    ) -> None:
        for percentage in (1.0, 40.0, 41.0):
            publish("progress", {"percentage": percentage})
        shown = stage.row(process).percentage

        wait_until(lambda: stage.row(process).percentage == 41.0, about="the newest percentage")

        assert shown == 1.0


class TestPieces:
    def test_every_one_arrives_in_order_and_in_groups(
        self, stage: Stage, process: UUID, publisher: Publisher, publish: Callable[..., None]
    ) -> None:
        for number in range(500):
            publish("section_chunk", {"section_index": 0, "chunk": str(number)})
        publisher.flush()

        chunks = [one for one in stage.events(process) if one.event_type == "section_chunk"]
        assert [one.data["chunk"] for one in chunks] == [str(number) for number in range(500)]
        assert [one.sequence for one in chunks] == list(range(2, 502))

    def test_they_do_not_wait_for_long(self, stage: Stage, process: UUID, publish: Callable[..., None]) -> None:
        publish("section_chunk", {"section_index": 0, "chunk": "a"})
        at_once = stage.types(process)

        wait_until(lambda: len(stage.types(process)) == 2, about="the piece", longest=2)

        assert at_once == ["process_created"]

    def test_what_is_published_after_them_comes_after_them(
        self, stage: Stage, process: UUID, publish: Callable[..., None]
    ) -> None:
        for number in range(3):
            publish("section_chunk", {"section_index": 0, "chunk": str(number)})

        publish(*DONE)

        assert stage.types(process)[1:] == ["section_chunk"] * 3 + ["section_completed"]

    def test_closing_writes_what_waits(self, stage: Stage, process: UUID) -> None:
        publisher = Publisher(stage.database)
        publisher.publish(stage.address(process), "section_chunk", {"section_index": 0, "chunk": "a"})

        publisher.close()

        assert stage.types(process) == ["process_created", "section_chunk"]


class TestFences:
    @pytest.mark.parametrize(
        ("event_type", "data"),
        [DONE, ("progress", {"message": "x"}), ("section_chunk", {"section_index": 0, "chunk": "x"})],
    )
    def test_a_run_that_lost_its_process_publishes_nothing_and_is_told(
        self, stage: Stage, publisher: Publisher, event_type: str, data: Any
    ) -> None:
        held = stage.begin()
        stage.do(lambda c: service.hand_back(c, held=held))
        stage.begin(held.process_id)
        before = stage.types(held.process_id)

        with pytest.raises(ProcessLost):
            publisher.publish(held, event_type, data)
            publisher.flush()

        assert stage.types(held.process_id) == before

    def test_a_piece_that_was_refused_in_the_background_is_told_with_the_next(
        self, stage: Stage, publisher: Publisher
    ) -> None:
        held = stage.begin()
        stage.do(lambda c: service.hand_back(c, held=held))
        publisher.publish(held, "section_chunk", {"section_index": 0, "chunk": "x"})

        def told() -> bool:
            try:
                publisher.publish(held, "section_chunk", {"section_index": 0, "chunk": "y"})
            except ProcessLost:
                return True
            return False

        wait_until(told, about="the loss being told")

    def test_another_tenants_process_is_unknown(self, stage: Stage, process: UUID, publisher: Publisher) -> None:
        stranger = plant_tenant(stage.database, f"stranger to {stage.tenant.name}").tenant_id

        for event_type, data in (DONE, ("progress", {"message": "x"})):
            with pytest.raises(ProcessUnknown):
                publisher.publish(Address(process, stranger), event_type, data)

        assert stage.types(process) == ["process_created"]


class TestWithoutPostgres:
    @pytest.fixture
    def cut(self, stage: Stage) -> Iterator[tuple[Publisher, Callable[[bool], None]]]:
        """A publisher, and a switch that lets events in or not."""
        publisher = Publisher(stage.database)

        def shut(closed: bool) -> None:
            stage.execute(
                "create or replace function process.closed() returns trigger language plpgsql as "
                "$$ begin if {} then raise exception 'closed'; end if; return new; end $$".format(
                    f"new.tenant_id = '{stage.tenant.tenant_id}'" if closed else "false"
                )
            )

        shut(False)
        stage.execute("create trigger closed before insert on process.events for each row "
                      "execute function process.closed()")  # fmt: skip
        yield publisher, shut
        publisher.close()
        stage.execute("drop function process.closed() cascade")

    def test_pieces_wait_until_it_is_back(
        self, stage: Stage, process: UUID, cut: tuple[Publisher, Callable[[bool], None]]
    ) -> None:
        publisher, shut = cut
        shut(True)
        publisher.publish(stage.address(process), "section_chunk", {"section_index": 0, "chunk": "a"})
        with pytest.raises(DBAPIError):
            publisher.flush()
        publisher.publish(stage.address(process), "section_chunk", {"section_index": 0, "chunk": "b"})

        shut(False)
        publisher.flush()

        assert [one.data["chunk"] for one in stage.events(process)[1:]] == ["a", "b"]


class TestReading:
    def test_many_processes_are_followed_from_a_number_each(self, stage: Stage, publisher: Publisher) -> None:
        first, second = stage.create(), stage.create()
        for _ in range(3):
            for process in (first, second):
                publisher.publish(stage.address(process), *DONE)

        with stage.database.reading() as connection:
            heads = process_events.heads(connection, process_ids=[first, second, new_id()])
            found = process_events.after_many(connection, since={first: 2, second: 3})
            few = process_events.after_many(connection, since={first: 0, second: 0}, limit=5)

        assert heads == {first: 4, second: 4}
        assert [(one.process_id, one.sequence) for one in found] == [(first, 3), (first, 4), (second, 4)]
        assert len(few) == 5
        for process in (first, second):
            numbers = [one.sequence for one in few if one.process_id == process]
            assert numbers == list(range(1, len(numbers) + 1))

    @pytest.mark.parametrize(
        ("said", "kept"), [(2, 2), (0, 0), (-5, 0), (10**30, 4)], ids=["2", "0", "negative", "enormous"]
    )
    def test_a_reader_confirms_what_there_is_and_never_less_than_before(
        self, stage: Stage, process: UUID, publish: Callable[..., None], said: int, kept: int
    ) -> None:
        for _ in range(3):
            publish(*DONE)

        def acknowledge(sequence: int) -> int | None:
            return stage.do(
                lambda c: process_events.acknowledge(
                    c, tenant_id=stage.tenant.tenant_id, process_id=process, reader="ann", sequence=sequence
                )
            )

        assert acknowledge(said) == kept
        assert acknowledge(1) == max(kept, 1)

    def test_what_a_reader_has_not_confirmed_is_listed_page_by_page(self, stage: Stage, publisher: Publisher) -> None:
        first, second = stage.create(), stage.create()
        publisher.publish(stage.address(first), *DONE)
        about = {"tenant_id": stage.tenant.tenant_id, "reader": "ann"}
        stage.do(lambda c: process_events.acknowledge(c, **about, process_id=first, sequence=1))

        page = stage.do(lambda c: process_events.undelivered(c, **about, limit=1))
        rest = stage.do(lambda c: process_events.undelivered(c, **about, after=(page[0].process_id, page[0].sequence)))
        stage.do(lambda c: process_events.acknowledge(c, **about, process_id=second, sequence=1))
        one = stage.do(lambda c: process_events.undelivered(c, **about, process_id=second))

        assert [(row.process_id, row.sequence) for row in page + rest] == [(first, 2), (second, 1)]
        assert one == []

    def test_nobody_confirms_or_reads_anothers(self, stage: Stage, process: UUID) -> None:
        stranger = plant_tenant(stage.database, f"reader beside {stage.tenant.name}").tenant_id
        about = {"tenant_id": stranger, "process_id": process}

        assert stage.do(lambda c: process_events.acknowledge(c, **about, reader="x", sequence=1)) is None
        assert stage.do(lambda c: process_events.after(c, **about, sequence=0)) == []
        assert stage.do(lambda c: process_events.undelivered(c, **about, reader="x")) == []

    def test_any_number_may_be_asked_for(self, stage: Stage, process: UUID) -> None:
        about = {"tenant_id": stage.tenant.tenant_id, "process_id": process}

        counts = [
            len(stage.do(lambda c, s=sequence: process_events.after(c, **about, sequence=s)))
            for sequence in (-(10**30), -1, 0, 1, 2**63, 10**30)
        ]

        assert counts == [1, 1, 1, 0, 0, 0]


def test_created_follows_the_numbers(stage: Stage, process: UUID, publish: Callable[..., None]) -> None:
    for number in range(50):
        publish("section_chunk", {"section_index": 0, "chunk": "x"})
        if number % 10 == 0:
            publish(*DONE)

    publish(*DONE)
    assert all(one.created_at <= two.created_at for one, two in pairwise(stage.events(process)))
