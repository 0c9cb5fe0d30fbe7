"""P11, along every path: each statement of each is refused, or cut off before or after its effect, and nothing is lost.

`test_fault_injection.py` does the same to a run that changes rows and to a dispatch. Statements are enumerated by
running once and listening at the driver; a path on which no statement is heard fails.
"""

import io
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from config.queues import Lane
from config.settings import Settings
from config.timetable import Entry
from db.repositories import schedules
from db.session import Database
from sandbox.google.control import GoogleControl
from sandbox.google.specs import Fault, SeedSpec
from tenantsync.schedule import occurrences, service
from tests.support.fleet import Fleet, TenantHandle, events_equal_truth
from tests.support.logs import captured_logs
from tests.support.mirror import (
    MirrorSide,
    assert_mirror_equals_postgres,
    outbox,
    plant_calendar,
    plant_events,
    plant_tenant,
)
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.statements import Spoil
from tests.support.tapped import Tapped

pytest_plugins = ["tests.support.supabase_fixtures", "tests.support.tapped_fixtures"]

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

ANN = "ann@example.test"
LOST = "update sync.units set lease_until = now() - interval '1 second' where lease_until is not null"
SENDERS_LOST = """
update mirror.turns set lease_until = now() - interval '1 second', ready_at = now() where lease_until is not null
"""
OCCURRENCES_LOST = "update worker.tasks set lease_until = now() - interval '1 second' where lease_until is not null"
WAYS = pytest.mark.parametrize("how", list(Spoil))
BOOKS = """
select u.failed_runs = count(t.id) filter (where t.status = 'failed') as failed,
       u.changed_runs = count(t.id) filter (where t.status = 'completed') as completed,
       u.state = 'idle' and u.lane = 'sync' and u.lease_until is null as at_rest,
       (select sum(failures) from sync.calendars)::int as failures
  from sync.units u left join worker.tasks t on t.subject_id = u.unit_id and t.kind = 'sync.unit' group by u.unit_id
"""
ANEW = """
update sync.units set lane = 'bulk', state = 'idle', lease_until = null;
update sync.calendars set state = 'resync', cursor = null, event_count = 0 where state = 'synced';
truncate sync.events, sync.tombstones, sync.staged_events, mirror.outbox;
delete from sync.cooldowns;
"""
TICKS = """
select count(distinct due_at) as ticks, count(*) as rows, count(*) filter (where status = 'completed') as completed
  from worker.tasks where due_at is not null
"""

Make = Callable[[], Tapped]


@pytest.fixture(autouse=True)
def log(settings: Settings) -> Iterator[io.StringIO]:
    """The product's own log: every fault writes a traceback, and structlog's default takes a second to paint one."""
    with captured_logs(settings) as lines:
        yield lines


@pytest.fixture
def acme(fleet: Fleet, google: GoogleControl) -> TenantHandle:
    """A tenant with one synced calendar."""
    tenant, account = fleet.tenant(), google.create_account(ANN)
    google.seed(ANN, ANN, SeedSpec(events=4, series_every=0))
    fleet.google(tenant, google, account=account)
    fleet.run()
    fleet.sync()
    return tenant


def healed(fleet: Fleet) -> None:
    """Leases end, cooldowns pass, and everything is due."""
    fleet.execute(LOST)
    fleet.execute("delete from sync.cooldowns")
    fleet.sync()
    fleet.sync()


@WAYS
@pytest.mark.parametrize("fails", [False, True], ids=["quiet", "failing"])
def test_p11_a_fault_at_any_statement_of_a_run_without_rows_loses_and_doubles_nothing(
    fleet: Fleet, google: GoogleControl, tapped: Make, acme: TenantHandle, how: Spoil, fails: bool
) -> None:
    worker = tapped()
    outcome = "failed_runs" if fails else "quiet_runs"

    def strike(at: int | None) -> tuple[int, int]:
        """(statements, runs that were counted)."""
        fleet.due()
        (unit,) = fleet.claim(Lane.SYNC)
        before = fleet.unit(acme)[outcome]
        if fails:
            google.add_fault(Fault(kind="status", status=500, times=None))
        statements = len(worker.run(unit, at=at, how=how))
        google.clear_faults()
        counted = fleet.unit(acme)[outcome] - before
        healed(fleet)
        return statements, counted

    count, whole = strike(None)
    counted = [strike(place)[1] for place in range(1, count + 1)]

    assert (count >= 3, whole) == (True, 1)
    assert set(counted) <= {0, 1}
    assert fleet.one(BOOKS) == {"failed": True, "completed": True, "at_rest": True, "failures": 0}
    events_equal_truth(fleet, acme, google, ANN, ANN)


LARGE = 2_600
"""Events; a few more than a run keeps in memory, so they go through the staging table."""


@pytest.mark.parametrize("how", [Spoil.REFUSED, Spoil.CUT_AFTER])  # at the server, cut before is refused
def test_p11_a_fault_at_any_statement_of_a_staged_listing_loses_and_doubles_nothing(
    fleet: Fleet, google: GoogleControl, tapped: Make, how: Spoil
) -> None:
    worker, tenant = tapped(), fleet.tenant()
    account = google.create_account(ANN)
    google.configure(page_size=LARGE // 2)
    google.seed(ANN, ANN, SeedSpec(events=LARGE, series_every=0, attendees=0))
    fleet.google(tenant, google, account=account)

    def strike(at: int | None) -> list[str]:
        fleet.execute(ANEW)
        fleet.due()
        (unit,) = fleet.claim(Lane.BULK)
        statements = worker.run(unit, lane=Lane.BULK, at=at, how=how)
        shown = fleet.one("select count(*) as n from sync.events")["n"]
        assert shown in (0, LARGE)
        assert (fleet.calendar(tenant)["cursor"] is None) == (shown == 0)
        assert len(fleet.outbox(tenant)) == shown
        return statements

    statements = strike(None)
    for place, statement in enumerate(statements, 1):
        if how == Spoil.REFUSED or statement == "COMMIT" or statement.startswith("copy"):
            strike(place)  # inside a transaction, to lose the answer is to be refused
    healed(fleet)

    assert len(statements) >= 20
    assert statements.count("COMMIT") >= 3
    assert fleet.one("select count(*) as n from sync.staged_events")["n"] == 0
    events_equal_truth(fleet, tenant, google, ANN, ANN)


@WAYS
def test_p11_a_fault_at_any_statement_of_a_drain_loses_nothing(
    fleet: Fleet, tapped: Make, mirror: MirrorSide, how: Spoil
) -> None:
    worker, tenant = tapped(), plant_tenant(fleet.database, "acme")
    calendar = plant_calendar(fleet.database, tenant)

    def strike(at: int | None) -> int:
        plant_events(fleet.database, tenant, calendar, 2)
        fleet.execute("update sync.calendars set name = name || 'x'")
        with worker.spoiled(at=at, how=how):
            mirror.drain(worker.fleet.database)
        fleet.execute(SENDERS_LOST)
        mirror.drain(fleet.database)
        assert outbox(fleet.database) == {}
        return len(worker.tap.seen)

    count = strike(None)
    for place in range(1, count + 1):
        strike(place)

    assert count >= 8
    assert_mirror_equals_postgres(fleet.database, mirror)


DAY = timedelta(days=1)
TIMETABLE = {"job": Entry("test.job", every=DAY, policy="all")}
OWED = "update worker.schedules set last_tick = last_tick - :day, since = since - :day"


@WAYS
def test_p11_a_fault_at_any_statement_of_an_occurrence_does_each_tick_once(
    fleet: Fleet, tapped: Make, how: Spoil
) -> None:
    worker, sent = tapped(), []

    def tick(database: Database) -> None:
        service.tick(database, lambda _, occurrence: sent.append(occurrence), TIMETABLE)

    def work(database: Database) -> None:
        for occurrence in sent:
            occurrences.run(database, occurrence, lambda _: None, worker="w", lease=timedelta(seconds=60))

    def strike(step: Callable[[Database], None], at: int | None) -> int:
        sent.clear()
        fleet.execute("delete from worker.task_keys; delete from worker.tasks; delete from worker.schedules")
        tick(fleet.database)
        fleet.execute(OWED, day=2 * DAY)
        if step is work:
            tick(fleet.database)
        with worker.spoiled(at=at, how=how):
            step(worker.fleet.database)
        statements = len(worker.tap.seen)
        for _ in range(4):
            fleet.execute(OCCURRENCES_LOST)
            tick(fleet.database)
            work(fleet.database)
        (standing,) = _standings(fleet.database)
        assert (standing.done, standing.accounted, standing.open) == (2, 2, 0)
        assert fleet.one(TICKS) == {"ticks": 2, "rows": 2, "completed": 2}
        return statements

    for step, least in ((tick, 8), (work, 4)):
        count = strike(step, None)
        for place in range(1, count + 1):
            strike(step, place)
        assert count >= least


def _standings(database: Database) -> list[schedules.EntryReading]:
    with database.statement() as connection:
        return schedules.standings(connection)
