"""Who sends a tenant's rows, and when: no wake-up is lost, no dead sender missed, no tenant starved."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from db.repositories import mirroring
from db.repositories.mirroring import Key, LeasedTenant
from db.session import Database, in_transaction
from sandbox.servers.process import wait_until
from tests.support.fleet import TenantHandle
from tests.support.mirror import (
    MirrorSide,
    assert_mirror_equals_postgres,
    change,
    later,
    outbox,
    plant_calendar,
    plant_events,
    plant_tenant,
)
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.supabase_proxy import Trouble

pytest_plugins = ["tests.support.supabase_fixtures"]

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

LEASE = timedelta(seconds=90)
BLOCKED = text("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'")
BACKLOG = 20_000


@pytest.fixture
def acme(database: Database) -> TenantHandle:
    return plant_tenant(database, "acme")


@pytest.fixture
def calendar(database: Database, acme: TenantHandle) -> UUID:
    """A calendar of acme's, which waits for Supabase together with its account."""
    return plant_calendar(database, acme)


@pytest.fixture
def lease(database: Database) -> Callable[..., list[LeasedTenant]]:
    def take(length: timedelta = LEASE, limit: int = 100) -> list[LeasedTenant]:
        with database.statement() as connection:
            return mirroring.lease_tenants(connection, limit=limit, lease=length)

    return take


@pytest.fixture
def release(database: Database) -> Callable[..., None]:
    def give_back(held: list[LeasedTenant], pause: timedelta = timedelta(0)) -> None:
        with database.statement() as connection:
            mirroring.release(connection, held, pause=pause)

    return give_back


@pytest.fixture
def send(database: Database) -> Callable[..., list[Key]]:
    """What a sender does between lease and release, when all goes well. Returns the keys."""

    def send_all(tenant: TenantHandle) -> list[Key]:
        with database.statement() as connection:
            keys = mirroring.take_keys(connection, tenants=[tenant.tenant_id], limit=1000)
            for entity in ("accounts", "calendars", "events"):
                rows = mirroring.read_rows(connection, entity=entity, keys=[k for k in keys if k.entity == entity])
                mirroring.acknowledge(connection, [acknowledged(entity, row) for row in rows])
        return keys

    return send_all


def acknowledged(entity: str, row: dict[str, object]) -> dict[str, object]:
    return {"tenant_id": row["tenant_id"], "entity": entity, "row_id": row["id"], "version": row["version"]}


def test_a_tenant_is_leased_to_one_sender_alone(calendar: UUID, lease: Callable[..., list[LeasedTenant]]) -> None:
    first, second = lease(), lease()

    assert (len(first), len(second)) == (1, 0)


def test_a_tenant_with_nothing_to_send_has_no_turn(
    acme: TenantHandle, lease: Callable[..., list[LeasedTenant]]
) -> None:
    assert lease() == []


def test_a_tenant_whose_rows_were_all_sent_rests_until_the_next_change(
    database: Database,
    acme: TenantHandle,
    calendar: UUID,
    lease: Callable[..., list[LeasedTenant]],
    release: Callable[..., None],
    send: Callable[..., list[Key]],
) -> None:
    held = lease()
    send(acme)
    release(held)

    resting = lease()
    in_transaction(database, change(calendar))
    woken = lease()

    assert resting == []
    assert [one.tenant_id for one in woken] == [acme.tenant_id]


def test_a_tenant_that_is_given_back_with_rows_left_has_its_turn_at_once(
    calendar: UUID, lease: Callable[..., list[LeasedTenant]], release: Callable[..., None]
) -> None:
    release(lease())

    assert len(lease()) == 1


def test_a_change_committed_between_sending_and_giving_back_is_not_lost(
    database: Database,
    acme: TenantHandle,
    calendar: UUID,
    lease: Callable[..., list[LeasedTenant]],
    release: Callable[..., None],
    send: Callable[..., list[Key]],
) -> None:
    held = lease()
    send(acme)
    in_transaction(database, change(calendar))
    release(held)

    again = lease()

    assert len(again) == 1
    assert [key.entity for key in send(acme)] == ["calendars"]


def test_a_change_committed_between_reading_and_acknowledging_stays_in_the_outbox(
    database: Database, acme: TenantHandle, calendar: UUID, lease: Callable[..., list[LeasedTenant]]
) -> None:
    lease()
    key = Key(acme.tenant_id, "calendars", calendar)
    with database.statement() as connection:
        (read,) = mirroring.read_rows(connection, entity="calendars", keys=[key])
    in_transaction(database, change(calendar))

    with database.statement() as connection:
        mirroring.acknowledge(connection, [acknowledged("calendars", read)])

    assert outbox(database)[calendar] > int(read["version"])


def test_a_change_that_commits_while_the_tenant_is_given_back_is_not_lost(
    database: Database,
    acme: TenantHandle,
    calendar: UUID,
    lease: Callable[..., list[LeasedTenant]],
    release: Callable[..., None],
    send: Callable[..., list[Key]],
) -> None:
    held = lease()
    send(acme)

    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as changing:
            change(calendar)(changing)
            giving_back = pool.submit(release, held)
            wait_until(lambda: blocked(database) == 1, what="the release waiting for the change")
        giving_back.result(10)

    assert len(lease()) == 1


def blocked(database: Database) -> int:
    with database.statement() as connection:
        return int(connection.execute(BLOCKED).scalar_one())


def test_a_change_whose_transaction_began_before_the_lease_is_not_lost(
    database: Database,
    acme: TenantHandle,
    calendar: UUID,
    lease: Callable[..., list[LeasedTenant]],
    release: Callable[..., None],
    send: Callable[..., list[Key]],
) -> None:
    with database.transaction() as changing:
        changing.execute(text("select now()"))  # this is what its wake-up will say
        held = lease()
        send(acme)
        release(held)
        change(calendar)(changing)

    assert len(lease()) == 1


def test_a_sender_passes_over_a_tenant_that_is_being_changed_and_finds_it_afterwards(
    database: Database, acme: TenantHandle, calendar: UUID, lease: Callable[..., list[LeasedTenant]]
) -> None:
    with database.transaction() as changing:
        change(calendar)(changing)
        meanwhile = lease()

    assert meanwhile == []
    assert len(lease()) == 1


def test_a_sender_that_died_is_replaced_when_its_lease_ends_and_not_before(
    database: Database, calendar: UUID, lease: Callable[..., list[LeasedTenant]]
) -> None:
    lease()

    later(database, LEASE - timedelta(seconds=30))
    before = lease()
    later(database, timedelta(seconds=30))
    after = lease()

    assert (len(before), len(after)) == (0, 1)


def test_a_sender_that_comes_back_from_the_dead_does_not_end_its_successors_lease(
    calendar: UUID, lease: Callable[..., list[LeasedTenant]], release: Callable[..., None]
) -> None:
    dead = lease(timedelta(0))
    wait_until(lambda: len(lease()) == 1, what="the successor")

    release(dead)

    assert lease() == []


def test_a_sender_back_from_the_dead_leaves_its_successor_alone_also_after_a_late_wake_up(
    database: Database,
    calendar: UUID,
    lease: Callable[..., list[LeasedTenant]],
    release: Callable[..., None],
) -> None:
    with database.transaction() as changing:
        changing.execute(text("select now()"))  # this is what its wake-up will say
        dead = lease(timedelta(0))
        wait_until(lambda: len(lease()) == 1, what="the successor")
        change(calendar)(changing)

    release(dead)

    assert lease() == []


def test_a_late_acknowledgement_of_an_old_version_forgets_nothing_newer(
    database: Database, acme: TenantHandle, calendar: UUID
) -> None:
    key = Key(acme.tenant_id, "calendars", calendar)
    with database.statement() as connection:
        (old,) = mirroring.read_rows(connection, entity="calendars", keys=[key])
    in_transaction(database, change(calendar))
    with database.statement() as connection:
        forgotten = mirroring.acknowledge(connection, [acknowledged("calendars", old)])

    assert forgotten == 0
    assert calendar in outbox(database)


def test_after_a_pause_and_not_before_the_tenant_has_its_turn_again(
    database: Database,
    calendar: UUID,
    lease: Callable[..., list[LeasedTenant]],
    release: Callable[..., None],
) -> None:
    release(lease(), timedelta(seconds=60))

    before = lease()
    later(database, timedelta(seconds=60))
    after = lease()

    assert (len(before), len(after)) == (0, 1)


@pytest.fixture
def in_background() -> Iterator[Callable[..., "Future[object]"]]:
    with ThreadPoolExecutor(2) as pool:
        yield pool.submit


def test_changes_during_a_drain_arrive_with_it_or_with_the_next(
    database: Database,
    acme: TenantHandle,
    calendar: UUID,
    mirror: MirrorSide,
    in_background: Callable[..., "Future[object]"],
) -> None:
    mirror.proxy.trouble(Trouble(hold=True), times=1)
    draining = in_background(mirror.drain, database)
    mirror.proxy.wait_for_calls(1)
    plant_events(database, acme, calendar, 5)
    in_transaction(database, change(calendar))
    mirror.proxy.release()
    draining.result(20)

    mirror.drain(database)

    assert outbox(database) == {}
    assert_mirror_equals_postgres(database, mirror)


def test_a_row_changed_while_it_is_on_its_way_is_sent_again(
    database: Database, calendar: UUID, mirror: MirrorSide, in_background: Callable[..., "Future[object]"]
) -> None:
    mirror.drain(database)
    in_transaction(database, change(calendar))
    mirror.proxy.trouble(Trouble(hold=True), times=1)
    before = len(mirror.proxy.calls)
    draining = in_background(mirror.drain, database)
    mirror.proxy.wait_for_calls(before + 1)
    in_transaction(database, change(calendar))
    mirror.proxy.release()

    draining.result(20)
    mirror.drain(database)

    assert mirror.table("calendars")[str(calendar)]["name"] == "xx"
    assert_mirror_equals_postgres(database, mirror)


def test_a_backlog_of_20000_rows_does_not_hold_back_three_rows_of_another_tenant(
    database: Database, acme: TenantHandle, calendar: UUID, mirror: MirrorSide
) -> None:
    plant_events(database, acme, calendar, BACKLOG)
    small = plant_tenant(database, "small")
    plant_events(database, small, plant_calendar(database, small), 3)
    mirror.proxy.trouble(Trouble(), times=3)
    mirror.proxy.trouble(Trouble(status=503))

    mirror.drain(database)

    *_, first = mirror.proxy.calls[:3]  # after one of accounts and one of calendars
    assert sum(row["tenant_id"] == str(small.tenant_id) for row in first.rows) == 3
    assert len(first.rows) > 100


def test_a_second_sender_serves_a_tenant_that_wakes_while_the_first_is_busy_with_another(
    database: Database,
    calendar: UUID,
    mirror: MirrorSide,
    in_background: Callable[..., "Future[object]"],
) -> None:
    mirror.proxy.trouble(Trouble(hold=True), times=1)
    busy = in_background(mirror.drain, database)
    mirror.proxy.wait_for_calls(1)
    small = plant_tenant(database, "small")
    plant_events(database, small, plant_calendar(database, small), 3)

    mirror.drain(database)

    arrived = {row["tenant_id"] for row in mirror.table("calendar_events").values()}
    mirror.proxy.release()
    busy.result(20)
    assert arrived == {str(small.tenant_id)}


def test_a_drain_stops_when_its_time_is_up_and_the_next_goes_on(
    database: Database, acme: TenantHandle, calendar: UUID, mirror: MirrorSide
) -> None:
    plant_events(database, acme, calendar, 40)
    mirror.proxy.trouble(Trouble(delay=0.6))

    first = mirror.drain(database, batch_size=10, budget=1.5)
    left = len(outbox(database))
    mirror.proxy.clear()
    mirror.drain(database)

    assert first.failure is None
    assert 0 < left < 42
    assert_mirror_equals_postgres(database, mirror)


def test_a_lost_turn_is_found_by_the_repair(
    database: Database, calendar: UUID, lease: Callable[..., list[LeasedTenant]]
) -> None:
    with database.transaction() as connection:
        connection.execute(text("update mirror.turns set ready_at = 'infinity'"))
        connection.execute(text("update mirror.outbox set queued_at = now() - interval '2 minutes'"))

    before = lease()
    with database.transaction() as connection:
        repaired = mirroring.repair(connection)

    assert before == []
    assert repaired == 1
    assert len(lease()) == 1
