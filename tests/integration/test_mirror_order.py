"""Versions decide at Supabase: whatever the order, the repeats and the overlaps, the newest wins."""

import random
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from db.session import Database
from tests.support.mirror import (
    MirrorSide,
    assert_mirror_equals_postgres,
    open_again,
    outbox,
    plant_calendar,
    plant_events,
    plant_tenant,
)
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.supabase_proxy import Trouble

pytest_plugins = ["tests.support.supabase_fixtures"]

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

TENANT, WORKSPACE, CALENDAR = (str(uuid.uuid4()) for _ in range(3))
KEYS = [str(uuid.uuid4()) for _ in range(150)]
VERSIONS = 6
TOMBSTONE = {"deleted_at": "2026-03-01T10:00:00+00:00", "status": None, "all_day": None, "title": None}


def event(row_id: str, version: int, **changes: Any) -> dict[str, Any]:
    """A whole row, as the mirror sends it."""
    texts = dict.fromkeys(
        ("uid", "series_key", "description", "location", "starts_at", "ends_at", "time_zone", "recurrence",
         "original_start", "original_all_day", "organizer", "attendees", "link", "transparency", "visibility",
         "provider_updated_at", "deleted_at")
    )  # fmt: skip
    return {
        **texts,
        "id": row_id,
        "tenant_id": TENANT,
        "workspace_id": WORKSPACE,
        "calendar_id": CALENDAR,
        "provider_key": row_id,
        "version": version,
        "status": "confirmed",
        "all_day": False,
        "title": f"version {version}",
        **changes,
    }


@pytest.fixture
def rest(mirror: MirrorSide) -> Iterator[httpx.Client]:
    """The REST interface with the secret key, past the product."""
    headers = {"apikey": mirror.lite.secret_key, "Prefer": "resolution=merge-duplicates,return=minimal"}
    with httpx.Client(base_url=f"{mirror.lite.url}/rest/v1", headers=headers, trust_env=False) as client:
        yield client


def test_p104_shuffled_repeated_and_overlapping_calls_from_many_threads_converge(mirror: MirrorSide) -> None:
    chance = random.Random(104)  # noqa: S311 — the same order every time
    deliveries = [event(key, version) for key in KEYS for version in range(1, VERSIONS + 1)] * 2
    chance.shuffle(deliveries)
    batches = [deliveries[start : start + 60] for start in range(0, len(deliveries), 60)]

    with ThreadPoolExecutor(8) as pool:
        rejected = list(pool.map(lambda batch: mirror.supabase.apply("events", batch), batches))

    assert rejected == [[]] * len(batches)
    stored = {key: (row["version"], row["title"]) for key, row in mirror.table("calendar_events").items()}
    assert stored == dict.fromkeys(KEYS, (VERSIONS, f"version {VERSIONS}"))


def test_p104_calls_with_the_same_keys_in_opposite_orders_do_not_deadlock(mirror: MirrorSide) -> None:
    forwards = [[event(key, version) for key in KEYS] for version in range(1, 25)]
    batches = [rows if place % 2 else rows[::-1] for place, rows in enumerate(forwards)]

    with ThreadPoolExecutor(8) as pool:
        rejected = list(pool.map(lambda batch: mirror.supabase.apply("events", batch), batches))

    assert rejected == [[]] * len(batches)
    assert {row["version"] for row in mirror.table("calendar_events").values()} == {24}


@pytest.mark.parametrize("late", [event(KEYS[0], 4, title="late"), event(KEYS[0], 5, title="same again")])
def test_p104_an_older_or_equal_version_changes_nothing(mirror: MirrorSide, late: dict[str, Any]) -> None:
    mirror.supabase.apply("events", [event(KEYS[0], 5)])

    mirror.supabase.apply("events", [late])

    assert mirror.table("calendar_events")[KEYS[0]]["title"] == "version 5"


def test_p104_a_late_copy_of_a_deleted_row_does_not_bring_it_back(mirror: MirrorSide) -> None:
    mirror.supabase.apply("events", [event(KEYS[0], 5, **TOMBSTONE)])

    mirror.supabase.apply("events", [event(KEYS[0], 4)])

    assert mirror.table("calendar_events")[KEYS[0]]["deleted_at"] is not None


def test_p104_a_newer_version_does_bring_it_back(mirror: MirrorSide) -> None:
    mirror.supabase.apply("events", [event(KEYS[0], 5, **TOMBSTONE)])

    mirror.supabase.apply("events", [event(KEYS[0], 6)])

    assert mirror.table("calendar_events")[KEYS[0]]["deleted_at"] is None


@pytest.mark.parametrize("order", [1, -1])
def test_p104_a_key_that_stands_twice_in_a_call_counts_once_at_its_newest(mirror: MirrorSide, order: int) -> None:
    rows = [event(KEYS[0], 1), event(KEYS[0], 3), event(KEYS[0], 2)]

    rejected = mirror.supabase.apply("events", rows[::order])

    assert rejected == []
    assert mirror.table("calendar_events")[KEYS[0]]["version"] == 3


def test_p104_a_plain_upsert_past_the_function_cannot_bring_back_an_old_version(
    mirror: MirrorSide, rest: httpx.Client
) -> None:
    mirror.supabase.apply("events", [event(KEYS[0], 5)])

    old = rest.post("/calendar_events", json=[event(KEYS[0], 4, title="old")])

    assert old.is_success
    assert mirror.table("calendar_events")[KEYS[0]]["title"] == "version 5"


def test_p104_a_plain_update_past_the_function_cannot_bring_back_an_old_version(
    mirror: MirrorSide, rest: httpx.Client
) -> None:
    mirror.supabase.apply("events", [event(KEYS[0], 5)])

    old = rest.patch("/calendar_events", params={"id": f"eq.{KEYS[0]}"}, json={"version": 4, "title": "old"})

    assert old.is_success
    assert mirror.table("calendar_events")[KEYS[0]]["title"] == "version 5"


def test_a_row_never_changes_its_tenant(mirror: MirrorSide) -> None:
    mirror.supabase.apply("events", [event(KEYS[0], 5)])

    mirror.supabase.apply("events", [event(KEYS[0], 6, tenant_id=str(uuid.uuid4()), title="stolen")])

    kept = mirror.table("calendar_events")[KEYS[0]]
    assert (kept["tenant_id"], kept["title"]) == (TENANT, "version 5")


def test_p104_two_drains_at_once_send_everything_and_nothing_twice(database: Database, mirror: MirrorSide) -> None:
    for number in range(6):
        tenant = plant_tenant(database, f"tenant-{number}")
        plant_events(database, tenant, plant_calendar(database, tenant), 200)

    with ThreadPoolExecutor(3) as pool:
        drained = list(pool.map(lambda _: mirror.drain(database, batch_size=100), range(3)))

    sent = [row["id"] for row in mirror.proxy.sent()]
    assert [one.failure for one in drained] == [None] * 3
    assert len(sent) == len(set(sent)) == 6 * 202
    assert_mirror_equals_postgres(database, mirror)


def test_p103_a_failure_in_the_middle_of_a_long_drain_loses_nothing(database: Database, mirror: MirrorSide) -> None:
    for number in range(3):
        tenant = plant_tenant(database, f"tenant-{number}")
        plant_events(database, tenant, plant_calendar(database, tenant), 400)
    mirror.proxy.trouble(Trouble(), times=5)
    mirror.proxy.trouble(Trouble(lose_answer=True), times=1)

    failed = mirror.drain(database, batch_size=50)
    left = len(outbox(database))
    open_again(database)
    mirror.drain(database, batch_size=50)

    assert failed.failure == "unreachable"
    assert 0 < left < 1206
    assert_mirror_equals_postgres(database, mirror)
