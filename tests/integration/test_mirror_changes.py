"""Accounts and calendars reach Supabase when something changes that Supabase shows, and only then."""

from collections.abc import Callable

import pytest

from sandbox.google.control import GoogleControl
from sandbox.google.specs import AccountInfo, Fault, SeedSpec
from tenantsync.calendars import connecting
from tests.support.fleet import Fleet, TenantHandle
from tests.support.mirror import MirrorSide, assert_mirror_equals_postgres, outbox
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures

pytest_plugins = ["tests.support.supabase_fixtures"]

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

ANN, BOB = "ann@example.test", "bob@example.test"


@pytest.fixture
def ann(google: GoogleControl) -> AccountInfo:
    account = google.create_account(ANN)
    google.seed(ANN, ANN, SeedSpec(events=10, series_every=0))
    return account


@pytest.fixture
def acme(fleet: Fleet, google: GoogleControl, ann: AccountInfo, mirror: MirrorSide) -> TenantHandle:
    """A tenant that is synced and mirrored."""
    tenant = fleet.tenant("acme")
    fleet.google(tenant, google, account=ann)
    fleet.run()
    mirror.drain(fleet.database)
    return tenant


def test_a_quiet_sync_moves_counters_and_sends_nothing(fleet: Fleet, acme: TenantHandle) -> None:
    before = fleet.calendar(acme)

    fleet.sync()

    after = fleet.calendar(acme)
    assert after["runs"] > before["runs"]
    assert after["api_calls"] > before["api_calls"]
    assert after["last_success_at"] > before["last_success_at"]
    assert after["version"] == before["version"]
    assert outbox(fleet.database) == {}


def test_changed_events_do_not_send_their_calendar(fleet: Fleet, google: GoogleControl, acme: TenantHandle) -> None:
    event = min(fleet.visible(acme))
    google.patch(ANN, ANN, event, {"summary": "new"})

    fleet.sync()

    assert [row["entity"] for row in fleet.rows("select entity from mirror.outbox")] == ["events"]


def test_a_failing_sync_that_changes_no_state_sends_nothing(
    fleet: Fleet, google: GoogleControl, acme: TenantHandle
) -> None:
    google.add_fault(Fault(kind="status", status=503, times=None))

    fleet.sync()

    assert fleet.calendar(acme)["failures"] > 0
    assert outbox(fleet.database) == {}


def test_a_renewed_access_token_sends_nothing(fleet: Fleet, google: GoogleControl, acme: TenantHandle) -> None:
    before = bytes(fleet.account(acme)["access_token"])
    google.expire_access_tokens(ANN)

    fleet.sync()

    assert bytes(fleet.account(acme)["access_token"]) != before
    assert outbox(fleet.database) == {}


def test_a_revoked_grant_shows_at_supabase(
    fleet: Fleet, google: GoogleControl, acme: TenantHandle, mirror: MirrorSide
) -> None:
    google.revoke_grant(ANN)
    fleet.sync()

    mirror.drain(fleet.database)

    (account,) = mirror.table("calendar_accounts").values()
    assert account["state"] == "needs_reauth"
    assert account["state_reason"]
    assert_mirror_equals_postgres(fleet.database, mirror)


def test_an_account_that_is_connected_again_shows_at_supabase(
    fleet: Fleet, google: GoogleControl, ann: AccountInfo, acme: TenantHandle, mirror: MirrorSide
) -> None:
    google.revoke_grant(ANN)
    fleet.sync()
    mirror.drain(fleet.database)
    google.restore_grant(ANN)
    fleet.google(acme, google, account=ann)
    fleet.run()

    mirror.drain(fleet.database)

    (account,) = mirror.table("calendar_accounts").values()
    assert (account["state"], account["state_reason"]) == ("connected", None)
    assert_mirror_equals_postgres(fleet.database, mirror)


def test_a_disconnected_account_becomes_tombstones_all_the_way_down(
    fleet: Fleet, acme: TenantHandle, mirror: MirrorSide
) -> None:
    account_id = fleet.account(acme)["account_id"]

    connecting.disconnect(fleet.database, tenant_id=acme.tenant_id, account_id=account_id)
    mirror.drain(fleet.database)

    tables = [mirror.table(name) for name in ("calendar_accounts", "calendars", "calendar_events")]
    assert all(row["deleted_at"] is not None for table in tables for row in table.values())
    assert {row["title"] for row in tables[2].values()} == {None}
    assert_mirror_equals_postgres(fleet.database, mirror)


def test_a_calendar_that_is_lost_shows_at_supabase(
    fleet: Fleet, google: GoogleControl, acme: TenantHandle, mirror: MirrorSide
) -> None:
    google.add_fault(Fault(kind="status", status=404, reason="notFound", endpoint="list", times=None))
    for _ in range(6):
        fleet.sync()

    mirror.drain(fleet.database)

    (calendar,) = mirror.table("calendars").values()
    assert calendar["state"] == "lost"
    assert_mirror_equals_postgres(fleet.database, mirror)


def test_a_calendar_that_was_renamed_shows_its_new_name_once_it_is_discovered_again(
    fleet: Fleet, google: GoogleControl, ann: AccountInfo, acme: TenantHandle, mirror: MirrorSide
) -> None:
    google.update_calendar(ANN, ANN, summary="Renamed")
    google.revoke_grant(ANN)
    fleet.sync()
    google.restore_grant(ANN)
    fleet.google(acme, google, account=ann)

    mirror.drain(fleet.database)

    (calendar,) = mirror.table("calendars").values()
    assert calendar["name"] == "Renamed"


@pytest.mark.parametrize("column", ["credentials", "access_token", "endpoint", "cursor", "last_error", "raw", "etag"])
def test_supabase_has_no_column_for_what_must_stay_home(mirror: MirrorSide, column: str) -> None:
    named = mirror.rows(
        "select table_name from information_schema.columns where table_schema = 'public' and column_name = %s",
        (column,),
    )

    assert named == []


def test_p105_a_member_reads_the_rows_of_the_own_tenant_alone(
    fleet: Fleet, google: GoogleControl, acme: TenantHandle, mirror: MirrorSide, member: Callable[..., list[str]]
) -> None:
    other = fleet.tenant("other")
    bob = google.create_account(BOB)
    google.seed(BOB, BOB, SeedSpec(events=3))
    fleet.google(other, google, account=bob)
    gone = min(fleet.visible(acme))
    google.delete(ANN, ANN, gone)
    fleet.sync()
    mirror.drain(fleet.database)

    seen = {name: set(member(tenant)) for name, tenant in (("acme", acme), ("other", other))}

    assert seen == {"acme": set(fleet.events(acme)), "other": set(fleet.events(other))}
    assert gone not in seen["acme"]
