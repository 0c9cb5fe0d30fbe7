"""Tenants and questions for tests that run in a world of real processes."""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from db.repositories import tenants
from sandbox.google.control import GoogleControl
from sandbox.servers.process import wait_until
from sandbox.world import World
from tenantsync.calendars import connecting

PATIENCE = 60.0  # seconds; conditions are met much earlier, unless the rule is broken or the machine is very busy


@dataclass(frozen=True, slots=True)
class Tenant:
    tenant_id: UUID
    email: str


def add_tenant(world: World, google: GoogleControl, *, events: int = 3) -> Tenant:
    """A tenant with one Google account of one small calendar."""
    name = f"t{uuid.uuid4().hex[:8]}"
    email = f"{name}@example.test"
    with world.database.transaction() as connection:
        tenant_id = tenants.add_tenant(connection, name=name)
        workspace_id = tenants.add_workspace(connection, tenant_id=tenant_id, name="office")
    account = google.create_account(email)
    for number in range(events):
        google.insert(email, email, event(f"meeting {number}"))
    connecting.connect(
        world.database,
        world.settings,
        tenant_id=tenant_id,
        workspace_id=workspace_id,
        provider="google",
        address=None,
        credentials=json.dumps({"refresh_token": account.refresh_token}),
    )
    return Tenant(tenant_id, email)


def event(title: str) -> dict[str, Any]:
    return {
        "summary": title,
        "start": {"dateTime": "2026-12-01T10:00:00+01:00", "timeZone": "Europe/Berlin"},
        "end": {"dateTime": "2026-12-01T11:00:00+01:00", "timeZone": "Europe/Berlin"},
    }


def ask(world: World, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Rows of a query on the worker database."""
    with world.database.reading() as connection:
        return [tuple(row) for row in connection.execute(text(query), parameters)]


def titles(world: World, tenant: Tenant) -> set[str]:
    """Titles of a tenant's events in Postgres."""
    rows = ask(world, "select title from sync.events where tenant_id = :tenant", tenant=tenant.tenant_id)
    return {row[0] for row in rows}


def mirrored_titles(world: World, tenant: Tenant) -> set[str]:
    """Titles of a tenant's events at Supabase."""
    with world.postgres.connect("supabase") as connection, connection.cursor() as cursor:
        cursor.execute(
            "select title from calendar_events where tenant_id = %s and deleted_at is null", (str(tenant.tenant_id),)
        )
        return {row[0] for row in cursor.fetchall()}


def eventually(condition: Callable[[], bool], what: str, *, timeout: float = PATIENCE) -> None:
    """Wait for a condition; fails with `what` when it does not come true."""
    wait_until(condition, timeout=timeout, what=what)
