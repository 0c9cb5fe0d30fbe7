"""The judge: it proves what is in step, finds and names what is not, and tells the late from the wrong."""

from collections.abc import Callable, Iterator

import pytest

from sandbox.google.control import GoogleControl
from sandbox.google.specs import Fault, SeedSpec
from sandbox.servers.radicale import Radicale
from tenantsync.audit.service import DRIFTING, EXPLAINED, PROVEN, UNPROVEN, CalendarProof, Report
from tests.support.caldav import Shelf
from tests.support.fleet import Fleet, TenantHandle
from tests.support.mirror import MirrorSide
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.supabase_proxy import Trouble

pytest_plugins = ["tests.support.supabase_fixtures", "tests.support.audit_fixtures"]

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

ANN, BOB = "ann@example.test", "bob@example.test"
MEETING = {
    "summary": "Review",
    "start": {"dateTime": "2026-03-02T10:00:00Z"},
    "end": {"dateTime": "2026-03-02T11:00:00Z"},
}


def only(report: Report) -> CalendarProof:
    (proof,) = report.calendars
    return proof


def named(report: Report) -> tuple[list[str], list[str], dict[str, str]]:
    """(missing, surplus, differing) rows at Supabase, of the only tenant."""
    (proof,) = report.tenants
    return proof.differences.missing, proof.differences.surplus, proof.differences.differing


# What is in step


def test_a_fleet_in_step_is_proven(
    fleet: Fleet, google: GoogleControl, radicale: Radicale, audited: TenantHandle, judge: Callable[..., Report]
) -> None:
    shelf = Shelf(radicale, "audited").create().fill({f"uid-{number}": f"Title {number}" for number in range(5)})
    other = fleet.tenant("other")
    bob = google.create_account(BOB)
    google.seed(BOB, BOB, SeedSpec(events=60, tombstones=3))
    fleet.google(other, google, account=bob)
    fleet.caldav(other, radicale, shelf.user)
    fleet.run()

    report = judge()

    assert [(proof.verdict, proof.reason) for proof in report.calendars] == [(PROVEN, "")] * 3
    assert all(proof.since is not None for proof in report.calendars)
    assert [proof.failure for proof in report.tenants] == [None, None]
    assert report.drift == 0
    stored = fleet.one(
        "select (select count(*) from sync.events) + (select count(*) from sync.tombstones)"
        " + (select count(*) from sync.calendars) + (select count(*) from sync.accounts)"
        " + (select count(*) from process.processes) + (select count(*) from process.events) as rows"
    )
    assert report.mirrored == stored["rows"]


def test_one_tenant_can_be_audited_alone(
    fleet: Fleet, google: GoogleControl, audited: TenantHandle, judge: Callable[..., Report]
) -> None:
    other = fleet.tenant("other")
    fleet.google(other, google, account=google.create_account(BOB))
    fleet.run()
    fleet.execute("delete from sync.events where tenant_id = :acme", acme=audited.tenant_id)

    report = judge(tenant_id=other.tenant_id)

    assert [proof.tenant for proof in report.tenants] == ["other"]
    assert {proof.tenant for proof in report.calendars} == {"other"}
    assert report.drift == 0


def test_a_fleet_without_calendars_is_in_step(fleet: Fleet, mirror: MirrorSide, judge: Callable[..., Report]) -> None:
    fleet.tenant()

    assert judge().drift == 0


# Planted in Postgres, behind the product's back

PLANTED = {
    "a row is missing": "delete from sync.events where provider_key = :key",
    "a row is in the wrong calendar": "update sync.events set resource = 'elsewhere' where provider_key = :key",
    "a digest was changed": "update sync.events set digest = repeat('0', 32) where provider_key = :key",
    "what it says was changed": (
        """update sync.events set raw = raw || '{"summary": "forged"}' where provider_key = :key"""
    ),
}


@pytest.mark.parametrize("statement", PLANTED.values(), ids=[name.replace(" ", "_") for name in PLANTED])
def test_a_row_that_was_changed_in_postgres_is_found_and_named(
    fleet: Fleet, audited: TenantHandle, judge: Callable[..., Report], statement: str
) -> None:
    key = min(fleet.visible(audited))
    fleet.execute(statement, key=key)

    report = judge()

    assert only(report).verdict == DRIFTING
    assert key in only(report).differences.by_resource
    assert report.drift > 0


def test_a_row_that_the_provider_never_had_is_found_and_named(
    fleet: Fleet, audited: TenantHandle, judge: Callable[..., Report]
) -> None:
    fleet.execute("""
        insert into sync.events
          (event_id, tenant_id, calendar_id, provider_key, resource, status, all_day, raw, digest, version)
        select gen_random_uuid(), tenant_id, calendar_id, 'invented', 'invented', 'confirmed', false, '{}', 'x',
               nextval('mirror.version')
          from sync.calendars
    """)

    report = judge()

    assert set(only(report).differences.by_resource) == {"invented"}
    assert only(report).verdict == DRIFTING


def test_a_column_that_was_changed_in_postgres_alone_shows_against_supabase(
    fleet: Fleet, audited: TenantHandle, judge: Callable[..., Report]
) -> None:
    key = min(fleet.visible(audited))
    fleet.execute("update sync.events set title = 'forged' where provider_key = :key", key=key)

    report = judge()

    assert named(report) == ([], [], {str(fleet.events(audited)[key]["event_id"]): "title"})
    assert report.drift == 1


def test_a_tombstone_that_postgres_lost_shows_as_surplus_at_supabase(
    fleet: Fleet, audited: TenantHandle, judge: Callable[..., Report]
) -> None:
    (dead,) = fleet.tombstones(audited).values()
    fleet.execute("delete from sync.tombstones")

    report = judge()

    assert named(report) == ([], [str(dead["event_id"])], {})
    assert report.drift == 1


# Late is not wrong


def test_what_was_not_synced_yet_is_no_drift(
    fleet: Fleet, google: GoogleControl, audited: TenantHandle, judge: Callable[..., Report]
) -> None:
    google.churn(12, account=ANN)

    report = judge()

    assert (only(report).verdict, report.drift) == (PROVEN, 0)


def test_what_was_not_mirrored_yet_is_no_drift(
    fleet: Fleet, google: GoogleControl, audited: TenantHandle, judge: Callable[..., Report]
) -> None:
    google.churn(12, account=ANN)
    fleet.sync()

    assert judge().drift == 0


def test_what_the_provider_changes_during_the_audit_is_no_drift(
    fleet: Fleet,
    google: GoogleControl,
    audited: TenantHandle,
    judge: Callable[..., Report],
    after_run: list[Callable[[], object]],
) -> None:
    key = min(fleet.visible(audited))
    google.patch(ANN, ANN, key, {"summary": "before the audit"})
    after_run.append(lambda: google.patch(ANN, ANN, key, {"summary": "after the further sync"}))

    report = judge()

    assert only(report).verdict in (EXPLAINED, PROVEN)
    assert report.drift == 0


def test_an_audit_of_a_calendar_in_step_asks_for_no_further_sync(
    fleet: Fleet, audited: TenantHandle, judge: Callable[..., Report]
) -> None:
    before = fleet.calendar(audited)["runs"]

    judge()

    assert fleet.calendar(audited)["runs"] == before


# What can be explained, and what cannot be proven


def test_what_was_set_aside_is_explained(
    fleet: Fleet, google: GoogleControl, audited: TenantHandle, judge: Callable[..., Report]
) -> None:
    google.add_poison(ANN, ANN, "year_zero")
    fleet.sync()

    report = judge()

    assert len(fleet.set_aside(audited)) == 1
    assert (only(report).verdict, only(report).reason) == (EXPLAINED, "1 set aside")
    assert report.drift == 0


def test_what_was_set_aside_does_not_hide_another_difference(
    fleet: Fleet, google: GoogleControl, audited: TenantHandle, judge: Callable[..., Report]
) -> None:
    google.add_poison(ANN, ANN, "year_zero")
    fleet.sync()
    key = min(fleet.visible(audited))
    fleet.execute("delete from sync.events where provider_key = :key", key=key)

    report = judge()

    assert only(report).verdict == DRIFTING
    assert set(only(report).differences.by_resource) == {key}


def test_a_calendar_whose_emptiness_awaits_confirmation_is_explained(
    fleet: Fleet, google: GoogleControl, audited: TenantHandle, judge: Callable[..., Report]
) -> None:
    google.add_fault(Fault(kind="expire_tokens", account=ANN))
    google.add_fault(Fault(kind="empty_full_list", account=ANN, times=None))
    fleet.sync()

    report = judge()

    assert fleet.calendar(audited)["state"] == "confirming"
    assert (only(report).verdict, only(report).reason) == (EXPLAINED, "awaiting confirmation")
    assert report.drift == 0


def test_a_revoked_account_is_not_provable_since_its_last_success(
    fleet: Fleet, google: GoogleControl, audited: TenantHandle, judge: Callable[..., Report]
) -> None:
    since = fleet.calendar(audited)["last_success_at"]
    google.revoke_grant(ANN)
    fleet.sync()

    report = judge()

    assert (only(report).verdict, only(report).reason) == (UNPROVEN, "needs_reauth")
    assert only(report).since == since
    assert report.drift == 0


def test_a_provider_that_fails_leaves_its_calendars_not_provable(
    fleet: Fleet, google: GoogleControl, audited: TenantHandle, judge: Callable[..., Report]
) -> None:
    google.add_fault(Fault(kind="status", status=503, times=None))

    report = judge()

    assert only(report).verdict == UNPROVEN
    assert only(report).reason.startswith("unreachable")
    assert only(report).since == fleet.calendar(audited)["last_success_at"]
    assert report.drift == 0


def test_a_provider_that_hangs_leaves_its_calendars_not_provable(
    google: GoogleControl, audited: TenantHandle, judge: Callable[..., Report]
) -> None:
    google.add_fault(Fault(kind="hang", times=None))

    report = judge(deadline=0.5)

    assert (only(report).verdict, only(report).reason) == (UNPROVEN, "unreachable (deadline)")


def test_one_provider_that_fails_does_not_keep_another_calendar_from_being_proven(
    fleet: Fleet, google: GoogleControl, audited: TenantHandle, judge: Callable[..., Report]
) -> None:
    other = fleet.tenant("other")
    fleet.google(other, google, account=google.create_account(BOB))
    fleet.run()
    google.add_fault(Fault(kind="status", status=503, account=ANN, times=None))

    report = judge()

    assert {proof.tenant: proof.verdict for proof in report.calendars} == {"acme": UNPROVEN, "other": PROVEN}


def test_a_calendar_whose_further_sync_failed_is_not_provable_rather_than_drifting(
    fleet: Fleet, google: GoogleControl, audited: TenantHandle, judge: Callable[..., Report]
) -> None:
    google.patch(ANN, ANN, min(fleet.visible(audited)), {"summary": "changed"})
    google.add_fault(Fault(kind="status", status=503, list_kind="delta", times=None))

    report = judge()

    assert only(report).verdict == UNPROVEN
    assert report.drift == 0


def test_a_supabase_that_cannot_be_read_is_named_and_no_drift(
    audited: TenantHandle, mirror: MirrorSide, judge: Callable[..., Report]
) -> None:
    mirror.proxy.trouble(Trouble(status=503))

    report = judge()

    assert [proof.failure for proof in report.tenants] == ["http_503"]
    assert only(report).verdict == PROVEN
    assert report.drift == 0


@pytest.fixture
def strict(mirror: MirrorSide) -> Iterator[MirrorSide]:
    """A Supabase whose owner refuses a title."""
    mirror.execute("alter table public.calendar_events add constraint owners check (title <> 'poison')")
    yield mirror
    mirror.empty()
    mirror.execute("alter table public.calendar_events drop constraint owners")


def test_a_row_that_supabase_refuses_is_counted_and_no_drift(
    fleet: Fleet, google: GoogleControl, audited: TenantHandle, strict: MirrorSide, judge: Callable[..., Report]
) -> None:
    google.insert(ANN, ANN, {**MEETING, "summary": "poison"})
    google.patch(ANN, ANN, min(fleet.visible(audited)), {"summary": "poison"})
    fleet.sync()

    report = judge()

    assert [proof.parked for proof in report.tenants] == [2]
    assert report.drift == 0


def test_an_audit_changes_nothing(
    fleet: Fleet, audited: TenantHandle, mirror: MirrorSide, judge: Callable[..., Report]
) -> None:
    before = fleet.events(audited), fleet.tombstones(audited), mirror.table("calendar_events")

    judge()

    assert (fleet.events(audited), fleet.tombstones(audited), mirror.table("calendar_events")) == before
