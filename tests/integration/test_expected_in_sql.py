"""The database and the auditor work out what is expected each for itself, and agree to the microsecond."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from db.repositories import tenants
from db.session import Database
from tenantsync.accounting import rules

BASE = datetime(2026, 11, 20, tzinfo=UTC)
# Near multiples of the intervals, where a digit that is rounded away would show.
MOMENTS = st.one_of(
    st.integers(0, 172_800_000_000),
    st.builds(lambda tick, off: tick * 3_600_000_000 + off, st.integers(0, 48), st.integers(-2, 2)),
).map(lambda micros: BASE + timedelta(microseconds=micros))
INTERVALS = st.one_of(
    st.integers(1, 90_000).map(lambda seconds: timedelta(seconds=seconds)),
    st.integers(1_000, 7_200_000).map(lambda millis: timedelta(milliseconds=millis)),
)
EXPECTED = text("select sync.expected(:tenant, :a, :b)")


@pytest.fixture(scope="module")
def connection(module_database: Database) -> Iterator[tuple[Connection, UUID]]:
    with module_database.transaction() as opened:
        tenant = tenants.add_tenant(opened, name="acme")
        yield opened, tenant


@pytest.fixture(scope="module")
def module_database(postgres: Any) -> Iterator[Database]:
    name = "expected_in_sql"
    opened = Database(postgres.create_database(name, template="template_tenantsync"), pool_size=1, name="tests")
    yield opened
    opened.close()
    postgres.drop_database(name)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    policies=st.lists(st.tuples(MOMENTS, INTERVALS), max_size=3, unique_by=lambda one: one[0]).map(sorted),
    bounds=st.lists(MOMENTS, max_size=6, unique=True).map(sorted),
    begin=MOMENTS,
    end=MOMENTS,
    still_paused=st.booleans(),
)
def test_both_count_the_same(
    connection: tuple[Connection, UUID],
    policies: list[tuple[datetime, timedelta]],
    bounds: list[datetime],
    begin: datetime,
    end: datetime,
    still_paused: bool,
) -> None:
    opened, tenant = connection
    pauses: list[tuple[datetime, datetime | None]] = list(zip(bounds[::2], bounds[1::2], strict=False))
    if len(bounds) % 2 and still_paused:
        pauses.append((bounds[-1], None))
    opened.execute(text("delete from sync.policies"))
    opened.execute(text("delete from sync.pauses"))
    for since, every in policies:
        opened.execute(text("insert into sync.policies values (:since, :every)"), {"since": since, "every": every})
    for first, last in pauses:
        opened.execute(
            text(
                "insert into sync.pauses (pause_id, tenant_id, paused_at, resumed_at, paused_by)"
                " values (gen_random_uuid(), :tenant, :first, :last, 'ada')"
            ),
            {"tenant": tenant, "first": first, "last": last},
        )

    counted = opened.execute(EXPECTED, {"tenant": tenant, "a": begin, "b": end}).scalar_one()

    wanted = rules.expected(begin, end, policies, rules.spans(pauses))
    assert max(0, counted) == wanted if begin < end else wanted == 0
