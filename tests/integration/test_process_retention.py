"""How long processes and their events are kept, here and at Supabase."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from config.settings import Settings
from db import partitions
from db.ids import first_id_at
from tenantsync.processes.publishing import Event, publish_in
from tenantsync.retention import service
from tests.support.mirror import MirrorSide
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.stage import Stage

pytest_plugins = ["tests.support.supabase_fixtures", "tests.support.stage_fixtures"]

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

AGED = "update process.events set created_at = created_at - cast(:by as interval) where process_id = :process"
CLOSED = "update process.processes set completed_at = now() - cast(:by as interval) where process_id = :process"
PLACE = "select tableoid::regclass::text from process.events where process_id = :process"
THERE = "select to_regclass(:table)"


@pytest.fixture
def cleanup(stage: Stage, mirror: MirrorSide, settings: Settings) -> Callable[[], dict[str, int]]:
    """Cleans both sides, once everything has arrived; what was done."""

    def clean() -> dict[str, int]:
        mirror.drain(stage.database)
        done = service.cleanup(stage.database, mirror.supabase, settings)
        return {name: count for name, count in done.items() if count and ("process" in name or name == "archived")}

    return clean


@pytest.fixture
def beating(stage: Stage) -> UUID:
    """A process that runs, with three events: it was created, it began, it lives."""
    held = stage.begin()
    event = Event("heartbeat", {"timestamp": datetime.now(UTC)}, immediate=True)
    stage.do(lambda c: publish_in(c, process_id=held.process_id, tenant_id=held.tenant_id, events=[event]))
    return held.process_id


@pytest.fixture
def there(mirror: MirrorSide) -> Callable[[UUID], list[str]]:
    """The types of a process' events at Supabase."""
    query = "select event_type from public.process_events where process_id = %s order by sequence"
    return lambda process: [row["event_type"] for row in mirror.rows(query, (str(process),))]


def test_after_a_month_signs_of_life_are_archived_and_supabase_lets_them_go(
    stage: Stage,
    mirror: MirrorSide,
    beating: UUID,
    cleanup: Callable[[], dict[str, int]],
    there: Callable[[UUID], list[str]],
) -> None:
    mirror.drain(stage.database)
    for side in (stage.execute, lambda q, **about: mirror.execute(_at_supabase(q), about)):
        side(AGED, by="31 days", process=str(beating))

    assert cleanup() == {"archived": 1, "mirror_processes": 1}

    events = stage.events(beating)
    assert [(event.event_type, event.archived) for event in events] == [
        ("process_created", False),
        ("state_updated", False),
        ("heartbeat", True),
    ]
    assert there(beating) == ["process_created", "state_updated"]
    assert cleanup() == {}


def test_after_three_months_events_are_gone_and_the_process_that_goes_on_keeps_counting(
    stage: Stage,
    mirror: MirrorSide,
    beating: UUID,
    cleanup: Callable[[], dict[str, int]],
    there: Callable[[UUID], list[str]],
) -> None:
    mirror.drain(stage.database)
    for side in (stage.execute, lambda q, **about: mirror.execute(_at_supabase(q), about)):
        side(AGED, by="91 days", process=str(beating))

    done = cleanup()
    stage.wish("pause", beating)

    assert (done["process_events"], done["mirror_processes"]) == (3, 3)
    assert [event.sequence for event in stage.events(beating)] == [4]
    mirror.drain(stage.database)
    assert there(beating) == ["state_updated"]


def test_closed_processes_are_gone_after_three_months_with_all_that_belongs_to_them(
    stage: Stage, mirror: MirrorSide, cleanup: Callable[[], dict[str, int]]
) -> None:
    old, young, asked = stage.create(), stage.create(), stage.ask()
    for process in (old, young, asked.process_id):
        stage.wish("cancel", process)
    mirror.drain(stage.database)
    for process, by in ((old, "91 days"), (asked.process_id, "91 days"), (young, "89 days")):
        stage.execute(CLOSED, process=process, by=by)
        stage.execute(AGED, process=process, by=by)

    done = cleanup()

    left = stage.column("select process_id from process.processes")
    assert (done["processes"], done["process_events"]) == (2, 7)
    assert left == [young]


def test_a_process_whose_parent_is_gone_says_so_at_supabase_too(
    stage: Stage, mirror: MirrorSide, cleanup: Callable[[], dict[str, int]]
) -> None:
    parent = stage.create()
    child = stage.create(parent_id=parent)
    stage.wish("cancel", parent)
    child_now = stage.create(parent_id=parent)
    mirror.drain(stage.database)
    stage.execute(CLOSED, process=parent, by="91 days")

    cleanup()

    mirror.drain(stage.database)
    found = {row["id"]: row["parent_id"] for row in mirror.rows("select id, parent_id from public.processes")}
    assert (found[str(child)], found[str(child_now)]) == (None, None)


def test_what_has_not_arrived_at_supabase_stays(stage: Stage, mirror: MirrorSide, settings: Settings) -> None:
    process = stage.create()
    stage.wish("cancel", process)
    stage.execute(CLOSED, process=process, by="91 days")
    stage.execute(AGED, process=process, by="91 days")

    service.cleanup(stage.database, mirror.supabase, settings)

    assert stage.types(process) == ["process_created", "process_cancelled"]


def test_a_month_of_events_stays_as_long_as_one_of_its_processes_is_open(
    stage: Stage, mirror: MirrorSide, settings: Settings
) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=150)
    with stage.database.transaction() as connection:
        partitions.ensure_ahead(connection, now=long_ago, months=0)
    waiting = UUID(int=first_id_at(long_ago).int + 1)
    stage.create(process_id=waiting)
    month = f"process.events_{long_ago:%Y_%m}"

    mirror.drain(stage.database)
    service.cleanup(stage.database, mirror.supabase, settings)
    while_open = stage.column(PLACE, process=waiting)
    stage.wish("cancel", waiting)
    stage.execute(CLOSED, process=waiting, by="91 days")
    mirror.drain(stage.database)
    service.cleanup(stage.database, mirror.supabase, settings)

    assert while_open == [month]
    assert stage.column(THERE, table=month) == [None]


def _at_supabase(query: str) -> str:
    named = query.replace("process.events", "public.process_events")
    return named.replace(":by", "%(by)s").replace(":process", "%(process)s")
