"""A fleet whose time passes when a test says so, and its books; the fixture is in `accounting_fixtures.py`."""

import json
from datetime import timedelta
from typing import Any

from db.ids import new_id
from db.repositories import accounting
from tenantsync.accounting import service
from tests.support.fleet import Fleet, TenantHandle

# Everything that the fleet holds about time lies that much further in the past; nothing else is changed.
PASS = (
    "update sync.policies set since = since - :time",
    "update sync.pauses set paused_at = paused_at - :time, resumed_at = resumed_at - :time",
    "update sync.cooldowns set until = until - :time, created_at = created_at - :time",
    "update sync.turns set ready_at = ready_at - :time",
    "update sync.calendars set next_due_at = next_due_at - :time, created_at = created_at - :time",
    "update sync.units set next_due_at = next_due_at - :time, lease_until = lease_until - :time",
    "update sync.units set accounted_to = accounted_to - :time, created_at = created_at - :time",
)


class Ledger:
    """The books of a fleet in which `every` passes when a test says so, and hardly by itself."""

    def __init__(self, fleet: Fleet, every: timedelta) -> None:
        self.fleet, self.every = fleet, every

    def declare(self, every: timedelta) -> None:
        with self.fleet.database.statement() as connection:
            accounting.declare_policy(connection, every=every, ahead=timedelta(0))

    def pass_time(self, intervals: int = 1) -> None:
        """Let whole intervals pass."""
        for statement in PASS:
            self.fleet.execute(statement, time=intervals * self.every)

    def audit(self) -> dict[str, Any]:
        """One whole round."""
        return service.reckon(self.fleet.database, self.fleet.settings)

    def closes(self) -> dict[str, Any]:
        """Audit, and say that nothing is missing or doubled."""
        found = self.audit()
        assert (found["missing"], found["doubled"], found["names"]) == (0, 0, [])
        assert found["expected"] == found["accounted"]
        return found

    def slots(self, tenant: TenantHandle) -> tuple[int, int, int, int]:
        """(done, failed, skipped, superseded) of the tenant's unit."""
        unit = self.fleet.unit(tenant)
        return unit["slots_done"], unit["slots_failed"], unit["slots_skipped"], unit["slots_superseded"]

    def partly(self, *, units: int) -> dict[str, Any]:
        """Audit so many units and run out of time; what was found stands in the ledger."""
        found = service.reckon(self.fleet.database, self.fleet.settings, portion=units, budget=0)
        self.fleet.execute(
            "insert into worker.tasks (id, kind, status, due_at, completed_at, result)"
            " values (:id, 'ledger.audit', 'completed', clock_timestamp(), now(), cast(:result as jsonb))",
            id=new_id(),
            result=json.dumps(found),
        )
        return found

    def pause(self, tenant: TenantHandle) -> None:
        """Pause a tenant as of now, and leave its runs alone."""
        with self.fleet.database.transaction() as connection:
            accounting.open_pause(
                connection, tenant_id=tenant.tenant_id, by="cli:ada", reason="moving", ahead=timedelta(0)
            )
        self._set_paused(tenant, True)

    def resume(self, tenant: TenantHandle) -> None:
        with self.fleet.database.transaction() as connection:
            accounting.close_pause(connection, tenant_id=tenant.tenant_id, ahead=timedelta(0))
        self._set_paused(tenant, False)

    def _set_paused(self, tenant: TenantHandle, paused: bool) -> None:
        about = {"tenant": tenant.tenant_id, "paused": paused}
        self.fleet.execute(
            "update sync.tenants set paused = :paused, pause_reason = 'moving' where tenant_id = :tenant", **about
        )
        self.fleet.execute(
            "update sync.turns set paused = :paused, ready_at = least(ready_at, now()) where tenant_id = :tenant",
            **about,
        )

    def park(self, tenant: TenantHandle) -> None:
        """Park a tenant's unit as a claim does, to be tried again much later."""
        for state in ("dispatched", "running", "parked"):
            self.fleet.execute(
                "update sync.units set state = :state, parked_reason = 'its worker died 3 times', parked_at = now(),"
                " next_due_at = now() + interval '20 hours' where tenant_id = :tenant",
                state=state,
                tenant=tenant.tenant_id,
            )
