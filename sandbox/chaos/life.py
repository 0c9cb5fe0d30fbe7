"""What goes on while the storm rages: people edit, tenants come and go, one is paused now and then."""

from __future__ import annotations

import json
import random
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Self
from uuid import UUID

import httpx
from sqlalchemy.exc import SQLAlchemyError

from db.repositories import tenants
from sandbox.chaos.population import DOMAIN, Population
from sandbox.chaos.world import StormWorld
from sandbox.gardener import Gardener
from sandbox.google.control import ControlRefusedError, GoogleControl
from sandbox.google.specs import SeedSpec
from tenantsync.calendars import connecting
from tenantsync.dispatching import pausing
from tenantsync.errors import SyncError

EDITS = 12.0  # a second
COMINGS = 4.0  # seconds between two changes among the guests
GUESTS = 4  # at a time
GUEST_EVENTS = 5
OUTAGES = (SQLAlchemyError, SyncError, httpx.HTTPError, ControlRefusedError)


@dataclass(slots=True)
class Guest:
    """A tenant that comes, is paused for a while, gets a second workspace, and leaves again."""

    tenant_id: UUID
    name: str
    account: UUID
    paused: bool = False


class Life:
    """Edits and comings and goings, from entering to leaving the block."""

    def __init__(self, world: StormWorld, population: Population, *, seed: int) -> None:
        self._world = world
        self._rng = random.Random(seed)
        self._gardener = Gardener(world, population.planted, edits_per_second=EDITS, seed=seed)
        self._guests: list[Guest] = []
        self._came = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, name="comings-and-goings", daemon=True)
        self._stack = ExitStack()
        self.changes = 0
        """Tenants and workspaces that came, accounts removed, pauses and resumptions."""

    @property
    def edits(self) -> int:
        return self._gardener.edits

    def __enter__(self) -> Self:
        self._stack.enter_context(self._gardener)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        self._stack.close()
        for guest in self._guests:
            with suppress(*OUTAGES):
                if guest.paused:
                    pausing.resume(self._world.database, tenant_id=guest.tenant_id)

    def excused(self) -> frozenset[str]:
        """Units of guests: paused and removed as they are, nobody expects them to run again in time."""
        rows = self._world.ask(
            "select u.unit_id::text from sync.units u join sync.tenants t using (tenant_id) where t.name like %s",
            "guest-%",
        )
        return frozenset(row[0] for row in rows)

    def _live(self) -> None:
        with self._world.google.control() as google:
            while not self._stop.wait(COMINGS):
                with suppress(*OUTAGES):
                    self._change(google)
                    self.changes += 1

    def _change(self, google: GoogleControl) -> None:
        if len(self._guests) < GUESTS:
            self._come(google)
            return
        what = self._rng.choice((self._leave, self._pause_or_resume, self._pause_or_resume, self._grow))
        what(google)

    def _come(self, google: GoogleControl) -> None:
        self._came += 1
        name = f"guest-{self._came:03d}"
        with self._world.database.transaction() as connection:
            tenant_id = tenants.add_tenant(connection, name=name)
        self._guests.append(Guest(tenant_id, name, self._connect(google, tenant_id, name)))

    def _connect(self, google: GoogleControl, tenant_id: UUID, name: str) -> UUID:
        email = f"{name}@{DOMAIN}"
        with self._world.database.transaction() as connection:
            workspace_id = tenants.add_workspace(connection, tenant_id=tenant_id, name=email)
        account = google.create_account(email)
        google.seed(email, email, SeedSpec(events=GUEST_EVENTS, attendees=0))
        connected = connecting.connect(
            self._world.database,
            self._world.settings,
            tenant_id=tenant_id,
            workspace_id=workspace_id,
            provider="google",
            address=None,
            credentials=json.dumps({"refresh_token": account.refresh_token}),
        )
        return connected.account_id

    def _grow(self, google: GoogleControl) -> None:
        guest = self._rng.choice(self._guests)
        self._came += 1
        self._connect(google, guest.tenant_id, f"{guest.name}-{self._came:03d}")

    def _leave(self, _: GoogleControl) -> None:
        guest = self._guests[0]
        if guest.paused:
            pausing.resume(self._world.database, tenant_id=guest.tenant_id)
            guest.paused = False
        connecting.disconnect(self._world.database, tenant_id=guest.tenant_id, account_id=guest.account)
        self._guests.remove(guest)

    def _pause_or_resume(self, _: GoogleControl) -> None:
        guest = self._rng.choice(self._guests)
        if guest.paused:
            pausing.resume(self._world.database, tenant_id=guest.tenant_id)
        else:
            pausing.pause(self._world.database, tenant_id=guest.tenant_id, by="storm", reason="the storm's turn")
        guest.paused = not guest.paused
