"""The audit. It asks the provider for everything there is and compares ids and digests with what is stored;
then it compares Postgres with Supabase, row by row and column by column.

What differs at first may only be late. So it asks for one further sync, waits for it and for the mirror,
and compares again: what then still differs, though the provider has not changed it meanwhile, is drift.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import structlog

from config.settings import Settings
from db.repositories import auditing, tenants
from db.repositories.auditing import AuditedCalendar
from db.session import Database
from db.states import AccountState, CalendarState
from tenantsync import clock
from tenantsync.audit.rules import Differences, MirrorDifferences, by_resource, compare_calendar, compare_rows
from tenantsync.calendars.adapters import Adapters
from tenantsync.calendars.logins import Logins
from tenantsync.calendars.provider import ChangesWanted, Listed
from tenantsync.errors import SyncError
from tenantsync.limits.service import Allowance, Allowances, AloneAllowances
from tenantsync.mirror.supabase import MirrorError
from tenantsync.outbound import Meter
from tenantsync.vault import Vault

log = structlog.get_logger(__name__)

LISTINGS_AT_ONCE = 16
WAIT = 60.0  # seconds for the further sync, and again for the mirror
POLL = 0.25  # seconds
ENTITIES = ("accounts", "calendars", "events", "tasks", "processes", "process_events")
LIVE = frozenset({"tasks", "processes", "process_events"})
"""They change while somebody looks; what differs is looked at again before it counts."""
LOOKS = 3

PROVEN, EXPLAINED, UNPROVEN, DRIFTING = "proven", "explained", "unproven", "drifting"


class MirrorReader(Protocol):
    """Supabase's side. Raises MirrorError."""

    def rows(self, entity: str, *, tenant_id: str) -> Iterator[list[dict[str, Any]]]: ...


@dataclass(slots=True)
class CalendarProof:
    """What the audit can say of one calendar."""

    calendar: AuditedCalendar
    tenant: str
    verdict: str = UNPROVEN
    reason: str = ""
    since: datetime | None = None
    """Proven: the moment of the proof. Otherwise: when it was last in step, as far as is known."""
    events: int = 0
    differences: Differences = field(default_factory=Differences)


@dataclass(slots=True)
class TenantProof:
    """Whether Supabase has what Postgres has, for one tenant."""

    tenant_id: UUID
    tenant: str
    differences: MirrorDifferences = field(default_factory=MirrorDifferences)
    parked: int = 0
    failure: str | None = None


@dataclass(slots=True)
class Report:
    calendars: list[CalendarProof]
    tenants: list[TenantProof]
    seconds: float

    @property
    def drift(self) -> int:
        """Resources and rows that remain different after a further sync."""
        return sum(len(one.differences.by_resource) for one in self.calendars if one.verdict == DRIFTING) + sum(
            one.differences.count for one in self.tenants
        )

    @property
    def mirrored(self) -> int:
        return sum(one.differences.rows for one in self.tenants)

    def having(self, verdict: str) -> list[CalendarProof]:
        return [one for one in self.calendars if one.verdict == verdict]


def audit(
    database: Database,
    mirror: MirrorReader,
    settings: Settings,
    *,
    tenant_id: UUID | None = None,
    deadline: float = 120.0,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Prove what can be proven, of one tenant or of all. `deadline`: seconds for listing one calendar."""
    began = clock.monotonic()
    with database.statement() as connection:
        everyone = auditing.all_tenants(connection)
    chosen = [(one, name) for one, name in everyone if tenant_id in (None, one)]
    proofs = _calendars(database, chosen)
    progress(f"listing {len(proofs)} calendars at their providers")
    asyncio.run(_examine(database, settings, proofs, deadline))
    late = [proof for proof in proofs if proof.differences]
    if late:
        progress(f"{len(late)} calendars differ: one further sync")
        since = _sync_again(database, late)
        _examine_again(database, settings, late, deadline, since)
    _await_mirror(database, [one for one, _ in chosen])
    progress(f"comparing {len(chosen)} tenants with Supabase")
    mirrors = [_compare_mirror(database, mirror, one, name) for one, name in chosen]
    return Report(proofs, mirrors, clock.monotonic() - began)


def _calendars(database: Database, chosen: list[tuple[UUID, str]]) -> list[CalendarProof]:
    with database.statement() as connection:
        return [
            CalendarProof(calendar, name)
            for tenant, name in chosen
            for calendar in auditing.calendars(connection, tenant_id=tenant)
        ]


async def _examine(database: Database, settings: Settings, proofs: list[CalendarProof], deadline: float) -> None:
    adapters = await Adapters.open(settings)
    logins = Logins(Vault(settings.encryption_keys), adapters)
    gate = asyncio.Semaphore(LISTINGS_AT_ONCE)
    try:
        async with AloneAllowances(settings, database, purpose="audit") as allowances:

            async def one(proof: CalendarProof) -> None:
                async with gate:
                    meter = Meter(_allowance(allowances, proof.calendar, deadline))
                    await _prove(database, adapters, logins, proof, deadline, meter)

            await asyncio.gather(*(one(proof) for proof in proofs))
    finally:
        await adapters.close()


def _allowance(allowances: Allowances, calendar: AuditedCalendar, deadline: float) -> Allowance:
    """As much of the budgets as polls get, or busy ones would leave it none; waited for as long as it may take."""
    return allowances.of(
        provider=calendar.provider,
        identity=calendar.identity,
        bulk=False,
        deadline=clock.monotonic() + deadline,
        patience=deadline,
    )


async def _prove(
    database: Database, adapters: Adapters, logins: Logins, proof: CalendarProof, deadline: float, meter: Meter
) -> None:
    """Set the proof's verdict: a first one, while differences may still be lateness."""
    calendar = proof.calendar
    proof.since, proof.differences = calendar.last_success_at, Differences()
    if calendar.account_state != AccountState.CONNECTED:
        proof.verdict, proof.reason = UNPROVEN, calendar.account_state
        return
    try:
        async with asyncio.timeout(deadline):
            listed = await _list(adapters, logins, calendar, meter)
    except SyncError as error:
        proof.verdict, proof.reason = UNPROVEN, f"unreachable ({error.reason})"
        return
    except TimeoutError:
        proof.verdict, proof.reason = UNPROVEN, "unreachable (deadline)"
        return
    await asyncio.to_thread(_compare, database, proof, listed)


def _compare(database: Database, proof: CalendarProof, listed: dict[str, Listed]) -> None:
    calendar = proof.calendar
    about = {"tenant_id": calendar.tenant_id, "calendar_id": calendar.calendar_id}
    with database.statement() as connection:
        stored = by_resource(auditing.stored(connection, **about))
        aside = auditing.set_aside(connection, **about)
    differences = compare_calendar(listed, stored)
    proof.events = len(stored)
    unexplained = {name: was for name, was in differences.by_resource.items() if name not in aside}
    proof.differences = Differences(unexplained)
    if unexplained and calendar.state == CalendarState.CONFIRMING:
        proof.verdict, proof.reason, proof.differences = EXPLAINED, "awaiting confirmation", Differences()
    elif unexplained:
        proof.verdict, proof.reason = DRIFTING, f"{len(unexplained)} resources differ"
    elif differences:
        proof.verdict, proof.reason, proof.since = EXPLAINED, f"{len(differences.by_resource)} set aside", clock.now()
    else:
        proof.verdict, proof.reason, proof.since = PROVEN, "", clock.now()


async def _list(adapters: Adapters, logins: Logins, calendar: AuditedCalendar, meter: Meter) -> dict[str, Listed]:
    async def nothing_known(_: Any) -> dict[str, str | None]:
        return {}

    provider = adapters.provider(calendar.provider)
    wanted = ChangesWanted(
        provider_key=calendar.provider_key,
        endpoint=calendar.endpoint,
        cursor=None,
        event_count=0,
        known=nothing_known,
    )
    return {one.resource: one async for one in provider.audit(logins.open(calendar), wanted, meter)}


def _sync_again(database: Database, late: list[CalendarProof]) -> datetime:
    """Ask for one further sync of the units concerned, and wait until it has been. Returns when it was asked for."""
    workspaces = {(proof.calendar.tenant_id, proof.calendar.workspace_id) for proof in late}
    with database.transaction() as connection:
        since = tenants.moment(connection)
        for tenant_id, workspace_id in sorted(workspaces):
            tenants.want_sync(connection, tenant_id=tenant_id, workspace_id=workspace_id)

    def synced() -> bool:
        with database.statement() as connection:
            return not any(
                tenants.unsynced(connection, tenant_id=tenant_id, workspace_id=workspace_id, since=since)
                for tenant_id, workspace_id in workspaces
            )

    _wait(synced)
    return since


def _examine_again(
    database: Database, settings: Settings, late: list[CalendarProof], deadline: float, since: datetime
) -> None:
    first = {proof.calendar.calendar_id: proof.differences for proof in late}
    now = {
        proof.calendar.calendar_id: proof.calendar
        for proof in _calendars(database, sorted({(one.calendar.tenant_id, one.tenant) for one in late}))
    }
    for proof in late:
        proof.calendar = now.get(proof.calendar.calendar_id, proof.calendar)
    asyncio.run(_examine(database, settings, late, deadline))
    for proof in late:
        synced = proof.calendar.last_success_at
        if proof.verdict == DRIFTING and (synced is None or synced < since):
            why = proof.calendar.last_error or "no worker took it up"
            proof.verdict, proof.reason = UNPROVEN, f"the further sync did not succeed ({why})"
        elif proof.verdict == DRIFTING:
            proof.differences = proof.differences.persisting(first[proof.calendar.calendar_id])
            if not proof.differences:
                proof.verdict, proof.reason = EXPLAINED, "changed while it was audited"
            else:
                proof.reason = f"{len(proof.differences.by_resource)} resources differ after a further sync"


def _await_mirror(database: Database, chosen: list[UUID]) -> None:
    def drained() -> bool:
        with database.statement() as connection:
            return not any(auditing.unsent(connection, tenant_id=tenant_id) for tenant_id in chosen)

    _wait(drained)


def _wait(condition: Callable[[], bool]) -> None:
    ends = clock.monotonic() + WAIT
    while not condition() and clock.monotonic() < ends:
        time.sleep(POLL)


def _compare_mirror(database: Database, mirror: MirrorReader, tenant_id: UUID, name: str) -> TenantProof:
    proof = TenantProof(tenant_id, name)
    try:
        for entity in ENTITIES:
            _compare_entity(database, mirror, proof, entity)
    except MirrorError as error:
        proof.failure = error.reason
    return proof


def _compare_entity(database: Database, mirror: MirrorReader, proof: TenantProof, entity: str) -> None:
    refused, found = _look(database, mirror, proof.tenant_id, entity)
    for _ in range(LOOKS - 1 if entity in LIVE else 0):
        if not found:
            break
        _await_mirror(database, [proof.tenant_id])
        refused, again = _look(database, mirror, proof.tenant_id, entity)
        found = again.persisting(found)
    total = proof.differences
    total.rows += found.rows
    total.missing += found.missing
    total.surplus += found.surplus
    total.differing |= found.differing
    proof.parked += refused


def _look(database: Database, mirror: MirrorReader, tenant_id: UUID, entity: str) -> tuple[int, MirrorDifferences]:
    """(rows that Supabase refused, where the two sides differ otherwise)."""
    theirs = (row for page in mirror.rows(entity, tenant_id=str(tenant_id)) for row in page)
    with database.statement() as connection:
        refused = auditing.parked(connection, tenant_id=tenant_id, entity=entity)
        found = compare_rows(auditing.expected_rows(connection, tenant_id=tenant_id, entity=entity), theirs)
    found.missing = [row for row in found.missing if row.partition("/")[0] not in refused]
    found.differing = {row: column for row, column in found.differing.items() if row not in refused}
    if entity == "tasks":
        found.surplus = []  # asked for and not taken in yet, or kept by their web app longer than by us
    return len(refused), found
