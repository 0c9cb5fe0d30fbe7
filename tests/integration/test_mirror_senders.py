"""Senders that die, are stopped for a while or take long: who sends then, and what they may still do."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from config.settings import Settings
from db.repositories import mirroring
from db.repositories.mirroring import Key
from db.session import Database, in_transaction
from tenantsync.mirror import service
from tenantsync.mirror.holding import LEASE, Holding
from tests.support.fleet import TenantHandle
from tests.support.logs import captured_logs
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
from tests.support.waiting import wait_until

pytest_plugins = ["tests.support.supabase_fixtures"]

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

RECOVERY = timedelta(seconds=10)
BRIEF = timedelta(seconds=0.4)  # renewed every tenth of a second
TURN = text("select ready_at, lease_until from mirror.turns where tenant_id = :tenant")


@pytest.fixture
def acme(database: Database) -> TenantHandle:
    return plant_tenant(database, "acme")


@pytest.fixture
def calendar(database: Database, acme: TenantHandle) -> UUID:
    """A calendar of acme's, which waits for Supabase together with its account."""
    return plant_calendar(database, acme)


@pytest.fixture
def in_background() -> Iterator[Callable[..., "Future[Any]"]]:
    with ThreadPoolExecutor(2) as pool:
        yield pool.submit


def turn(database: Database, tenant: TenantHandle) -> tuple[datetime, datetime | None]:
    """(when its turn is, until when it is leased)."""
    with database.reading() as connection:
        row = connection.execute(TURN, {"tenant": tenant.tenant_id}).one()
        return row.ready_at, row.lease_until


def renewed_twice(database: Database, tenant: TenantHandle) -> None:
    """Wait until the lease was renewed twice from now on: then one renewal began and ended meanwhile."""
    for _ in range(2):
        mark = turn(database, tenant)[1]
        wait_until(lambda mark=mark: turn(database, tenant)[1] != mark, about="a renewal")


def test_the_rows_of_a_sender_that_was_killed_arrive_within_ten_seconds(
    database: Database, calendar: UUID, mirror: MirrorSide
) -> None:
    Holding(database, limit=10)  # and is never heard of again

    mirror.drain(database)
    meanwhile = len(mirror.table("calendars"))
    tick = timedelta(seconds=1)
    later(database, RECOVERY - 2 * tick)
    mirror.drain(database)

    assert meanwhile == 0
    assert_mirror_equals_postgres(database, mirror)


def test_a_sender_whose_call_takes_longer_than_its_lease_keeps_its_tenants(
    database: Database, acme: TenantHandle, calendar: UUID
) -> None:
    with Holding(database, limit=10, lease=BRIEF) as holding:
        for _ in range(3):  # six renewals: longer than a lease
            renewed_twice(database, acme)

        taken = Holding(database, limit=10)

        assert not taken
        assert holding.ours([acme.tenant_id]) == {acme.tenant_id}
    assert Holding(database, limit=10).tenants == [acme.tenant_id]


def test_a_drain_keeps_its_tenants_while_supabase_takes_its_time(
    database: Database,
    acme: TenantHandle,
    calendar: UUID,
    mirror: MirrorSide,
    in_background: Callable[..., "Future[Any]"],
) -> None:
    mirror.proxy.trouble(Trouble(hold=True), times=1)
    draining = in_background(mirror.drain, database)
    mirror.proxy.wait_for_calls(1)
    mark = turn(database, acme)[1]

    wait_until(lambda: turn(database, acme)[1] != mark, about="a renewal")

    mirror.proxy.release()
    draining.result(20)
    assert turn(database, acme)[1] is None
    assert_mirror_equals_postgres(database, mirror)


def test_a_wake_up_survives_every_renewal_and_the_giving_back(
    database: Database, acme: TenantHandle, calendar: UUID
) -> None:
    with Holding(database, limit=10, lease=BRIEF):
        with database.transaction() as connection:
            connection.execute(text("delete from mirror.outbox"))  # all was sent
            rang = connection.execute(text("select now()")).scalar_one()
            change(calendar)(connection)
        renewed_twice(database, acme)
        during = turn(database, acme)[0]

    assert during == rang
    assert turn(database, acme)[0] == rang
    assert Holding(database, limit=10).tenants == [acme.tenant_id]


def test_a_tenant_that_is_being_changed_holds_up_no_renewal_and_is_not_lost(
    database: Database, acme: TenantHandle, calendar: UUID
) -> None:
    other = plant_tenant(database, "other")
    plant_calendar(database, other)
    with Holding(database, limit=10, lease=BRIEF) as holding:
        with database.transaction() as changing:
            change(calendar)(changing)
            renewed_twice(database, other)

            assert holding.ours([acme.tenant_id]) == {acme.tenant_id}
        renewed_twice(database, acme)

    assert set(Holding(database, limit=10).tenants) == {acme.tenant_id, other.tenant_id}


def test_a_sender_that_was_stopped_past_its_lease_asks_and_learns_that_it_is_too_late(
    database: Database, acme: TenantHandle, calendar: UUID
) -> None:
    stopped = Holding(database, limit=10, lease=timedelta(0))
    wait_until(lambda: Holding(database, limit=10).tenants, about="the successor")

    assert stopped.ours([acme.tenant_id]) == set()
    assert stopped.tenants == []


def test_a_sender_that_was_stopped_and_missed_by_nobody_goes_on(
    database: Database, acme: TenantHandle, calendar: UUID
) -> None:
    stopped = Holding(database, limit=10, lease=timedelta(0))

    assert stopped.ours([acme.tenant_id]) == {acme.tenant_id}


def test_a_sender_that_lost_its_tenants_makes_no_further_call_and_harms_nothing(
    database: Database,
    settings: Settings,
    acme: TenantHandle,
    calendar: UUID,
    mirror: MirrorSide,
    in_background: Callable[..., "Future[Any]"],
) -> None:
    plant_events(database, acme, calendar, 30)
    mirror.proxy.trouble(Trouble(hold=True), times=1)
    with captured_logs(settings) as log:
        zombie = in_background(mirror.drain, database, batch_size=10)
        mirror.proxy.wait_for_calls(1)
        later(database, LEASE + timedelta(seconds=1))
        mirror.drain(database)
        wait_until(lambda: "mirror_leases_lost" in log.getvalue(), about="the zombie's awakening")
        calls = len(mirror.proxy.calls)

        mirror.proxy.release()
        zombie.result(20)

    assert mirror.proxy.calls[calls:] == []
    assert outbox(database) == {}
    assert_mirror_equals_postgres(database, mirror)


def test_a_row_that_comes_back_while_its_absence_is_being_settled_is_not_forgotten(
    database: Database, acme: TenantHandle, calendar: UUID
) -> None:
    with database.statement() as connection:
        keys = mirroring.take_keys(connection, tenants=[acme.tenant_id], limit=10)
    absent = [key for key in keys if key.entity == "calendars"]
    in_transaction(database, change(calendar))

    service._settle(database, "calendars", absent, [], [])  # it was not there when it was read

    assert Key(acme.tenant_id, "calendars", calendar).row_id in outbox(database)
