"""What people do about parked work, by whichever way: it happens to what is meant and to nothing else."""

from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import Connection

from db.ids import new_id
from db.session import in_transaction
from tenantsync.dispatching import steering
from tenantsync.dispatching.steering import SteeringRefused
from tests.support.fleet import Fleet, TenantHandle

Refuse = Callable[..., UUID]


@pytest.fixture
def refuse(fleet: Fleet) -> Refuse:
    """A row of a tenant that Supabase refused."""

    def make(tenant: TenantHandle, entity: str = "events") -> UUID:
        row_id = new_id()
        fleet.execute(
            "insert into mirror.parked_rows (tenant_id, entity, row_id, version, reason)"
            " values (:tenant, :entity, :row, 1, 'no')",
            tenant=tenant.tenant_id,
            entity=entity,
            row=row_id,
        )
        return row_id

    return make


@pytest.fixture
def parked(fleet: Fleet) -> TenantHandle:
    """A tenant whose unit is parked and will be tried again."""
    tenant = fleet.tenant("acme")
    for state in ("dispatched", "running", "parked"):
        fleet.execute(
            "update sync.units set state = :state, next_due_at = now() + interval '1 h' where tenant_id = :tenant",
            state=state,
            tenant=tenant.tenant_id,
        )
    return tenant


def left(fleet: Fleet) -> set[UUID]:
    return {row["row_id"] for row in fleet.rows("select row_id from mirror.parked_rows")}


def test_a_row_that_is_dropped_is_forgotten_and_not_sent(fleet: Fleet, refuse: Refuse) -> None:
    tenant = fleet.tenant()
    one, other = refuse(tenant), refuse(tenant)

    def drop(connection: Connection) -> int:
        return steering.drop_rows(connection, tenant_id=tenant.tenant_id, entity="events", row_id=one, by="user:x")

    assert in_transaction(fleet.database, drop) == 1
    assert left(fleet) == {other}
    assert fleet.outbox(tenant) == {}


def test_a_row_that_is_retried_is_queued_and_its_tenant_woken(fleet: Fleet, refuse: Refuse) -> None:
    tenant = fleet.tenant()
    one, other = refuse(tenant), refuse(tenant)

    def retry(connection: Connection) -> int:
        return steering.retry_rows(connection, tenant_id=tenant.tenant_id, entity="events", row_id=one, by="user:x")

    assert in_transaction(fleet.database, retry) == 1
    assert left(fleet) == {other}
    assert set(fleet.outbox(tenant)) == {one}
    turn = fleet.one("select ready_at <= now() as due from mirror.turns where tenant_id = :t", t=tenant.tenant_id)
    assert turn["due"]


@pytest.mark.parametrize("work", [steering.retry_rows, steering.drop_rows])
def test_one_tenants_rows_are_not_anothers(fleet: Fleet, refuse: Refuse, work: Callable[..., int]) -> None:
    ours, theirs = fleet.tenant(), fleet.tenant()
    refuse(ours)
    refuse(ours, "calendars")
    kept = refuse(theirs)

    count = in_transaction(fleet.database, lambda connection: work(connection, tenant_id=ours.tenant_id, by="user:x"))

    assert (count, left(fleet)) == (2, {kept})


def test_a_unit_that_is_dropped_is_tried_no_more_by_itself_and_can_be_retried(
    fleet: Fleet, parked: TenantHandle
) -> None:
    unit = parked.workspace_id

    def drop(connection: Connection) -> bool:
        return steering.drop_unit(connection, unit_id=unit, tenant_id=parked.tenant_id, by="user:x")

    def retry(connection: Connection) -> bool:
        return steering.retry_unit(connection, unit_id=unit, tenant_id=parked.tenant_id, by="user:x")

    dropped = in_transaction(fleet.database, drop)
    rests = fleet.one("select state, isfinite(next_due_at) as again from sync.units where unit_id = :u", u=unit)
    retried = in_transaction(fleet.database, retry)

    assert (dropped, rests) == (True, {"state": "parked", "again": False})
    assert (retried, fleet.unit(parked)["state"]) == (True, "idle")
    assert not in_transaction(fleet.database, drop)


def test_what_is_done_is_written_into_the_audit_log(fleet: Fleet, parked: TenantHandle) -> None:
    steering.pause(fleet.database, tenant_id=parked.tenant_id, by="user:1", reason=" moving ", name="Ann")
    steering.resume(fleet.database, tenant_id=parked.tenant_id, by="user:1")

    logged = fleet.rows("select actor, action, details from worker.audit_logs order by id")
    assert [(row["actor"], row["action"], row["details"]["reason"]) for row in logged] == [
        ("user:1", "tenant.pause", "moving"),
        ("user:1", "tenant.resume", None),
    ]
    assert fleet.one("select paused_by from sync.pauses")["paused_by"] == "user:Ann"


@pytest.mark.parametrize("reason", ["x" * 501, "two\nlines", "\x00"])
def test_a_reason_that_cannot_be_shown_is_refused_and_nothing_stops(
    fleet: Fleet, parked: TenantHandle, reason: str
) -> None:
    with pytest.raises(SteeringRefused):
        steering.pause(fleet.database, tenant_id=parked.tenant_id, by="user:1", reason=reason)

    assert not fleet.one("select paused from sync.tenants")["paused"]
