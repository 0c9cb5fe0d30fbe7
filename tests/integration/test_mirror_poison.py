"""A row that Supabase refuses is parked with its reason, and holds up nothing but itself."""

from collections.abc import Iterator
from typing import Any

import pytest

from db.repositories import mirroring
from db.session import Database
from sandbox.google.control import GoogleControl
from sandbox.google.specs import SeedSpec
from tests.support.fleet import Fleet
from tests.support.mirror import (
    MirrorSide,
    assert_mirror_equals_postgres,
    outbox,
    plant_calendar,
    plant_events,
    plant_tenant,
)
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures

pytest_plugins = ["tests.support.supabase_fixtures"]

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

ANN = "ann@example.test"
POISON = "poison"
LONG = "".join(f"{number:x}" for number in range(20_000))  # does not compress into an index entry

RULES = {
    "a check of the owner's": (
        "alter table public.calendar_events add constraint owners check (title <> 'poison')",
        "alter table public.calendar_events drop constraint owners",
        "23514",
    ),
    "a column that is narrower": (
        "alter table public.calendar_events alter column title type varchar(5)",
        "alter table public.calendar_events alter column title type text",
        "22001",
    ),
    "a trigger of the owner's that raises": (
        """
        create function public.owners() returns trigger language plpgsql as $$
        begin raise exception 'no poison here'; end $$;
        create trigger owners before insert or update on public.calendar_events
          for each row when (new.title = 'poison') execute function public.owners()
        """,
        "drop function public.owners() cascade",
        "P0001",
    ),
    "an index of the owner's that cannot hold it": (
        "create index owners on public.calendar_events (description)",
        "drop index public.owners",
        "54000",
    ),
}


@pytest.fixture(params=RULES.values(), ids=[name.replace(" ", "_") for name in RULES])
def strict(request: pytest.FixtureRequest, mirror: MirrorSide) -> Iterator[tuple[MirrorSide, str]]:
    """A Supabase whose owner has made a rule that our rows may break, and the SQLSTATE of that."""
    make, undo, sqlstate = request.param
    mirror.execute(make)
    yield mirror, sqlstate
    mirror.empty()
    mirror.execute(undo)


def test_a_refused_row_is_parked_with_its_sqlstate_and_all_others_arrive(
    fleet: Fleet, google: GoogleControl, strict: tuple[MirrorSide, str]
) -> None:
    mirror, sqlstate = strict
    acme, other = fleet.tenant("acme"), fleet.tenant("other")
    fleet.google(acme, google, account=google.create_account(ANN))
    plant_events(fleet.database, other, plant_calendar(fleet.database, other), 10, title="fine")
    good = google.seed_events(ANN, ANN, [body("fine", day) for day in range(1, 20)])
    (bad,) = google.seed_events(ANN, ANN, [body(POISON, 25, description=LONG)])
    fleet.run()

    drained = mirror.drain(fleet.database)

    parked = fleet.one("select * from mirror.parked_rows")
    arrived = {row["provider_key"] for row in mirror.table("calendar_events").values()}
    assert (drained.failure, drained.parked) == (None, 1)
    assert (parked["row_id"], parked["sqlstate"]) == (fleet.events(acme)[bad]["event_id"], sqlstate)
    assert parked["tenant_id"] == acme.tenant_id
    assert bad not in arrived
    assert set(good) <= arrived
    assert len(arrived) == 19 + 10
    assert outbox(fleet.database) == {}


@pytest.fixture
def no_poison(mirror: MirrorSide) -> Iterator[MirrorSide]:
    make, undo, _ = RULES["a check of the owner's"]
    mirror.execute(make)
    yield mirror
    mirror.empty()
    mirror.execute(undo)


def body(title: str, day: int, **more: Any) -> dict[str, Any]:
    return {"summary": title, "start": {"date": f"2026-03-{day:02}"}, "end": {"date": f"2026-03-{day + 1:02}"}, **more}


def test_a_parked_row_is_healed_by_a_newer_version(fleet: Fleet, google: GoogleControl, no_poison: MirrorSide) -> None:
    acme = fleet.tenant()
    fleet.google(acme, google, account=google.create_account(ANN))
    (bad,) = google.seed_events(ANN, ANN, [body(POISON, 25)])
    fleet.run()
    no_poison.drain(fleet.database)
    google.patch(ANN, ANN, bad, {"summary": "cured"})
    fleet.sync()

    no_poison.drain(fleet.database)

    assert fleet.rows("select * from mirror.parked_rows") == []
    assert_mirror_equals_postgres(fleet.database, no_poison)


def test_a_parked_row_is_healed_by_its_deletion(fleet: Fleet, google: GoogleControl, no_poison: MirrorSide) -> None:
    acme = fleet.tenant()
    fleet.google(acme, google, account=google.create_account(ANN))
    (bad,) = google.seed_events(ANN, ANN, [body(POISON, 25)])
    fleet.run()
    no_poison.drain(fleet.database)
    google.delete(ANN, ANN, bad)
    fleet.sync()

    no_poison.drain(fleet.database)

    assert fleet.rows("select * from mirror.parked_rows") == []
    assert_mirror_equals_postgres(fleet.database, no_poison)


def test_a_row_that_is_refused_keeps_the_version_it_had_at_supabase(
    fleet: Fleet, google: GoogleControl, no_poison: MirrorSide
) -> None:
    acme = fleet.tenant()
    fleet.google(acme, google, account=google.create_account(ANN))
    (key,) = google.seed_events(ANN, ANN, [body("fine", 25)])
    fleet.run()
    no_poison.drain(fleet.database)
    google.patch(ANN, ANN, key, {"summary": POISON})
    fleet.sync()

    no_poison.drain(fleet.database)

    (row,) = no_poison.table("calendar_events").values()
    assert row["title"] == "fine"
    assert len(fleet.rows("select * from mirror.parked_rows")) == 1


def test_a_parked_row_that_is_refused_again_is_parked_at_its_newest_version(
    fleet: Fleet, google: GoogleControl, no_poison: MirrorSide
) -> None:
    acme = fleet.tenant()
    fleet.google(acme, google, account=google.create_account(ANN))
    (bad,) = google.seed_events(ANN, ANN, [body(POISON, 25)])
    fleet.run()
    no_poison.drain(fleet.database)
    google.patch(ANN, ANN, bad, {"description": "still not good"})
    fleet.sync()

    no_poison.drain(fleet.database)

    assert fleet.one("select version from mirror.parked_rows")["version"] == fleet.events(acme)[bad]["version"]


def test_a_parked_row_is_not_sent_again_by_itself(database: Database, no_poison: MirrorSide) -> None:
    acme = plant_tenant(database, "acme")
    plant_events(database, acme, plant_calendar(database, acme), 3, title=POISON)
    no_poison.drain(database)
    before = len(no_poison.proxy.calls)

    no_poison.drain(database)

    assert len(no_poison.proxy.calls) == before


def test_a_parked_row_is_healed_by_a_retry_once_the_owner_relents(database: Database, mirror: MirrorSide) -> None:
    make, undo, _ = RULES["a check of the owner's"]
    acme = plant_tenant(database, "acme")
    plant_events(database, acme, plant_calendar(database, acme), 3, title=POISON)
    mirror.execute(make)
    mirror.drain(database)
    mirror.execute(undo)
    with database.transaction() as connection:
        retried = mirroring.retry_parked(connection)

    drained = mirror.drain(database)

    assert (retried, drained.sent, drained.parked) == (3, 3, 0)
    assert_mirror_equals_postgres(database, mirror)


def test_many_poisoned_rows_of_one_tenant_hold_up_no_other(database: Database, no_poison: MirrorSide) -> None:
    acme, other = plant_tenant(database, "acme"), plant_tenant(database, "other")
    plant_events(database, acme, plant_calendar(database, acme), 300, title=POISON)
    plant_events(database, other, plant_calendar(database, other), 300, title="fine")

    drained = no_poison.drain(database, batch_size=200)

    assert (drained.failure, drained.parked) == (None, 300)
    assert len(no_poison.table("calendar_events")) == 300


def test_rows_that_nobody_refuses_are_not_parked(fleet: Fleet, google: GoogleControl, mirror: MirrorSide) -> None:
    acme = fleet.tenant()
    account = google.create_account(ANN)
    google.seed(ANN, ANN, SeedSpec(events=40, attendees=5))
    google.seed_events(ANN, ANN, [body("a\u2028b \\ \" ' \U0001f600 \x7f", 3, description="\t\r\n", location="")])
    fleet.google(acme, google, account=account)
    fleet.run()

    drained = mirror.drain(fleet.database)

    assert (drained.failure, drained.parked) == (None, 0)
    assert_mirror_equals_postgres(fleet.database, mirror)
