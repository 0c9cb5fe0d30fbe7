"""The overview's numbers: readings as a history, rates out of counters, what counts as fresh, and the endpoints."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from sqlalchemy import text

from db.ids import first_id_at
from db.repositories import overview
from db.session import Database
from tenantsync.identity.roles import Role
from tenantsync.metrics import service as metrics
from tenantsync.web import fleet
from tenantsync.web.fleet import Overview
from tenantsync.web.pages.overview import hops
from tenantsync.web.pages.plots import PLANS, ceiling, draw, path
from tests.support.fleet import Fleet
from tests.support.pages import furnish
from tests.support.web import Web

pytest_plugins = ["tests.support.web_fixtures"]

MINUTE = timedelta(seconds=60)
Record = Callable[..., None]


@pytest.fixture
def record(database: Database) -> Record:
    """A reading of the fleet, so many seconds ago."""

    def write(ago: float, **details: Any) -> None:
        at = datetime.now(UTC) - timedelta(seconds=ago)
        with database.transaction() as connection:
            connection.execute(
                text(
                    "insert into worker.system_metrics (id, scope, worker_id, details, recorded_at)"
                    " values (:id, 'fleet', 'fleet', cast(:details as jsonb), :at)"
                ),
                {"id": first_id_at(at), "details": orjson.dumps(details).decode(), "at": at},
            )

    return write


@pytest.mark.parametrize("span", fleet.SPANS)
def test_a_history_has_its_points_whatever_it_spans(database: Database, record: Record, span: fleet.Span) -> None:
    step, points, _ = fleet.SPANS[span]
    for number in range(8):
        record(step.total_seconds() * (number + 0.5), due=number)

    found = fleet.history(database, span=span, interval=MINUTE)

    assert len(found.at) == points
    assert {len(column) for column in found.series.values()} == {points}
    assert sum(value is not None for value in found.series["due"]) == 8
    assert found.at == sorted(found.at)


def test_a_point_shows_the_highest_of_what_it_looked_at(database: Database, record: Record) -> None:
    step = fleet.SPANS["24h"][0].total_seconds()
    begun = datetime.now(UTC).timestamp() // step * step - 3 * step
    for part in range(4):
        at = datetime.now(UTC).timestamp() - (begun + part * step / 4 + 5)
        record(at, outbox=[3, 900, 2, 4][part])

    found = fleet.history(database, span="24h", interval=MINUTE)

    assert [value for value in found.series["outbox"] if value is not None] == [900]


def test_counters_become_rates_and_one_that_falls_is_left_out(database: Database, record: Record) -> None:
    counts = [(100, 0), (220, 0), (340, 6), (10, 0), (130, 0)]
    for number, (quiet, failed) in enumerate(counts):
        record(3600 - 300 - number * 60, quiet_runs=quiet, changed_runs=0, failed_runs=failed)

    found = fleet.history(database, span="1h", interval=MINUTE)

    rates = [value for value in found.series["runs"] if value is not None]
    assert rates == pytest.approx([2.0, 2.1, 2.0], rel=0.02)
    assert [value for value in found.series["failed_runs"] if value] == pytest.approx([0.1], rel=0.02)


def test_readings_of_an_older_product_make_gaps_and_no_errors(database: Database, record: Record) -> None:
    record(90, due=3)
    record(30, due=4)

    found = fleet.history(database, span="1h", interval=MINUTE)

    assert set(found.series["fresh_p95"]) == {None}
    assert draw(PLANS[0], found).empty


def test_fresh_is_what_succeeded_within_two_intervals_and_is_not_paused(fleet: Fleet) -> None:
    web_like = fleet.tenant("acme"), fleet.tenant("paused")
    for number, tenant in enumerate(web_like):
        fleet.execute(
            "insert into sync.accounts (account_id, tenant_id, workspace_id, provider, identity)"
            " values (gen_random_uuid(), :t, :w, 'google', 'x')",
            t=tenant.tenant_id,
            w=tenant.workspace_id,
        )
        for age in (30, 119, 400):
            fleet.execute(
                "insert into sync.calendars (calendar_id, tenant_id, workspace_id, account_id, provider_key,"
                " last_success_at) select gen_random_uuid(), :t, :w, account_id, :key, now() - :age * interval '1 s'"
                " from sync.accounts where tenant_id = :t",
                t=tenant.tenant_id,
                w=tenant.workspace_id,
                key=f"{number}-{age}",
                age=age,
            )
    fleet.execute("update sync.tenants set paused = true where name = 'paused'")

    with fleet.database.reading() as connection:
        seen = overview.pulse(connection)

    assert (seen["calendars_watched"], seen["fresh"]) == (3, 2)
    assert (round(seen["fresh_p50"]), round(seen["fresh_max"])) == (119, 400)


@pytest.mark.parametrize(
    ("reading", "age", "expected"),
    [
        ({"calendars_watched": 200, "fresh": 200, "oldest_unsent": 0.4}, 5, ("ok", "ok")),
        ({"calendars_watched": 200, "fresh": 190, "oldest_unsent": 30}, 5, ("wait", "wait")),
        ({"calendars_watched": 200, "fresh": 20, "oldest_unsent": 900}, 5, ("bad", "bad")),
        ({"calendars_watched": 0, "fresh": 0, "parked_rows": 2}, 5, ("ok", "wait")),
        ({"calendars_watched": 200, "fresh": 200}, 300, ("off", "off")),
        ({}, None, ("off", "off")),
    ],
)
def test_the_ways_look_as_they_are(reading: dict[str, Any], age: float | None, expected: tuple[str, str]) -> None:
    seen = Overview(
        target=120,
        read_at=None,
        age=age,
        reading=reading,
        workers=[],
        cooldowns=[],
        failures=[],
        proof=None,
        wanted={},
    )

    assert hops(seen) == expected


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (0.4, 0.5), (1, 1.5), (7.2, 8), (118, 150), (120, 150), (2e6, 2.5e6)]
)
def test_a_scale_ends_at_a_round_number_above_everything(value: float, top: float) -> None:
    assert ceiling(value) == pytest.approx(top)


def test_a_line_is_broken_where_nothing_is_known() -> None:
    assert path([0, 10, None, 5], 10) == "M0 100.0L200 0.0M600 50.0"


def test_the_seeds_status_counts_the_tasks_of_a_day_by_state(web: Web) -> None:
    tenant_id, _ = web.tenant()
    for status, ago in (("pending", 1), ("completed", 2), ("completed", 3), ("failed", 4), ("completed", 30)):
        moment = datetime.now(UTC) - timedelta(hours=ago)
        with web.database.transaction() as connection:
            connection.execute(
                text("insert into worker.tasks (id, tenant_id, kind, status) values (:id, :tenant, 'x', :status)"),
                {"id": first_id_at(moment), "tenant": tenant_id, "status": status},
            )

    own = web.bearer(Role.MEMBER, tenant_id=tenant_id).get("/api/v1/worker-status").json()
    others = web.bearer(Role.MEMBER, tenant_id=web.tenant()[0]).get("/api/v1/worker-status").json()

    assert own["worker_stats"] == {"pending": 1, "processing": 0, "completed": 2, "failed": 1}
    assert set(own) == {"worker_stats", "last_updated"}
    assert set(others["worker_stats"].values()) == {0}


def test_lists_go_on_and_show_a_tenant_its_own_alone(web: Web) -> None:
    ours, theirs = furnish(web, name="ours"), furnish(web, name="theirs")
    admin = web.bearer(Role.ADMIN, tenant_id=ours.tenant_id)
    operator = web.bearer(Role.OPERATOR)

    pages, cursor = [], None
    while True:
        query = {"limit": 1, "q": "s"} | ({"cursor": cursor} if cursor else {})
        page = operator.get("/api/v1/tenants", params=query).json()
        pages.append(page["items"])
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert [[one["name"] for one in items] for items in pages] == [["ours"], ["theirs"]]
    assert [one["name"] for one in admin.get("/api/v1/tenants").json()["items"]] == ["ours"]
    assert {one["tenant_id"] for one in admin.get("/api/v1/runs").json()["items"]} == {str(ours.tenant_id)}
    assert {one["tenant_id"] for one in admin.get("/api/v1/parked/rows").json()["items"]} == {str(ours.tenant_id)}
    for other in (f"/tenants/{theirs.tenant_id}", f"/tenants/{theirs.tenant_id}/why", f"/runs/{theirs.run_id}"):
        assert admin.get(f"/api/v1{other}").status_code == 404
    assert admin.post(f"/api/v1/parked/units/{theirs.parked_unit}/retry").status_code == 404
    assert operator.post("/api/v1/parked/rows/drop", json={"entity": "events"}).status_code == 422


def test_what_a_run_did_is_told_step_by_step(web: Web) -> None:
    ours = furnish(web, name="ours")
    metrics.collect(web.database, web.database, {})

    run = web.bearer(Role.MEMBER, tenant_id=ours.tenant_id).get(f"/api/v1/runs/{ours.run_id}").json()

    assert [(step["step_name"], step["execution_time"], step["success"]) for step in run["steps"]] == [
        ("ours", 120, False)
    ]
    assert run["result"]["inserted"] == 3
