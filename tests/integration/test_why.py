"""`why` on real rows: whatever holds a unit is found where it stands."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from config.queues import Lane, Queue
from db.ids import new_id
from db.repositories import budgets, tenants, units
from db.repositories import ledger as workers
from sandbox.google.control import GoogleControl
from sandbox.google.specs import Fault
from tenantsync.accounting import service
from tenantsync.accounting.explain import Explanation
from tenantsync.dispatching import pausing
from tests.support.accounting import Ledger
from tests.support.fleet import TenantHandle
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures

pytest_plugins = ["tests.support.accounting_fixtures"]

ANN = "ann@example.test"

Explain = Callable[[TenantHandle], Explanation]


@pytest.fixture
def acme(ledger: Ledger, google: GoogleControl) -> TenantHandle:
    """A tenant with an empty calendar, listed, and a worker that serves every queue."""
    tenant = ledger.fleet.tenant("acme")
    ledger.fleet.google(tenant, google, account=google.create_account(ANN))
    ledger.fleet.run()
    reading = {"slots": 4, "cpu": 1.0, "memory": 1.0, "active": 0, "now": datetime.now(UTC)}
    with ledger.fleet.database.statement() as connection:
        workers.heartbeat(connection, worker="celery@one", queues=[queue.value for queue in Queue], reading=reading)
    return tenant


@pytest.fixture
def why(ledger: Ledger) -> Explain:
    def ask(tenant: TenantHandle) -> Explanation:
        found = service.why(ledger.fleet.database, ledger.fleet.settings, unit_id=tenant.workspace_id)
        assert found is not None
        return found[1]

    return ask


def kinds(explanation: Explanation) -> list[str]:
    return [link.kind for link in explanation.links]


def test_a_unit_that_nobody_knows_has_no_explanation(ledger: Ledger) -> None:
    assert service.why(ledger.fleet.database, ledger.fleet.settings, unit_id=new_id()) is None


def test_a_paused_tenant(ledger: Ledger, acme: TenantHandle, why: Explain) -> None:
    ledger.fleet.due()
    pausing.pause(ledger.fleet.database, tenant_id=acme.tenant_id, by="cli:ada", reason="migration")

    explanation = why(acme)

    (link,) = explanation.links
    day = datetime.now(UTC).date()
    assert link.text.startswith(f"paused by ada on {day}")
    assert link.text.endswith(" UTC: migration")
    assert explanation.runs_at is None


def test_an_isolated_tenant(ledger: Ledger, acme: TenantHandle, why: Explain) -> None:
    ledger.fleet.execute("update sync.tenants set isolated_until = now() + interval '1 hour', isolated_reason = 'x'")

    assert kinds(why(acme)) == ["isolated", "not_due"]


def test_a_parked_unit(ledger: Ledger, acme: TenantHandle, why: Explain) -> None:
    ledger.park(acme)

    explanation = why(acme)

    assert kinds(explanation) == ["parked"]
    assert explanation.runs_at is not None
    assert "its worker died 3 times; it is tried again at" in explanation.links[0].text


def test_a_revoked_account(ledger: Ledger, google: GoogleControl, acme: TenantHandle, why: Explain) -> None:
    google.revoke_grant(ANN)
    ledger.fleet.sync()

    explanation = why(acme)

    assert kinds(explanation) == ["account", "not_due"]
    assert f"google {ANN} has to be connected again" in explanation.links[0].text
    assert explanation.runs_at is None


def test_a_closed_account(ledger: Ledger, google: GoogleControl, acme: TenantHandle, why: Explain) -> None:
    google.add_fault(Fault(kind="status", status=429, account=ANN, retry_after=1000, times=1))
    ledger.fleet.sync()

    explanation = why(acme)

    assert kinds(explanation) == ["cooldown", "not_due"]
    assert "is closed until" in explanation.links[0].text
    assert explanation.runs_at is not None
    assert explanation.runs_at > datetime.now(UTC) + timedelta(seconds=900)


def test_a_budget_that_is_used_up(ledger: Ledger, acme: TenantHandle, why: Explain) -> None:
    ledger.fleet.due()
    with ledger.fleet.database.statement() as connection:
        budgets.charge(connection, scope="project", scope_id="google", cost=timedelta(minutes=2))

    assert "budget" in kinds(why(acme))


def test_a_calendar_that_backs_off(ledger: Ledger, google: GoogleControl, acme: TenantHandle, why: Explain) -> None:
    google.add_fault(Fault(kind="status", status=503, account=ANN, times=None))
    ledger.fleet.sync()

    explanation = why(acme)

    assert kinds(explanation) == ["backoff", "not_due"]
    assert "its calendar backs off after 1 failure in a row (" in explanation.links[0].text


def test_a_unit_that_ran_just_now(acme: TenantHandle, why: Explain) -> None:
    assert kinds(why(acme)) == ["not_due"]


def test_a_unit_that_runs(ledger: Ledger, acme: TenantHandle, why: Explain) -> None:
    ledger.fleet.due()
    pairs = [(unit.unit_id, unit.fence) for unit in ledger.fleet.claim(Lane.SYNC)]
    dispatched = kinds(why(acme))
    lease = timedelta(minutes=1)
    with ledger.fleet.database.statement() as connection:
        units.start(connection, batch_id=new_id(), units=pairs, worker="celery@one", lease=lease)

    running = why(acme)

    assert dispatched == ["dispatched"]
    assert kinds(running) == ["running"]
    assert "worker celery@one holds its lease until" in running.links[0].text


def test_a_tenant_that_has_as_much_running_as_it_may(
    ledger: Ledger, google: GoogleControl, acme: TenantHandle, why: Explain
) -> None:
    with ledger.fleet.database.transaction() as connection:
        other = tenants.add_workspace(connection, tenant_id=acme.tenant_id, name="attic")
    ledger.fleet.due()
    ledger.fleet.execute("update sync.turns set cap = 1")
    ledger.fleet.execute(
        "update sync.units set state = 'dispatched', lane = 'sync', lease_until = now() + interval '1 minute',"
        " next_due_at = now() where unit_id = :unit",
        unit=other,
    )

    assert kinds(why(acme)) == ["at_cap"]


def test_its_place_in_its_share(ledger: Ledger, acme: TenantHandle, why: Explain) -> None:
    first = ledger.fleet.tenant("first")
    ledger.fleet.due()
    ledger.fleet.execute(
        "update sync.turns set ready_at = now() - interval '1 second' where tenant_id = :tenant",
        tenant=first.tenant_id,
    )

    explanation = why(acme)

    assert kinds(explanation) == ["share"]
    assert explanation.links[0].text.startswith("before it in the lane sync: 1 tenant and 0 units of")


def test_nobody_to_run_it(ledger: Ledger, acme: TenantHandle, why: Explain) -> None:
    ledger.fleet.due()
    free = kinds(why(acme))
    ledger.fleet.execute("update worker.workers set heartbeat_at = now() - interval '1 minute'")

    explanation = why(acme)

    assert free == ["due"]
    assert kinds(explanation) == ["no_worker"]
    assert explanation.runs_at is None


def test_nobody_to_wake_anybody(ledger: Ledger, acme: TenantHandle, why: Explain) -> None:
    ledger.fleet.due()
    ledger.fleet.execute(
        "insert into worker.schedules (entry, kind, every, policy, since, last_tick)"
        " values ('e', 'k', '15 s', 'skip', now() - interval '1 hour', now() - interval '1 hour')"
    )

    found = kinds(why(acme))
    ledger.fleet.execute("delete from worker.schedules")

    assert found == ["no_beat"]


@pytest.mark.parametrize(
    "sabotage",
    [
        "update sync.units set next_due_at = 'infinity'",
        "update sync.turns set ready_at = 'infinity' where lane = 'sync'",
    ],
)
def test_a_lost_wake_up(ledger: Ledger, acme: TenantHandle, why: Explain, sabotage: str) -> None:
    ledger.fleet.due()
    ledger.fleet.execute(sabotage)

    explanation = why(acme)

    assert kinds(explanation) == ["lost"]
    assert explanation.lost


def test_what_a_run_cost_is_owed(ledger: Ledger, google: GoogleControl, acme: TenantHandle) -> None:
    ledger.fleet.sync()
    quiet = owed(ledger, acme)
    for number in range(60):
        google.insert(ANN, ANN, {"id": f"event{number}", "summary": "x", **WHEN})

    ledger.fleet.sync()

    assert quiet == 0
    assert owed(ledger, acme) >= 60 / 500


WHEN = {"start": {"date": "2026-12-01"}, "end": {"date": "2026-12-02"}}


def owed(ledger: Ledger, tenant: TenantHandle) -> Any:
    return ledger.fleet.unit(tenant)["owed"]
