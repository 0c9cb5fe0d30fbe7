"""Tenants with units and nothing else, for the claim alone; the fixture is in `house_fixtures.py`."""

from collections import Counter
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import text

from config.queues import Lane
from db.repositories import tenants, units
from db.repositories.units import ClaimedUnit
from db.session import Database

ADD_UNITS = text("""
with w as (
  insert into sync.workspaces (workspace_id, tenant_id, name)
  select gen_random_uuid(), :tenant, 'office ' || n || ' ' || gen_random_uuid() from generate_series(1, :n) n
  returning workspace_id)
insert into sync.units (unit_id, tenant_id, lane, provider, next_due_at)
select workspace_id, :tenant, 'sync', 'google', now() - interval '1 second' from w
""")
WAKE = text("update sync.turns set ready_at = least(ready_at, now()) where tenant_id = :tenant and lane = 'sync'")
END = text("""
update sync.units set state = 'idle', lease_until = null, owed = :owed, next_due_at = now() - interval '1 second'
 where unit_id = any(cast(:units as uuid[]))
""")


class House:
    """Claims on real rows; a run is played by ending it."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def tenant(self, name: str, *, due: int, weight: float = 1.0, concurrency: int = 50) -> UUID:
        """A tenant with units that are due."""
        with self.database.transaction() as connection:
            tenant_id = tenants.add_tenant(connection, name=name)
            tenants.set_share(connection, tenant_id=tenant_id, weight=weight, concurrency=concurrency)
            connection.execute(ADD_UNITS, {"tenant": tenant_id, "n": due})
            connection.execute(WAKE, {"tenant": tenant_id})
        return tenant_id

    def claim(self, limit: int) -> list[ClaimedUnit]:
        with self.database.transaction() as connection:
            return units.claim(connection, lane=Lane.SYNC, limit=limit)

    def end(self, claimed: list[ClaimedUnit], *, owed: Mapping[UUID, float] | None = None) -> None:
        """Every run ends, due again at once; `owed` is what a run of a tenant costs beyond a turn."""
        by_tenant: dict[UUID, list[str]] = {}
        for unit in claimed:
            by_tenant.setdefault(unit.tenant_id, []).append(str(unit.unit_id))
        with self.database.transaction() as connection:
            for tenant_id, ids in by_tenant.items():
                listed = "{" + ",".join(ids) + "}"
                connection.execute(END, {"owed": (owed or {}).get(tenant_id, 0.0), "units": listed})

    def rounds(self, count: int, limit: int, *, owed: Mapping[UUID, float] | None = None) -> Counter[UUID]:
        """How many runs each tenant had in so many claims, everything being due all the time."""
        served: Counter[UUID] = Counter()
        for _ in range(count):
            claimed = self.claim(limit)
            served.update(unit.tenant_id for unit in claimed)
            self.end(claimed, owed=owed)
        return served

    def execute(self, statement: str, **parameters: Any) -> None:
        with self.database.transaction() as connection:
            connection.execute(text(statement), parameters)

    def scalar(self, query: str, **parameters: Any) -> Any:
        with self.database.reading() as connection:
            return connection.execute(text(query), parameters).scalar()


def jain(shares: list[float]) -> float:
    """Jain's index of fairness: 1 when all shares are equal, 1/n when one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))
