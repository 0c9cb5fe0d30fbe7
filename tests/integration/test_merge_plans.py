"""Merging a large listing takes seconds, whatever the planner believes of tables that were filled a moment ago."""

from uuid import UUID

import pytest
from sqlalchemy import text

from benchmarks import bodies
from db.repositories import events
from db.repositories.events import Merged
from db.session import Database
from tenantsync.calendars import google_events, settling
from tests.support.fleet import Fleet, TenantHandle
from tests.support.mirror import plant_calendar

ROWS = 20_000
LONGEST = "8s"
"""One statement. A merge of so many rows takes about one second; by nested loops it took most of a minute."""


@pytest.fixture
def ignorant(database: Database) -> None:
    """Nobody tells the planner anything: as in the first minute after a calendar was connected."""
    with database.transaction() as connection:
        for table in ("sync.events", "sync.staged_events", "sync.tombstones", "sync.quarantined_items"):
            connection.execute(text(f"alter table {table} set (autovacuum_enabled = false)"))


def merge(database: Database, tenant: TenantHandle, calendar: UUID, fence: int, *, changed: int = 0) -> Merged:
    """A full listing, of which the first `changed` events have another title than in the one before."""
    items = [
        {**item, "summary": f"Changed in run {fence}"} if number <= changed else item
        for number, item in enumerate(bodies.events(ROWS), 1)
    ]
    rows = [google_events.staged(item, number) for number, item in enumerate(items, 1)]
    with database.transaction() as connection:
        staged = settling.stage(connection, calendar_id=calendar, fence=fence, rows=rows)
        connection.execute(text(f"set local statement_timeout = '{LONGEST}'"))
        return events.merge(
            connection, tenant_id=tenant.tenant_id, calendar_id=calendar, fence=fence, full=True, staged=staged
        )


@pytest.mark.usefixtures("ignorant")
def test_no_merge_of_a_large_listing_depends_on_statistics(fleet: Fleet) -> None:
    acme = fleet.tenant()
    calendar = plant_calendar(fleet.database, acme)

    first = merge(fleet.database, acme, calendar, 1)
    again = merge(fleet.database, acme, calendar, 2)
    changed = merge(fleet.database, acme, calendar, 3, changed=ROWS // 2)

    assert (first.inserted, first.updated, first.deleted) == (ROWS, 0, 0)
    assert not again.anything
    assert (changed.inserted, changed.updated, changed.deleted) == (0, ROWS // 2, 0)


@pytest.mark.usefixtures("ignorant")
def test_no_merge_of_a_large_listing_depends_on_statistics_that_were_true_once(fleet: Fleet) -> None:
    acme = fleet.tenant()
    calendar = plant_calendar(fleet.database, acme)
    fleet.execute("analyze sync.events, sync.staged_events")  # while they are empty

    merge(fleet.database, acme, calendar, 1)

    assert not merge(fleet.database, acme, calendar, 2).anything
