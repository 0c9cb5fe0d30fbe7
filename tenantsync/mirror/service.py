"""Draining the outbox: lease tenants, read what their rows are now, send, forget what was sent.

No transaction is open while Supabase is called. A call whose answer is lost is sent again; versions make
that harmless. A row that Supabase refuses is parked and holds up nobody else. Before each call the sender
makes sure that the tenants are still its own.

Events of processes travel a stretch at a time: what follows right after what Supabase has. A process is in one call
at a time, a tenant has one sender, and nothing is sent past a refused event, so they arrive in order.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

import orjson
import structlog
from sqlalchemy import Connection

from db.racepoints import reach
from db.repositories import deliveries, mirroring, scopes
from db.repositories.mirroring import Key
from db.session import Database
from tenantsync import clock
from tenantsync.mirror import parcels
from tenantsync.mirror.holding import Holding
from tenantsync.mirror.parcels import PROCESS_EVENTS, Row
from tenantsync.mirror.supabase import MirrorError, MirrorMisconfigured, MirrorTooLarge, MirrorUnavailable, Rejected

log = structlog.get_logger(__name__)

TENANTS_AT_ONCE = 200
CALLS_AT_ONCE = 3
"""While Supabase works on one call, the rows of the next are read and written as JSON. No two share a key."""
PAUSE = 5.0  # seconds without another call after a failure that names no time
OPERATOR_PAUSE = 30.0  # seconds, after a failure that only an operator can mend
SCOPE = ("provider", "supabase")
ORDER = ("tasks", "processes", PROCESS_EVENTS, "accounts", "calendars", "events")
"""Of what is taken at once: somebody is watching the first three."""
TARGET = "supabase"


class Target(Protocol):
    """Where rows go. Raises MirrorError."""

    def apply(self, entity: str, rows: Sequence[dict[str, Any]]) -> list[Rejected]: ...


class TenantsLost(Exception):
    """Another sender has taken tenants whose rows were about to be sent."""


@dataclass(slots=True)
class Drained:
    """What a drain did."""

    sent: int = 0
    parked: int = 0
    failure: str | None = None
    seconds: float = 0.0
    by_entity: dict[str, int] = field(default_factory=lambda: defaultdict(int))


def drain(database: Database, target: Target, *, batch_size: int, budget: float) -> Drained:
    """Send until nothing is left, Supabase fails, or `budget` seconds have passed."""
    began, result = clock.monotonic(), Drained()
    with database.statement() as connection:
        if scopes.open_again_in(connection, *SCOPE) is not None:
            return result
    with ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="mirror") as threads:
        sender = _Sender(database, target, threads, batch_size, result)
        while clock.monotonic() - began < budget and result.failure is None:
            holding = Holding(database, limit=TENANTS_AT_ONCE)
            if not holding:
                break
            with holding:
                sender.drain(holding, until=began + budget)
    result.seconds = clock.monotonic() - began
    return result


@dataclass(slots=True)
class _Sender:
    """What the calls of a drain share. The first goes alone, so that a Supabase in trouble hears of one and no more."""

    database: Database
    target: Target
    threads: ThreadPoolExecutor
    batch_size: int
    result: Drained
    width: int = 1
    """Calls at once."""

    def drain(self, holding: Holding, *, until: float) -> None:
        """Send what leased tenants have, those of them that are lost on the way excepted."""
        try:
            while clock.monotonic() < until and (tenants := holding.tenants):
                with self.database.statement() as connection:
                    keys = mirroring.take_keys(connection, tenants=tenants, limit=self.width * self.batch_size)
                if not keys:
                    break
                self._send(holding, keys)
                self.width = CALLS_AT_ONCE
        except MirrorError as error:
            holding.pause = timedelta(seconds=_close(self.database, error))
            self.result.failure = error.reason

    def _send(self, holding: Holding, keys: Sequence[Key]) -> None:
        for entity in ORDER:
            wanted = [key for key in keys if key.entity == entity]
            parts = [wanted[start : start + self.batch_size] for start in range(0, len(wanted), self.batch_size)]
            calls = [self.threads.submit(self._send_part, holding, entity, part) for part in parts]
            wait(calls)  # nothing of a tenant is under way when it is given back
            for sent, parked in (call.result() for call in calls if call.exception() is None):
                self.result.sent += sent
                self.result.parked += parked
                self.result.by_entity[entity] += sent
            for call in calls:
                call.result()  # raises what went wrong with one, once the others are counted

    def _send_part(self, holding: Holding, entity: str, keys: Sequence[Key]) -> tuple[int, int]:
        """One call's worth: (rows sent, rows parked)."""
        with self.database.statement() as connection:
            if entity == PROCESS_EVENTS:
                rows = deliveries.undelivered(connection, keys=keys, limit=self.batch_size)
            else:
                rows = mirroring.read_rows(connection, entity=entity, keys=keys)
        reach("outbox.rows_read", entity=entity, keys=keys, rows=rows)
        travelling = parcels.travelling(entity, rows)
        try:
            rejected = self._apply(holding, entity, travelling)
        except TenantsLost:
            return 0, 0  # the keys stay in the outbox: whoever has the tenants now sends them
        except MirrorError:
            if entity == PROCESS_EVENTS:
                _tell_undelivered(self.database, travelling)
            raise
        reach("outbox.sent", entity=entity, rows=rows)
        return _settle(self.database, entity, keys, rows, rejected)

    def _too_large(self, entity: str, row: dict[str, Any]) -> Rejected:
        """The refusal of a row that is too large by itself. Raises MirrorUnavailable where nothing is small enough."""
        try:
            self.target.apply(entity, [])
        except MirrorTooLarge:
            raise MirrorUnavailable("http_413", "Supabase or its proxy refuses even an empty call") from None
        return Rejected(str(row["id"]), "413")

    def _apply(self, holding: Holding, entity: str, rows: Sequence[dict[str, Any]]) -> list[Rejected]:
        if not rows:
            return []
        tenants = {UUID(row["tenant_id"]) for row in rows}
        if holding.ours(tenants) != tenants:
            raise TenantsLost
        try:
            return self.target.apply(entity, rows)
        except MirrorTooLarge:
            if len(rows) == 1:
                return [self._too_large(entity, rows[0])]
        half = len(rows) // 2
        rejected = self._apply(holding, entity, rows[:half])
        return rejected + self._apply(holding, entity, parcels.unstopped(rows[half:], rows[:half], rejected))


def _close(database: Database, error: MirrorError) -> float:
    """Close Supabase for everybody until it is worth another try; returns the seconds."""
    needed = isinstance(error, MirrorMisconfigured)
    pause = error.pause or (OPERATOR_PAUSE if needed else PAUSE)
    log.log(40 if needed else 30, "mirror_failed", reason=error.reason, detail=error.detail, pause=pause)
    scope, scope_id = SCOPE
    with database.statement() as connection:
        scopes.close(connection, [{"scope": scope, "scope_id": scope_id, "seconds": pause, "reason": error.reason}])
    return pause


def _settle(
    database: Database, entity: str, keys: Sequence[Key], rows: Sequence[Row], rejected: Sequence[Rejected]
) -> tuple[int, int]:
    """Forget what arrived and what no longer exists; put aside what was refused. Returns the numbers of both."""
    settle = _settle_process_events if entity == PROCESS_EVENTS else _settle_rows
    with database.transaction() as connection:
        settled = settle(connection, entity, keys, rows, rejected)
        if settled.parked:
            mirroring.park(connection, settled.parked)
    reach("outbox.acknowledged", entity=entity, rows=settled.acknowledged)
    if settled.parked:
        sqlstates = sorted({one["sqlstate"] for one in settled.parked})
        log.warning("rows_parked", rows=len(settled.parked), sqlstates=sqlstates)
    return settled.arrived, len(settled.parked)


@dataclass(frozen=True, slots=True)
class _Settled:
    arrived: int
    acknowledged: Sequence[Any]
    parked: Sequence[Row]


def _settle_rows(
    connection: Connection, entity: str, keys: Iterable[Key], rows: Sequence[Row], rejected: Sequence[Rejected]
) -> _Settled:
    versions = {row["id"]: int(row["version"]) for row in rows}
    refused = parcels.refusals(entity, rows, rejected)
    sent, parked = [], []
    for key in keys:
        row_id = str(key.row_id)
        about = {"tenant_id": key.tenant_id, "entity": entity, "row_id": row_id}
        # A key whose row is gone altogether (its tombstone was cleaned away) has nothing left to say, unless
        # the row comes back meanwhile, which is a newer version.
        about["version"] = versions.get(row_id, key.version)
        sent.append(about)
        if row_id in refused:
            parked.append({**about, "sqlstate": refused[row_id], "reason": "Supabase refuses the row"})
    mirroring.acknowledge(connection, sent)
    return _Settled(len(rows) - len(rejected), sent, parked)


def _settle_process_events(
    connection: Connection, _: str, keys: Iterable[Key], rows: Sequence[Row], rejected: Sequence[Rejected]
) -> _Settled:
    told = parcels.settled(keys, rows, rejected)
    arrived = parcels.arrived(rows, told)
    deliveries.settle(connection, told)
    events = parcels.travelling(PROCESS_EVENTS, rows)
    if events:
        deliveries.record(
            connection,
            target=TARGET,
            events=len(arrived),
            failed=len(events) - len(arrived),
            size=len(orjson.dumps(events)),
            created=[event["created_at"] for event in arrived],
        )
    return _Settled(len(arrived), [one for one in told if not one.held], parcels.parked(told))


def _tell_undelivered(database: Database, events: Sequence[Row]) -> None:
    """Write down that a call with events failed as a whole."""
    with database.statement() as connection:
        size = len(orjson.dumps(events))
        deliveries.record(connection, target=TARGET, events=0, failed=len(events), size=size, created=[])
