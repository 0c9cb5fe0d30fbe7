"""P11: a run fails at every one of its statements, in three ways, and never leaves half of its work behind.

The statements are found by running once and listening at the driver, so that a statement added tomorrow is
failed tomorrow. P22 and P73, at the end, watch from outside while a run does its work.
"""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from config.queues import Lane
from config.settings import Settings
from db.repositories import ledger
from db.repositories.units import ClaimedUnit
from sandbox.google.control import GoogleControl
from sandbox.google.specs import Edit, Fault, SeedSpec
from tenantsync.dispatching import service as dispatching
from tests.support.crowd import Crowd
from tests.support.fleet import Fleet, TenantHandle, events_equal_truth
from tests.support.holding_proxy import HoldingProxy
from tests.support.logs import captured_logs
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.statements import Spoil
from tests.support.stored import stored
from tests.support.tapped import Tapped
from tests.support.waiting import wait_until
from tests.support.watching import watching

pytest_plugins = ["tests.support.crowd_fixtures", "tests.support.tapped_fixtures"]

SIZE = 6
WORKERS = 6
LOST = "update sync.units set lease_until = now() - interval '1 second' where lease_until is not null"
ANN = "ann@example.test"


@pytest.fixture(autouse=True)
def log(settings: Settings) -> Iterator[io.StringIO]:
    """The product's own log: every fault writes a traceback, and structlog's default takes a second to paint one."""
    with captured_logs(settings) as lines:
        yield lines


@pytest.fixture
def changed(fleet: Fleet, google: GoogleControl) -> Callable[[], TenantHandle]:
    """Makes tenants alike: a synced calendar, and at Google two changes, two deletions and two new events."""

    def make() -> TenantHandle:
        tenant = fleet.tenant()
        email = f"{tenant.name}@example.test"
        events = [
            {
                "id": f"event{number:03d}",
                "summary": f"Event {number}",
                "start": {"dateTime": f"2026-12-{number + 1:02d}T09:00:00Z"},
                "end": {"dateTime": f"2026-12-{number + 1:02d}T10:00:00Z"},
            }
            for number in range(SIZE + 2)
        ]
        account = google.create_account(email)
        google.seed_events(email, email, events[:SIZE])
        fleet.google(tenant, google, account=account)
        fleet.run()
        google.apply(
            [Edit(kind="patch", account=email, calendar=email, event=f"event{n:03d}", body={"summary": "Changed"})
             for n in (0, 1)]
            + [Edit(kind="delete", account=email, calendar=email, event=f"event{n:03d}") for n in (2, 3)]
            + [Edit(kind="insert", account=email, calendar=email, body=event) for event in events[SIZE:]]
        )  # fmt: skip
        google.expire_access_tokens(email)
        return tenant

    return make


@pytest.fixture
def claim(fleet: Fleet) -> Callable[[TenantHandle], ClaimedUnit]:
    """Takes a tenant's unit, and no other, out of the sync lane."""

    def take(tenant: TenantHandle) -> ClaimedUnit:
        fleet.due(tenant)
        (unit,) = fleet.claim(Lane.SYNC)
        return unit

    return take


def test_p11_a_run_is_made_of_many_statements(
    tapped: Callable[[], Tapped],
    changed: Callable[[], TenantHandle],
    claim: Callable[[TenantHandle], ClaimedUnit],
) -> None:
    """Guards the tests below: a tap that hears nothing would let them pass."""
    unit = claim(changed())

    statements = tapped().run(unit)

    heard = " | ".join(statements)
    assert len(statements) >= 15
    assert all(
        word in heard
        for word in ("copy sync.staged_events", "insert into sync.events", "delete from sync.events",
                     "mirror.outbox", "update sync.calendars", "set access_token", "COMMIT")
    )  # fmt: skip


@pytest.mark.parametrize("how", list(Spoil))
def test_p11_a_fault_at_any_statement_leaves_all_of_a_run_or_nothing_and_heals(
    fleet: Fleet,
    tapped: Callable[[], Tapped],
    changed: Callable[[], TenantHandle],
    claim: Callable[[TenantHandle], ClaimedUnit],
    how: Spoil,
) -> None:
    model = changed()
    count = len(tapped().run(claim(model)))
    whole = stored(fleet, model)
    tenants = [changed() for _ in range(count)]
    before = [stored(fleet, tenant) for tenant in tenants]
    units = [claim(tenant) for tenant in tenants]
    workers = [tapped() for _ in range(WORKERS)]

    def work(number: int) -> None:
        for place in range(number, count, WORKERS):
            workers[number].run(units[place], at=place + 1, how=how)

    with ThreadPoolExecutor(WORKERS) as threads:
        list(threads.map(work, range(WORKERS)))

    after = [stored(fleet, tenant) for tenant in tenants]
    assert count > 0
    halves = [place for place in range(count) if not after[place].all_or_nothing(before=before[place], whole=whole)]
    assert halves == []
    fleet.execute(LOST)
    fleet.sync()
    fleet.sync()
    healed = [stored(fleet, tenant) for tenant in tenants]
    assert [place for place in range(count) if not healed[place].same_but_for_the_cursor(whole)] == []
    assert fleet.rows("select 1 from sync.staged_events") == []


@pytest.mark.parametrize("how", list(Spoil))
def test_p11_a_fault_at_any_statement_of_a_dispatch_loses_and_doubles_no_unit(
    fleet: Fleet, tapped: Callable[[], Tapped], changed: Callable[[], TenantHandle], how: Spoil
) -> None:
    tenant, dispatcher = changed(), tapped()
    fleet.sync()

    def dispatch(at: int | None) -> tuple[int, int, int]:
        """(statements, runs, runs afterwards); the message itself is always lost."""
        runs = fleet.unit(tenant)["quiet_runs"]
        fleet.due()
        with fleet.database.transaction() as connection:
            reading = {"slots": 4, "cpu": 0, "memory": 0, "active": 0, "now": datetime.now(UTC)}
            ledger.heartbeat(connection, worker="worker-1", queues=["sync"], reading=reading)
        with dispatcher.spoiled(at=at, how=how):
            dispatching.dispatch(dispatcher.fleet.database, lambda *_: None, batch_size=200, budget=0.0)
        fleet.execute(LOST)
        fleet.execute("update worker.tasks set status = 'superseded' where status = 'pending'")
        fleet.sync()
        return len(dispatcher.tap.seen), fleet.unit(tenant)["quiet_runs"] - runs, fleet.run()

    count, *_ = dispatch(None)
    outcomes = [dispatch(place)[1:] for place in range(1, count + 1)]

    assert count >= 5
    assert outcomes == [(1, 0)] * count
    assert fleet.unit(tenant)["lane"] == "sync"


@pytest.mark.parametrize(
    ("statement", "how"),
    [
        ("set local", Spoil.CUT_BEFORE),
        ("update sync.units set lease_until", Spoil.CUT_BEFORE),
        ("savepoint", Spoil.CUT_BEFORE),
        ("copy sync.staged_events", Spoil.CUT_BEFORE),
        ("insert into sync.events", Spoil.CUT_BEFORE),
        ("commit", Spoil.CUT_BEFORE),
        ("commit", Spoil.CUT_AFTER),
    ],
)
def test_p11_a_connection_lost_while_a_batch_is_written_costs_no_unit_its_run(
    fleet: Fleet, google: GoogleControl, tapped: Callable[[], Tapped], crowd: Crowd, statement: str, how: Spoil
) -> None:
    worker = tapped()
    fleet.due()
    batch = fleet.claim(Lane.SYNC)
    worker.tap.arm(at=5, how=how, matching=statement)

    worker.fleet.run_batch(Lane.SYNC, batch)

    assert len(worker.tap.seen) > 5
    assert worker.fleet.runner._active == {}
    for tenant, account in crowd:
        events_equal_truth(fleet, tenant, google, account.email, account.email)


LARGE, PAGE = 3_000, 300
"""More events than a run keeps in memory: these listings go through the staging table, in two portions."""
COUNTED = "select count(*), count(*) filter (where title = 'Changed') from sync.events"
WRITTEN = """
select (select count(*) from sync.events) as events,
       (select count(*) from sync.events where title = 'Changed') as changed,
       (select count(*) from mirror.outbox where entity = 'events') as waiting
"""
NOTHING = {"events": LARGE, "changed": 0, "waiting": 0}
EVERYTHING = {"events": LARGE - 50, "changed": 200, "waiting": 250}


@pytest.fixture
def large(fleet: Fleet, google: GoogleControl) -> TenantHandle:
    """A tenant with a large calendar, not yet listed."""
    tenant, account = fleet.tenant(), google.create_account(ANN)
    google.configure(page_size=PAGE)
    google.seed(ANN, ANN, SeedSpec(events=LARGE, series_every=0, attendees=0))
    fleet.google(tenant, google, account=account)
    return tenant


@pytest.fixture
def large_and_stale(fleet: Fleet, google: GoogleControl, large: TenantHandle) -> TenantHandle:
    """The same, listed, then changed at Google; its cursor is void, and its next run is a resync in the bulk lane."""
    fleet.run()
    keys = sorted(fleet.events(large))
    google.apply(
        [Edit(kind="patch", account=ANN, calendar=ANN, event=key, body={"summary": "Changed"}) for key in keys[:200]]
        + [Edit(kind="delete", account=ANN, calendar=ANN, event=key) for key in keys[-50:]]
    )
    google.expire_sync_tokens()
    fleet.due()
    fleet.run_lane(Lane.SYNC)
    fleet.clear_outbox()
    return large


def test_p22_a_reader_never_sees_a_calendar_half_resynced(
    fleet: Fleet, google: GoogleControl, settings: Settings, large_and_stale: TenantHandle
) -> None:
    with watching(settings.database_url, COUNTED) as seen:
        fleet.run()

    assert set(seen) == {(LARGE, 0), (LARGE - 50, 200)}
    assert len(seen) > 10
    events_equal_truth(fleet, large_and_stale, google, ANN, ANN)


def test_p22_a_reader_never_sees_a_calendar_half_listed(fleet: Fleet, settings: Settings, large: TenantHandle) -> None:
    with watching(settings.database_url, COUNTED) as seen:
        fleet.run()

    assert set(seen) == {(0, 0), (LARGE, 0)}


@pytest.mark.parametrize(
    ("statement", "nth", "how"),
    [
        ("copy sync.staged_events", 1, Spoil.REFUSED),
        ("copy sync.staged_events", 2, Spoil.CUT_BEFORE),
        ("COMMIT", 2, Spoil.CUT_AFTER),  # the first is the batch's, this is the first portion's
        ("COMMIT", 3, Spoil.CUT_BEFORE),
        ("delete from sync.events", 1, Spoil.CUT_BEFORE),
        ("COMMIT", 4, Spoil.CUT_AFTER),
    ],
)
def test_p11_a_fault_in_a_staged_resync_leaves_all_of_it_or_nothing_and_heals(
    fleet: Fleet,
    google: GoogleControl,
    tapped: Callable[[], Tapped],
    large_and_stale: TenantHandle,
    statement: str,
    nth: int,
    how: Spoil,
) -> None:
    cursor = fleet.calendar(large_and_stale)["cursor"]
    (unit,) = fleet.claim(Lane.BULK)

    struck = tapped().run(unit, lane=Lane.BULK, matching=statement, at=nth, how=how)

    written, kept = fleet.one(WRITTEN), fleet.calendar(large_and_stale)["cursor"] in (None, cursor)
    assert len(struck) >= nth
    assert (written, kept) in [(NOTHING, True), (EVERYTHING, False)]
    fleet.execute(LOST)
    fleet.sync()
    fleet.sync()
    events_equal_truth(fleet, large_and_stale, google, ANN, ANN)
    assert fleet.one(WRITTEN) == EVERYTHING
    assert fleet.rows("select 1 from sync.staged_events") == []


def test_p73_a_long_listing_leaves_memory_page_by_page_and_shows_nothing_until_its_end(
    make_fleet: Callable[..., Fleet], google: GoogleControl, large: TenantHandle
) -> None:
    with HoldingProxy(google.base_url) as proxy, ThreadPoolExecutor(1) as thread:
        slow = make_fleet(google_api_endpoint=f"{proxy.base_url}/calendar/v3/")
        proxy.hold(skip=9)
        running = thread.submit(slow.run)
        proxy.wait_until_held()
        wait_until(lambda: slow.rows("select 1 from sync.staged_events"), about="staging")
        staged, shown = slow.rows("select 1 from sync.staged_events"), slow.events(large)
        proxy.release()
        running.result()

    assert (len(staged), shown) == (9 * PAGE, {})
    events_equal_truth(slow, large, google, ANN, ANN)


def test_p73_a_listing_that_breaks_off_late_starts_over_and_leaves_nothing_behind(
    fleet: Fleet, google: GoogleControl, large: TenantHandle
) -> None:
    google.add_fault(Fault(kind="reset", page="later", skip=8))
    fleet.run_lane(Lane.BULK)
    shown, state = fleet.events(large), fleet.calendar(large)["state"]

    fleet.sync()

    assert (shown, state) == ({}, "new")
    events_equal_truth(fleet, large, google, ANN, ANN)
    assert fleet.rows("select 1 from sync.staged_events") == []
