"""What a sync writes of a tenant, as one value that can be compared."""

from dataclasses import dataclass

from tests.support.fleet import Fleet, TenantHandle

OUTBOX = """
select coalesce(e.provider_key, t.provider_key, o.row_id::text) as provider_key
  from mirror.outbox o
  left join sync.events e on e.event_id = o.row_id and e.version = o.version
  left join sync.tombstones t on t.event_id = o.row_id and t.version = o.version
 where o.tenant_id = :tenant and o.entity = 'events'
"""
RUNS = """
select count(*) as runs from worker.tasks
 where tenant_id = :tenant and kind = 'sync.unit' and status = 'completed'
"""
STEPS = "select count(*) as steps from worker.execution_logs where tenant_id = :tenant"


@dataclass(frozen=True, slots=True)
class Stored:
    """Ids and versions differ from run to run, so rows go by the provider's key."""

    titles: frozenset[tuple[str, str]]
    tombstones: frozenset[str]
    outbox: frozenset[str]
    """Keys that wait for Supabase at the version that the row has."""
    cursor: str | None
    event_count: int
    runs: int
    """Runs that the ledger calls completed; a failure that is recorded has written nothing else."""
    steps: int
    changed_runs: int

    def same_but_for_the_cursor(self, other: "Stored") -> bool:
        """Cursors are the provider's words; two for the same moment may differ."""
        return self.without_cursor() == other.without_cursor()

    def all_or_nothing(self, *, before: "Stored", whole: "Stored") -> bool:
        """Whether a run left everything that it was to write, or nothing; `whole` is what another one wrote."""
        moved = self.cursor != before.cursor
        return self == before or (moved and self.same_but_for_the_cursor(whole))

    def without_cursor(self) -> tuple[object, ...]:
        return (
            self.titles,
            self.tombstones,
            self.outbox,
            self.event_count,
            self.runs,
            self.steps,
            self.changed_runs,
        )


def stored(fleet: Fleet, tenant: TenantHandle) -> Stored:
    """Everything that a changed run writes of a tenant with one calendar."""
    calendar = fleet.calendar(tenant)
    return Stored(
        titles=frozenset((key, row["title"]) for key, row in fleet.events(tenant).items()),
        tombstones=frozenset(fleet.tombstones(tenant)),
        outbox=frozenset(row["provider_key"] for row in fleet.rows(OUTBOX, tenant=tenant.tenant_id)),
        cursor=calendar["cursor"],
        event_count=calendar["event_count"],
        runs=fleet.one(RUNS, tenant=tenant.tenant_id)["runs"],
        steps=fleet.one(STEPS, tenant=tenant.tenant_id)["steps"],
        changed_runs=fleet.unit(tenant)["changed_runs"],
    )
