"""The product in this process: real Postgres, real runs, no Celery. Tests say when something is due."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from config.queues import Lane
from config.settings import Settings, load_settings
from db.ids import new_id
from db.repositories import ledger, tenants, units
from db.repositories.units import ClaimedUnit
from db.session import Database
from sandbox.google.control import GoogleControl
from sandbox.google.specs import AccountInfo
from sandbox.servers.radicale import Radicale
from tenantsync.calendars import connecting
from tenantsync.calendars.runner import Runner
from tenantsync.dispatching import rules
from tenantsync.limits.service import Limits

KEY = base64.urlsafe_b64encode(b"k" * 32).decode()
LANES = (Lane.QUARANTINE, Lane.ISOLATED, Lane.BULK, Lane.SYNC)

Row = Mapping[str, Any]


def make_settings(database_url: str, **overrides: object) -> Settings:
    """Settings for a test; field names in lower case override."""
    values: dict[str, object] = {
        "database_url": database_url,
        "redis_url": "redis://127.0.0.1:1/0",
        "supabase_url": "http://127.0.0.1:1",
        "supabase_secret_key": "sb_secret_test",
        "encryption_keys": f"1:{KEY}",
        "google_client_id": "stand-in-client",
        "google_client_secret": "stand-in-secret",
        "outbound_allowed_networks": "127.0.0.0/8",
        # Tests of limits set their own; the others must not wait for any.
        "google_quota_per_minute": 10_000_000,
        "google_user_quota_per_minute": 1_000_000,
        "caldav_server_quota_per_minute": 1_000_000,
        "caldav_server_concurrency": 1_000,
    }
    return load_settings(_env_file=None, **(values | overrides))


@dataclass(frozen=True, slots=True)
class TenantHandle:
    tenant_id: UUID
    workspace_id: UUID
    name: str


class Fleet:
    """One worker's worth of product. `run` does what is due; `sync` makes it due first."""

    def __init__(
        self, database: Database, settings: Settings, *, worker: str = "worker-1", limits: Limits | None = None
    ) -> None:
        self.database = database
        self.settings = settings
        self.runner = Runner(settings, database, worker=worker, limits=limits)
        self._names = 0

    def close(self) -> None:
        self.runner.close(0.0)

    # Population

    def tenant(self, name: str | None = None) -> TenantHandle:
        """A tenant with one workspace."""
        self._names += 1
        chosen = name or f"tenant-{self._names}"
        with self.database.transaction() as connection:
            tenant_id = tenants.add_tenant(connection, name=chosen)
            workspace_id = tenants.add_workspace(connection, tenant_id=tenant_id, name="office")
        return TenantHandle(tenant_id, workspace_id, chosen)

    def google(
        self, tenant: TenantHandle, google: GoogleControl, email: str = "ann@example.test", **options: Any
    ) -> AccountInfo:
        """Connect a Google account; it is made at the stand-in unless `account` brings one."""
        account: AccountInfo = options.pop("account", None) or google.create_account(email)
        self._connect(tenant, "google", None, {"refresh_token": account.refresh_token}, options.pop("only", ()))
        return account

    def caldav(self, tenant: TenantHandle, server: Radicale, user: str, *, url: str | None = None) -> None:
        """Connect a CalDAV account of an existing user."""
        password = server.add_user(user)
        self._connect(tenant, "caldav", url or server.url, {"username": user, "password": password}, ())

    def _connect(
        self,
        tenant: TenantHandle,
        provider: str,
        address: str | None,
        credentials: Mapping[str, str],
        only: Sequence[str],
    ) -> None:
        connecting.connect(
            self.database,
            self.settings,
            tenant_id=tenant.tenant_id,
            workspace_id=tenant.workspace_id,
            provider=provider,
            address=address,
            credentials=json.dumps(credentials),
            only=tuple(only),
        )

    # Running

    def due(self, tenant: TenantHandle | None = None) -> None:
        """Make every calendar (of one tenant) due now, whatever its backoff."""
        chosen = [tenant.tenant_id] if tenant else [row["tenant_id"] for row in self.rows("select * from sync.tenants")]
        with self.database.transaction() as connection:
            for tenant_id in chosen:
                tenants.want_sync(connection, tenant_id=tenant_id, workspace_id=None)

    def run(self, *, rounds: int = 10) -> int:
        """Claim and run what is due, lane by lane, until nothing is; returns the number of unit runs."""
        total = 0
        for _ in range(rounds):
            ran = sum(self.run_lane(lane) for lane in LANES)
            if not ran:
                return total
            total += ran
        return total

    def run_lane(self, lane: Lane) -> int:
        claimed = self.claim(lane)
        for part in rules.cut(lane, claimed, 1, self.settings.worker_batch_size):
            self.run_batch(lane, part)
        return len(claimed)

    def sync(self, tenant: TenantHandle | None = None) -> int:
        """One more sync of everything (of one tenant)."""
        self.due(tenant)
        return self.run()

    def claim(self, lane: Lane, limit: int = 1000) -> list[ClaimedUnit]:
        with self.database.transaction() as connection:
            return units.claim(connection, lane=lane, limit=limit)

    def run_batch(self, lane: Lane, claimed: Iterable[ClaimedUnit]) -> Mapping[str, int]:
        pairs = [(unit.unit_id, unit.fence) for unit in claimed]
        batch_id = new_id()
        with self.database.transaction() as connection:
            ledger.open_batches(connection, lane=lane, sizes=[(batch_id, len(pairs))])
        return self.runner.run_batch(batch_id, lane, pairs)

    # Looking

    def rows(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        with self.database.reading() as connection:
            return [dict(row) for row in connection.execute(text(query), parameters).mappings()]

    def one(self, query: str, **parameters: Any) -> dict[str, Any]:
        (row,) = self.rows(query, **parameters)
        return row

    def execute(self, statement: str, **parameters: Any) -> None:
        with self.database.transaction() as connection:
            connection.execute(text(statement), parameters)

    def calendar(self, tenant: TenantHandle, key: str | None = None) -> dict[str, Any]:
        """The tenant's only calendar, or the one with this provider key."""
        return self.one(
            "select * from sync.calendars where tenant_id = :tenant"
            " and (cast(:key as text) is null or provider_key = :key)",
            tenant=tenant.tenant_id,
            key=key,
        )

    def account(self, tenant: TenantHandle) -> dict[str, Any]:
        return self.one("select * from sync.accounts where tenant_id = :tenant", tenant=tenant.tenant_id)

    def unit(self, tenant: TenantHandle) -> dict[str, Any]:
        return self.one("select * from sync.units where tenant_id = :tenant", tenant=tenant.tenant_id)

    def events(self, tenant: TenantHandle, key: str | None = None) -> dict[str, dict[str, Any]]:
        """Every stored event by provider key, of one calendar or of all."""
        found = self.rows(
            """
            select e.* from sync.events e join sync.calendars c using (tenant_id, calendar_id)
             where e.tenant_id = :tenant and (cast(:key as text) is null or c.provider_key = :key)
            """,
            tenant=tenant.tenant_id,
            key=key,
        )
        return {row["provider_key"]: row for row in found}

    def visible(self, tenant: TenantHandle, key: str | None = None) -> set[str]:
        """Provider keys of events that a person would see."""
        return {name for name, row in self.events(tenant, key).items() if row["status"] != "cancelled"}

    def tombstones(self, tenant: TenantHandle) -> dict[str, dict[str, Any]]:
        found = self.rows("select * from sync.tombstones where tenant_id = :tenant", tenant=tenant.tenant_id)
        return {row["provider_key"]: row for row in found}

    def set_aside(self, tenant: TenantHandle) -> dict[str, str]:
        """Resources that could not be events, with their reasons."""
        found = self.rows("select * from sync.quarantined_items where tenant_id = :tenant", tenant=tenant.tenant_id)
        return {row["resource"]: row["reason"] for row in found}

    def outbox(self, tenant: TenantHandle, entity: str = "events") -> dict[UUID, int]:
        """Row ids that wait for Supabase, with their versions."""
        found = self.rows(
            "select row_id, version from mirror.outbox where tenant_id = :tenant and entity = :entity",
            tenant=tenant.tenant_id,
            entity=entity,
        )
        return {row["row_id"]: row["version"] for row in found}

    def clear_outbox(self) -> None:
        self.execute("delete from mirror.outbox")


def events_equal_truth(fleet: Fleet, tenant: TenantHandle, google: GoogleControl, account: str, calendar: str) -> None:
    """Assert that what a person would see here is what the stand-in has, to the last byte of raw data."""
    truth = {event["id"]: event for event in google.truth(account, calendar) if event["status"] != "cancelled"}
    stored = {key: row["raw"] for key, row in fleet.events(tenant, calendar).items() if row["status"] != "cancelled"}
    assert stored == truth
