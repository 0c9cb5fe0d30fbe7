"""The storm's tenants: many units alike, put in without asking the provider, and a few special ones.

One tenant in three is small; one has far more units than the others; one account has so many calendars
that it meets its budget; some stand on the CalDAV server. Demand is constant: every unit is due again an
interval after it ran.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from uuid import UUID

from db.ids import new_id
from db.repositories import accounts, tenants
from sandbox.chaos.world import StormWorld
from sandbox.google.specs import FleetSpec, SeedSpec
from sandbox.population import Planted, as_ics, sketches
from tenantsync.calendars import connecting
from tenantsync.vault import Vault

EVENTS = 6  # of an ordinary calendar
CALDAV_EVENTS = 8
BUSY_CALENDARS = 8
DOMAIN = "storm.example.test"
PROVIDER = "google"


@dataclass(frozen=True, slots=True)
class Size:
    """How many of what. `largest` and `caldav` units are part of `units`."""

    tenants: int = 60
    units: int = 240
    largest: int = 60
    caldav: int = 8


SMALL = Size(tenants=12, units=40, largest=10, caldav=2)


@dataclass(slots=True)
class Population:
    """Who was planted, and the account of many calendars."""

    planted: list[Planted]
    busy: str
    names: dict[UUID, str] = field(default_factory=dict)


def plant(world: StormWorld, size: Size, *, seed: int) -> Population:
    """Plant tenants, units and calendars; nothing is synced yet."""
    rng = random.Random(seed)
    google_units = size.units - size.caldav
    with world.google.control() as google:
        spec = SeedSpec(events=EVENTS, attendees=1, description_bytes=20, series_every=6)
        seeded = google.seed_fleet(FleetSpec(accounts=google_units, seed=spec, email="u{n:04d}@" + DOMAIN))
        busy = seeded[0].email
        for number in range(1, BUSY_CALENDARS):
            google.create_calendar(busy, f"c{number}.{busy}")
            google.seed(busy, f"c{number}.{busy}", spec)
    planted = []
    vault = Vault(world.settings.encryption_keys)
    queue = [(one.email, one.refresh_token) for one in seeded]
    for number, count in enumerate(_shares(size, google_units)):
        one = Planted(_add_tenant(world, f"storm-{number:03d}"), f"storm-{number:03d}")
        taken, queue = queue[:count], queue[count:]
        for email, token in taken:
            calendars = [email, *(f"c{n}.{email}" for n in range(1, BUSY_CALENDARS) if email == busy)]
            _insert_google(world, vault, one.tenant_id, email, token, calendars)
            one.google.append((email, calendars))
        planted.append(one)
    for number in range(size.caldav):
        _plant_caldav(world, rng, planted[-1 - number % len(planted)], f"c{number:03d}")
    return Population(planted, busy, {one.tenant_id: one.name for one in planted})


def _shares(size: Size, units: int) -> list[int]:
    """Units of each tenant: the first has the most, the others share the rest evenly."""
    rest, others = units - size.largest, size.tenants - 1
    return [size.largest, *(rest // others + (number < rest % others) for number in range(others))]


def _add_tenant(world: StormWorld, name: str) -> UUID:
    with world.database.transaction() as connection:
        return tenants.add_tenant(connection, name=name)


def _insert_google(
    world: StormWorld, vault: Vault, tenant_id: UUID, email: str, refresh_token: str, calendars: list[str]
) -> None:
    """A connected account as `account add` leaves it, without the provider's being asked."""
    account_id = new_id()
    plain = json.dumps({"refresh_token": refresh_token}).encode()
    sealed = vault.seal(plain, tenant_id=tenant_id, account_id=account_id, column="credentials")
    with world.database.transaction() as connection:
        workspace_id = tenants.add_workspace(connection, tenant_id=tenant_id, name=email)
        about = {"account_id": account_id, "tenant_id": tenant_id, "workspace_id": workspace_id}
        accounts.insert(connection, **about, provider=PROVIDER, identity=email, endpoint=None, credentials=sealed)
        accounts.add_calendars(
            connection,
            **about,
            calendars=[
                {"provider_key": key, "name": key, "time_zone": "Europe/Berlin", "access_role": "owner"}
                for key in calendars
            ],
        )


def _plant_caldav(world: StormWorld, rng: random.Random, one: Planted, user: str) -> None:
    password = world.radicale.add_user(user)
    items = [as_ics(sketch, f"{user}-{n}") for n, sketch in enumerate(sketches(rng, CALDAV_EVENTS))]
    world.radicale.fill_calendar(user, "work", items)
    with world.database.transaction() as connection:
        workspace_id = tenants.add_workspace(connection, tenant_id=one.tenant_id, name=user)
    connecting.connect(
        world.database,
        world.settings,
        tenant_id=one.tenant_id,
        workspace_id=workspace_id,
        provider="caldav",
        address=world.caldav_url,
        credentials=json.dumps({"username": user, "password": password}),
    )
    one.caldav.append((user, "work"))
