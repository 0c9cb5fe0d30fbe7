"""What the API tells of tenants, their runs, and of what was put aside."""

from typing import Any
from uuid import UUID

from pydantic import Field

from db.repositories.tenant_lists import TenantLine
from tenantsync.dispatching import steering
from tenantsync.web.fields import Body, Id, Line, Moment, Shown


class Tenant(Shown):
    """A tenant at a glance."""

    tenant_id: UUID
    name: str
    paused: bool
    pause_reason: str | None
    isolated_until: Moment | None
    weight: float
    created_at: Moment
    units: int
    parked: int = Field(description="Units that wait for a person")
    in_flight: int
    accounts: int
    broken: int = Field(description="Accounts that have to be connected again, or cannot work")
    calendars: int
    failing: int
    events: int
    stalest: float | None = Field(description="Seconds since the last success of the calendar that waits longest")

    @classmethod
    def of(cls, row: TenantLine) -> "Tenant":
        return cls.model_validate(row)


class Share(Shown):
    """A tenant's part of what there is to share."""

    weight: float = Field(description="Where not everybody can be served at once; 1 is usual")
    concurrency: int = Field(description="Units that may run at once in each lane")


class TenantChange(Body):
    """What is to be different; one of the two at least."""

    weight: float | None = Field(None, ge=steering.LIGHTEST, le=steering.HEAVIEST)
    concurrency: int | None = Field(None, ge=1, le=steering.WIDEST)


class Reason(Body):
    """Why, for whoever looks later."""

    reason: Line = Field("", max_length=steering.LONGEST_REASON)


class Paused(Shown):
    """Whether a tenant is paused now, and whether that is new."""

    paused: bool
    changed: bool


class Due(Shown):
    """What became due."""

    calendars: int
    units: int


class Account(Shown):
    """Credentials at a provider; they themselves are never shown."""

    account_id: UUID
    workspace_id: UUID
    workspace: str
    provider: str
    identity: str
    state: str
    state_reason: str | None
    state_since: Moment
    calendars: int
    process_id: UUID | None = Field(description="The process that asks for a reconnection")


class Calendar(Shown):
    """One remote calendar."""

    calendar_id: UUID
    workspace_id: UUID
    account_id: UUID
    provider: str
    name: str
    time_zone: str | None
    state: str
    state_reason: str | None
    failures: int
    last_error: str | None
    last_success_at: Moment | None
    last_attempt_at: Moment | None
    next_due_at: Moment | None = Field(description="null: never")
    event_count: int
    runs: int
    api_calls: int
    saved_calls: int


class Unit(Shown):
    """A workspace as a unit of work."""

    unit_id: UUID
    workspace: str
    lane: str
    state: str
    provider: str | None
    calendars: int
    next_due_at: Moment | None = Field(description="null: not by itself")
    lease_until: Moment | None
    worker_id: str | None
    parked_reason: str | None
    parked_at: Moment | None
    quiet_runs: int
    changed_runs: int
    failed_runs: int


class Link(Shown):
    """One thing to know about why a unit does not run."""

    kind: str
    text: str
    until: Moment | None


class Explained(Shown):
    """What holds a unit."""

    unit_id: UUID
    workspace: str
    state: str
    lane: str
    runs_at: Moment | None = Field(description="An estimate; null where that is up to somebody")
    lost: bool = Field(description="Nothing declares why it is not on its way")
    chain: list[Link]


class Step(Shown):
    """What was done, with its milliseconds."""

    step_name: str
    execution_time: int | None
    success: bool | None
    details: Any
    logged_at: Moment


class Run(Shown):
    """One attempt at a unit's work that changed something or failed."""

    id: UUID
    tenant_id: UUID | None
    unit_id: UUID | None
    workspace: str | None
    kind: str
    status: str
    worker_id: str | None
    started_at: Moment | None
    completed_at: Moment | None
    seconds: float | None
    result: Any = Field(description="What changed, calls and bytes")
    error_log: str | None


class RunWithSteps(Run):
    """The same with its steps."""

    steps: list[Step]


class ParkedUnit(Shown):
    """A unit that killed its worker again and again while it ran alone."""

    unit_id: UUID
    tenant_id: UUID
    tenant: str
    workspace: str
    parked_reason: str | None
    parked_at: Moment | None
    tried_again_at: Moment | None = Field(description="null: not before a person has it retried")


class ParkedRow(Shown):
    """A row that Supabase refused."""

    tenant_id: UUID
    tenant: str
    entity: str
    row_id: UUID
    version: int
    sqlstate: str | None
    reason: str
    parked_at: Moment


class RowsNamed(Body):
    """Which rows are meant: of a tenant, of an entity of it, or one. Operators may name none, which means all."""

    tenant_id: Id | None = None
    entity: str | None = Field(None, pattern="^(accounts|calendars|events|tasks|processes|process_events)$")
    row_id: Id | None = None


class Handled(Shown):
    """How many were meant."""

    rows: int
