"""The mirror while Supabase fails: sync goes on, and afterwards Supabase has what Postgres has."""

from collections.abc import Iterator

import pytest

from sandbox.google.control import GoogleControl
from sandbox.google.specs import Fault, SeedSpec
from sandbox.servers.process import wait_until
from tenantsync.mirror.supabase import MirrorMisconfigured
from tests.support.fleet import Fleet, TenantHandle, events_equal_truth
from tests.support.mirror import (
    MirrorSide,
    assert_mirror_equals_postgres,
    closed_for,
    open_again,
    outbox,
    plant_calendar,
)
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.supabase_proxy import HTML, Trouble

pytest_plugins = ["tests.support.supabase_fixtures"]

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

ANN = "ann@example.test"

MEETING = {
    "summary": "Review",
    "start": {"dateTime": "2026-03-02T10:00:00Z"},
    "end": {"dateTime": "2026-03-02T11:00:00Z"},
}

OUTAGES = {
    "refused_key": (Trouble(status=401, body='{"message": "Invalid API key"}'), "refused"),
    "function_missing": (Trouble(status=404, body='{"code": "PGRST202", "message": "no"}'), "not_migrated"),
    "too_many": (Trouble(status=429, headers={"Retry-After": "7"}), "http_429"),
    "broken": (Trouble(status=500, body='{"code": "SUP", "message": "x"}'), "http_500"),
    "html_200": (Trouble(status=200, body=HTML, content_type="text/html"), "not_json"),
    "answer_lost_after_commit": (Trouble(lose_answer=True), "unreachable"),
}


@pytest.fixture
def acme(fleet: Fleet, google: GoogleControl) -> TenantHandle:
    """A tenant whose calendar has been synced, and not yet mirrored."""
    tenant = fleet.tenant("acme")
    account = google.create_account(ANN)
    google.seed(ANN, ANN, SeedSpec(events=25, tombstones=2))
    fleet.google(tenant, google, account=account)
    fleet.run()
    return tenant


def test_what_was_synced_reaches_supabase(fleet: Fleet, acme: TenantHandle, mirror: MirrorSide) -> None:
    drained = mirror.drain(fleet.database)

    assert drained.failure is None
    assert len(mirror.table("calendar_events")) == len(fleet.events(acme)) > 0
    assert outbox(fleet.database) == {}
    assert_mirror_equals_postgres(fleet.database, mirror)


@pytest.mark.parametrize(("trouble", "reason"), OUTAGES.values(), ids=OUTAGES)
def test_p103_sync_goes_on_without_supabase_which_later_catches_up(
    fleet: Fleet, google: GoogleControl, acme: TenantHandle, mirror: MirrorSide, trouble: Trouble, reason: str
) -> None:
    mirror.proxy.trouble(trouble)

    failed = mirror.drain(fleet.database)
    google.churn(15, account=ANN)
    fleet.sync()
    mirror.proxy.clear()
    open_again(fleet.database)
    recovered = mirror.drain(fleet.database)

    assert (failed.failure, failed.sent) == (reason, 0)
    assert fleet.calendar(acme)["state"] == "synced"
    events_equal_truth(fleet, acme, google, ANN, ANN)
    assert recovered.failure is None
    assert_mirror_equals_postgres(fleet.database, mirror)


def test_p103_sync_goes_on_while_supabase_takes_no_connections(
    fleet: Fleet, google: GoogleControl, acme: TenantHandle, mirror: MirrorSide
) -> None:
    mirror.proxy.down()

    failed = mirror.drain(fleet.database)
    google.churn(15, account=ANN)
    fleet.sync()
    mirror.proxy.up()
    open_again(fleet.database)
    mirror.drain(fleet.database)

    assert failed.failure == "unreachable"
    events_equal_truth(fleet, acme, google, ANN, ANN)
    assert_mirror_equals_postgres(fleet.database, mirror)


def test_p103_a_slow_supabase_gets_everything_all_the_same(
    fleet: Fleet, acme: TenantHandle, mirror: MirrorSide
) -> None:
    mirror.proxy.trouble(Trouble(delay=0.4))

    drained = mirror.drain(fleet.database)

    assert drained.failure is None
    assert_mirror_equals_postgres(fleet.database, mirror)


def test_p103_deletions_and_sweeps_during_an_outage_arrive_as_tombstones(
    fleet: Fleet, google: GoogleControl, acme: TenantHandle, mirror: MirrorSide
) -> None:
    told, swept = (google.insert(ANN, ANN, MEETING)["id"] for _ in range(2))
    fleet.sync()
    mirror.drain(fleet.database)
    mirror.proxy.trouble(Trouble(status=503))

    google.delete(ANN, ANN, told)
    fleet.sync()
    mirror.drain(fleet.database)
    google.add_fault(Fault(kind="expire_tokens", account=ANN))
    google.delete(ANN, ANN, swept)
    google.advance_clock(90 * 86_400)  # so late that the listing no longer names the deletion
    fleet.sync()
    mirror.proxy.clear()
    open_again(fleet.database)
    mirror.drain(fleet.database)

    dead = {row["provider_key"] for row in mirror.table("calendar_events").values() if row["deleted_at"] is not None}
    assert {told, swept} <= dead
    assert_mirror_equals_postgres(fleet.database, mirror)


def test_p103_a_row_that_never_arrived_and_is_deleted_arrives_as_a_tombstone_alone(
    fleet: Fleet, google: GoogleControl, acme: TenantHandle, mirror: MirrorSide
) -> None:
    gone = google.insert(ANN, ANN, MEETING)["id"]
    fleet.sync()
    google.delete(ANN, ANN, gone)
    fleet.sync()

    mirror.drain(fleet.database)

    (row,) = [one for one in mirror.table("calendar_events").values() if one["provider_key"] == gone]
    assert row["deleted_at"] is not None
    assert row["title"] is None
    assert_mirror_equals_postgres(fleet.database, mirror)


def test_p103_an_event_that_comes_back_is_alive_again_at_supabase(
    fleet: Fleet, google: GoogleControl, acme: TenantHandle, mirror: MirrorSide
) -> None:
    chosen = google.insert(ANN, ANN, MEETING)["id"]
    fleet.sync()
    google.delete(ANN, ANN, chosen)
    fleet.sync()
    mirror.drain(fleet.database)
    google.restore(ANN, ANN, chosen)
    fleet.sync()

    mirror.drain(fleet.database)

    (row,) = [one for one in mirror.table("calendar_events").values() if one["provider_key"] == chosen]
    assert row["deleted_at"] is None
    assert_mirror_equals_postgres(fleet.database, mirror)


@pytest.fixture
def broken_outbox(fleet: Fleet) -> Iterator[None]:
    """Postgres refuses outbox entries for events."""
    fleet.execute("alter table mirror.outbox add constraint full_disk check (entity <> 'events')")
    yield
    fleet.execute("alter table mirror.outbox drop constraint full_disk")


def test_p103_rows_whose_outbox_entries_cannot_be_written_are_not_stored(
    fleet: Fleet, google: GoogleControl, broken_outbox: None
) -> None:
    acme = fleet.tenant()
    account = google.create_account(ANN)
    google.seed(ANN, ANN, SeedSpec(events=5))
    fleet.google(acme, google, account=account)

    fleet.run(rounds=1)

    assert fleet.events(acme) == {}
    assert fleet.calendar(acme)["cursor"] is None


def test_p103_nothing_is_called_while_supabase_is_closed(fleet: Fleet, acme: TenantHandle, mirror: MirrorSide) -> None:
    mirror.proxy.trouble(Trouble(status=503))
    mirror.drain(fleet.database)
    before = len(mirror.proxy.calls)
    fleet.execute("update mirror.turns set ready_at = now()")

    again = mirror.drain(fleet.database)

    assert len(mirror.proxy.calls) == before == 1
    assert (again.sent, again.failure) == (0, None)


def test_p103_one_failure_ends_the_drain_of_every_tenant(fleet: Fleet, mirror: MirrorSide) -> None:
    for _ in range(5):
        plant_calendar(fleet.database, fleet.tenant())
    mirror.proxy.trouble(Trouble(status=503))

    mirror.drain(fleet.database, batch_size=1)

    assert len(mirror.proxy.calls) == 1
    assert len(outbox(fleet.database)) == 10


@pytest.mark.parametrize("status", [429, 503])
def test_p103_supabase_is_left_alone_for_as_long_as_it_asks(
    fleet: Fleet, acme: TenantHandle, mirror: MirrorSide, status: int
) -> None:
    mirror.proxy.trouble(Trouble(status=status, headers={"Retry-After": "120"}))

    mirror.drain(fleet.database)

    assert 110 < closed_for(fleet.database) <= 120


def test_p103_the_drain_goes_on_by_itself_once_the_pause_is_over(
    fleet: Fleet, acme: TenantHandle, mirror: MirrorSide
) -> None:
    mirror.proxy.trouble(Trouble(status=429, headers={"Retry-After": "1"}), times=1)
    mirror.drain(fleet.database)

    wait_until(lambda: mirror.drain(fleet.database).sent > 0, what="the drain after the pause")

    assert_mirror_equals_postgres(fleet.database, mirror)


def test_p103_a_call_that_is_too_large_goes_in_smaller_ones(
    fleet: Fleet, acme: TenantHandle, mirror: MirrorSide
) -> None:
    mirror.proxy.trouble(Trouble(status=413, body=HTML, content_type="text/html", largest=6_000))

    drained = mirror.drain(fleet.database)

    assert (drained.failure, drained.parked) == (None, 0)
    assert_mirror_equals_postgres(fleet.database, mirror)


def test_p103_a_row_that_is_too_large_by_itself_is_parked_and_the_others_arrive(
    fleet: Fleet, google: GoogleControl, acme: TenantHandle, mirror: MirrorSide
) -> None:
    huge, *others = sorted(fleet.visible(acme))
    google.patch(ANN, ANN, huge, {"description": "x" * 8_000})
    fleet.sync()
    mirror.proxy.trouble(Trouble(status=413, largest=6_000))

    mirror.drain(fleet.database)

    parked = fleet.one("select * from mirror.parked_rows")
    arrived = {row["provider_key"] for row in mirror.table("calendar_events").values()}
    assert (parked["row_id"], parked["sqlstate"]) == (fleet.events(acme)[huge]["event_id"], "413")
    assert set(others) <= arrived
    assert huge not in arrived
    assert outbox(fleet.database) == {}


def test_p103_a_supabase_that_finds_everything_too_large_parks_nothing(
    fleet: Fleet, acme: TenantHandle, mirror: MirrorSide
) -> None:
    mirror.proxy.trouble(Trouble(status=413))
    refused = mirror.drain(fleet.database)
    mirror.proxy.clear()
    fleet.execute("update sync.cooldowns set until = now() - interval '1 minute'")
    fleet.execute("update mirror.turns set ready_at = now()")

    mirror.drain(fleet.database)

    assert (refused.failure, refused.parked) == ("http_413", 0)
    assert fleet.rows("select * from mirror.parked_rows") == []
    assert_mirror_equals_postgres(fleet.database, mirror)


@pytest.fixture
def unmigrated(mirror: MirrorSide) -> MirrorSide:
    """Supabase as it is before our migrations, as far as the mirror can tell."""
    mirror.execute("alter function public.mirror_apply(text, jsonb) rename to mirror_apply_later")
    return mirror


def test_p103_a_project_without_our_migrations_is_told_apart_and_served_once_it_has_them(
    fleet: Fleet, acme: TenantHandle, unmigrated: MirrorSide
) -> None:
    with pytest.raises(MirrorMisconfigured, match="supabase/migrations"):
        unmigrated.supabase.check()

    failed = unmigrated.drain(fleet.database)
    unmigrated.execute("alter function public.mirror_apply_later(text, jsonb) rename to mirror_apply")
    open_again(fleet.database)
    wait_until(lambda: unmigrated.supabase.apply("events", []) == [], what="the schema cache")
    unmigrated.drain(fleet.database)

    assert failed.failure == "not_migrated"
    assert_mirror_equals_postgres(fleet.database, unmigrated)


def test_p103_a_migration_whose_grants_are_missing_is_told_apart(
    fleet: Fleet, acme: TenantHandle, mirror: MirrorSide
) -> None:
    mirror.execute("revoke insert on public.calendar_accounts from service_role")

    failed = mirror.drain(fleet.database)

    mirror.execute("grant insert on public.calendar_accounts to service_role")
    assert failed.failure == "refused"
