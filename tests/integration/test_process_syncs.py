"""Syncs that people watch: first ones, those after a void cursor, those that somebody wanted; accounts to reconnect.

Everything else leaves no trace among processes.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from db.session import Database
from sandbox.google.control import GoogleControl
from sandbox.google.specs import Fault, SeedSpec
from tenantsync.calendars import connecting
from tenantsync.dispatching import steering
from tenantsync.processes import service
from tests.support.fleet import Fleet, TenantHandle
from tests.support.google_office import ANN, Office
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures

pytest_plugins = ["tests.support.google_fixtures"]

AGED = "update process.processes set updated_at = updated_at - interval '1 minute'"
SETTLED = "update sync.calendars set state_since = state_since - interval '1 minute'"


PROCESSES = text(
    "select * from process.processes where cast(:kind as text) is null or kind = :kind order by process_id"
)
TYPES = text("select event_type from process.events where process_id = :id order by sequence")


@pytest.fixture
def processes(database: Database) -> Callable[..., list[dict[str, Any]]]:
    """Processes of a kind, oldest first."""

    def read(kind: str | None = None) -> list[dict[str, Any]]:
        with database.reading() as connection:
            return [dict(row) for row in connection.execute(PROCESSES, {"kind": kind}).mappings()]

    return read


@pytest.fixture
def types(database: Database) -> Callable[[UUID], list[str]]:
    """The types of a process' events."""

    def read(process_id: UUID) -> list[str]:
        with database.reading() as connection:
            return list(connection.execute(TYPES, {"id": process_id}).scalars())

    return read


@pytest.fixture
def wanted(office: Office) -> Callable[[], None]:
    """Somebody wants the office synced now."""

    def want() -> None:
        with office.fleet.database.transaction() as connection:
            steering.sync_now(connection, tenant_id=office.tenant.tenant_id, workspace_id=None, by="user:ann")

    return want


class TestFirstSyncs:
    def test_one_waits_from_the_moment_its_calendar_is_connected(
        self, office: Office, processes: Callable[..., Any], types: Callable[[UUID], list[str]]
    ) -> None:
        (process,) = processes()

        assert (process["kind"], process["state"], process["title"]) == ("calendar.first_sync", "pending", ANN)
        assert process["subject_id"] == office.fleet.calendar(office.tenant)["calendar_id"]
        assert types(process["process_id"]) == ["process_created"]

    def test_it_is_told_step_by_step_with_what_it_brought(
        self, office: Office, google: GoogleControl, processes: Callable[..., Any], types: Callable[[UUID], list[str]]
    ) -> None:
        google.seed(ANN, ANN, SeedSpec(events=12))

        office.fleet.run()

        (process,) = processes()
        assert (process["state"], process["error"], process["percentage"]) == ("completed", None, 100.0)
        assert process["result"]["inserted"] == len(office.fleet.events(office.tenant)) > 0
        assert process["result"]["calls"] > 0
        assert set(process["step_durations"]) == {"listing", "merging"}
        assert types(process["process_id"]) == [
            "process_created",
            "state_updated",
            "step_update",
            "step_completed",
            "step_completed",
            "process_completed",
        ]

    def test_a_large_one_tells_how_far_it_is(
        self,
        make_office: Callable[..., Office],
        google: GoogleControl,
        processes: Callable[..., Any],
        types: Callable[[UUID], list[str]],
    ) -> None:
        office = make_office()
        google.seed(ANN, ANN, SeedSpec(events=6000))

        office.fleet.run()

        (process,) = processes()
        told = types(process["process_id"])
        assert (process["state"], process["result"]["inserted"]) == (
            "completed",
            len(office.fleet.events(office.tenant)),
        )
        assert "progress" in told
        assert told.index("progress") < told.index("step_completed")
        assert told.count("step_update") == 2

    def test_one_that_fails_waits_for_its_next_run_and_says_why_once(
        self, office: Office, google: GoogleControl, processes: Callable[..., Any], types: Callable[[UUID], list[str]]
    ) -> None:
        google.add_fault(Fault(kind="status", status=500, endpoint="list", times=20))
        office.fleet.run()
        (failed,) = processes()
        office.fleet.sync()
        google.clear_faults()
        office.fleet.sync()

        (process,) = processes()
        assert (failed["state"], failed["retry_count"]) == ("pending", 1)
        assert "500" in failed["error"]
        assert (process["state"], process["error"]) == ("completed", None)
        assert types(process["process_id"]).count("process_error") == 1

    def test_it_ends_with_its_account(self, office: Office, processes: Callable[..., Any]) -> None:
        account = office.fleet.account(office.tenant)["account_id"]

        connecting.disconnect(office.fleet.database, tenant_id=office.tenant.tenant_id, account_id=account)

        (process,) = processes()
        assert process["state"] == "cancelled"


class TestQuietRuns:
    def test_quiet_and_changed_runs_leave_no_trace(
        self, office: Office, google: GoogleControl, processes: Callable[..., Any]
    ) -> None:
        office.fleet.run()
        office.fleet.execute("update sync.units set wanted = false")
        before = office.fleet.rows("select process_id, version, last_sequence from process.processes")

        for events in (0, 5):
            google.churn(events, account=ANN)
            office.fleet.execute("update sync.calendars set next_due_at = now()")
            office.fleet.execute("update sync.units set next_due_at = now()")
            office.fleet.execute("update sync.turns set ready_at = now()")
            assert office.fleet.run() == 1

        assert office.fleet.rows("select process_id, version, last_sequence from process.processes") == before


class TestResyncs:
    def test_a_void_cursor_is_told_with_what_it_cost(
        self, office: Office, google: GoogleControl, processes: Callable[..., Any], types: Callable[[UUID], list[str]]
    ) -> None:
        google.seed(ANN, ANN, SeedSpec(events=12))
        office.fleet.run()
        google.expire_sync_tokens(account=ANN, calendar=ANN)

        office.fleet.sync()

        (process,) = processes("calendar.resync")
        assert process["state"] == "completed"
        assert set(process["step_durations"]) == {"listing", "merging"}
        assert types(process["process_id"])[-1] == "process_completed"

    def test_one_that_a_later_run_takes_up_is_one_process(
        self, office: Office, google: GoogleControl, processes: Callable[..., Any]
    ) -> None:
        office.fleet.run()
        office.fleet.execute("update sync.calendars set state = 'resync', cursor = null")
        google.add_fault(Fault(kind="status", status=500, endpoint="list", times=20))
        office.fleet.sync()
        google.clear_faults()

        office.fleet.sync()

        (process,) = processes("calendar.resync")
        assert (process["state"], process["attempt"], process["retry_count"]) == ("completed", 2, 1)


class TestWanted:
    def test_a_quiet_sync_that_somebody_wanted_is_told(
        self, office: Office, wanted: Callable[[], None], processes: Callable[..., Any]
    ) -> None:
        office.fleet.run()

        wanted()
        (before,) = processes("sync.now")
        office.fleet.run()

        (process,) = processes("sync.now")
        assert (before["state"], before["started_by"], before["title"]) == ("pending", "user:ann", "office")
        assert (process["state"], process["result"]["calendars"]) == ("completed", 1)
        assert set(process["step_durations"]) == {"syncing"}

    def test_what_it_changed_and_what_failed_is_told(
        self, office: Office, google: GoogleControl, wanted: Callable[[], None], processes: Callable[..., Any]
    ) -> None:
        office.fleet.run()
        google.seed(ANN, ANN, SeedSpec(events=3))
        wanted()
        office.fleet.run()
        google.add_fault(Fault(kind="status", status=500, endpoint="list", times=20))
        wanted()
        office.fleet.run()

        changed, failed = processes("sync.now")
        assert (changed["state"], changed["result"]["inserted"]) == (
            "completed",
            len(office.fleet.events(office.tenant)),
        )
        assert failed["state"] == "failed"
        assert "500" in failed["error"]

    def test_wanting_twice_is_watching_once(
        self, office: Office, wanted: Callable[[], None], processes: Callable[..., Any]
    ) -> None:
        office.fleet.run()

        wanted()
        wanted()

        assert len(processes("sync.now")) == 1


class TestReconnecting:
    @pytest.fixture
    def revoked(self, office: Office, google: GoogleControl) -> dict[str, Any]:
        """The question about an account that has lost its grant."""
        office.fleet.run()
        google.revoke_grant(ANN)
        google.expire_access_tokens(ANN)
        office.fleet.sync()
        return office.fleet.one("select * from process.questions")

    def test_a_revoked_grant_asks_for_the_account_to_be_connected_again(
        self, office: Office, revoked: dict[str, Any], processes: Callable[..., Any], types: Callable[[UUID], list[str]]
    ) -> None:
        (process,) = processes("account.reconnect")

        assert (process["state"], process["title"]) == ("waiting", ANN)
        assert process["subject_id"] == office.fleet.account(office.tenant)["account_id"]
        assert (revoked["input_type"], revoked["state"]) == ("RECONNECT_ACCOUNT", "open")
        assert types(process["process_id"]) == ["process_created", "user_input_required"]

    def test_it_asks_once(self, office: Office, revoked: dict[str, Any], processes: Callable[..., Any]) -> None:
        office.fleet.sync()
        service.tend(office.fleet.database)

        assert len(processes("account.reconnect")) == 1
        assert len(office.fleet.rows("select 1 from process.questions")) == 1

    def test_connecting_it_again_settles_the_matter(
        self, office: Office, google: GoogleControl, revoked: dict[str, Any], processes: Callable[..., Any]
    ) -> None:
        google.restore_grant(ANN)

        office.fleet.google(office.tenant, google, account=office.account)

        (process,) = processes("account.reconnect")
        assert process["state"] == "completed"
        assert office.fleet.one("select state from process.questions")["state"] == "withdrawn"

    def test_so_does_any_other_way_and_removing_it(
        self, office: Office, revoked: dict[str, Any], processes: Callable[..., Any]
    ) -> None:
        office.fleet.execute("update sync.accounts set state = 'connected', state_since = now()")

        service.tend(office.fleet.database)

        (process,) = processes("account.reconnect")
        assert process["state"] == "completed"

    def test_removing_the_account_withdraws_it(
        self, office: Office, revoked: dict[str, Any], processes: Callable[..., Any]
    ) -> None:
        account = office.fleet.account(office.tenant)["account_id"]

        connecting.disconnect(office.fleet.database, tenant_id=office.tenant.tenant_id, account_id=account)

        (process,) = processes("account.reconnect")
        assert process["state"] == "cancelled"
        assert office.fleet.one("select state from process.questions")["state"] == "withdrawn"

    def test_whoever_dismisses_it_is_not_asked_again(
        self, office: Office, revoked: dict[str, Any], processes: Callable[..., Any]
    ) -> None:
        with office.fleet.database.transaction() as connection:
            service.answer(
                connection,
                tenant_id=office.tenant.tenant_id,
                process_id=revoked["process_id"],
                question_id=revoked["question_id"],
                answer={"action": "dismiss"},
                by="ann",
            )

        service.tend(office.fleet.database)

        (process,) = processes("account.reconnect")
        assert process["state"] == "completed"

    def test_nothing_else_is_an_answer(self, office: Office, revoked: dict[str, Any]) -> None:
        with (
            pytest.raises(service.InvalidAnswer),
            office.fleet.database.transaction() as connection,
        ):
            service.answer(
                connection,
                tenant_id=office.tenant.tenant_id,
                process_id=revoked["process_id"],
                question_id=revoked["question_id"],
                answer={"action": "reconnect"},
                by="ann",
            )


class TestMending:
    """What a crash leaves between a run and what tells of it."""

    def test_an_account_that_nobody_was_asked_about_is_asked_about(
        self, office: Office, processes: Callable[..., Any]
    ) -> None:
        office.fleet.run()
        office.fleet.execute("update sync.accounts set state = 'needs_reauth', state_since = now()")

        first, second = service.tend(office.fleet.database), service.tend(office.fleet.database)

        assert (first["mended"], second["mended"]) == (1, 0)
        assert [one["state"] for one in processes("account.reconnect")] == ["waiting"]

    @pytest.mark.parametrize("state", ["pending", "running"])
    def test_a_first_sync_whose_calendar_is_synced_is_done(
        self, office: Office, processes: Callable[..., Any], state: str
    ) -> None:
        office.fleet.execute(f"update process.processes set state = '{state}'")
        office.fleet.execute(AGED)
        office.fleet.execute("update sync.calendars set state = 'synced', state_since = now() - interval '1 minute'")

        service.tend(office.fleet.database)

        (process,) = processes()
        assert (process["state"], process["result"]) == ("completed", {"noticed_afterwards": True})

    def test_one_whose_run_has_just_ended_is_left_to_it(self, office: Office, processes: Callable[..., Any]) -> None:
        office.fleet.execute("update process.processes set state = 'running'")
        office.fleet.execute("update sync.calendars set state = 'synced', state_since = now()")

        assert service.tend(office.fleet.database)["mended"] == 0

    def test_one_whose_worker_is_gone_waits_for_the_next(
        self, office: Office, google: GoogleControl, processes: Callable[..., Any]
    ) -> None:
        office.fleet.execute("update process.processes set state = 'running'")
        office.fleet.execute(AGED)
        service.tend(office.fleet.database)
        (gone,) = processes()

        office.fleet.run()

        (process,) = processes()
        assert (gone["state"], gone["retry_count"]) == ("pending", 1)
        assert process["state"] == "completed"

    def test_one_that_a_dead_run_left_is_taken_over_by_the_next(
        self, office: Office, processes: Callable[..., Any]
    ) -> None:
        office.fleet.execute("update process.processes set state = 'running', attempt = 1")

        office.fleet.run()

        (process,) = processes()
        assert (process["state"], process["attempt"]) == ("completed", 2)

    def test_one_whose_calendar_is_lost_has_failed(self, office: Office, processes: Callable[..., Any]) -> None:
        office.fleet.execute("update sync.calendars set state = 'lost'")

        service.tend(office.fleet.database)

        (process,) = processes()
        assert process["state"] == "failed"

    def test_a_wanted_sync_that_nobody_told_of_is_done_once_all_was_tried(
        self, office: Office, wanted: Callable[[], None], processes: Callable[..., Any]
    ) -> None:
        office.fleet.run()
        wanted()
        office.fleet.execute(AGED)
        before = service.tend(office.fleet.database)["mended"]
        office.fleet.execute("update sync.calendars set last_attempt_at = now() + interval '1 second'")

        after = service.tend(office.fleet.database)["mended"]

        assert (before, after) == (0, 1)
        assert [one["state"] for one in processes("sync.now")] == ["completed"]

    def test_a_wanted_sync_that_no_worker_begins_has_failed_after_an_hour(
        self, office: Office, wanted: Callable[[], None], processes: Callable[..., Any]
    ) -> None:
        wanted()
        office.fleet.execute("update process.processes set deadline_at = deadline_at - interval '1 hour'")

        service.tend(office.fleet.database)

        assert [one["state"] for one in processes("sync.now")] == ["failed"]


def test_a_run_whose_telling_fails_is_a_run_like_any_other(
    office: Office, google: GoogleControl, processes: Callable[..., Any]
) -> None:
    google.seed(ANN, ANN, SeedSpec(events=12))
    office.fleet.execute(
        "create function process.spoil() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$"
    )
    office.fleet.execute(
        "create trigger spoil before update on process.processes for each row execute function process.spoil()"
    )

    office.fleet.run()

    office.fleet.execute("drop function process.spoil() cascade")
    assert office.fleet.calendar(office.tenant)["state"] == "synced"
    assert len(office.fleet.events(office.tenant)) > 0
    office.fleet.execute(AGED)
    office.fleet.execute(SETTLED)
    service.tend(office.fleet.database)
    assert [one["state"] for one in processes()] == ["completed"]


def test_a_tenant_sees_its_own_syncs_alone(fleet: Fleet, google: GoogleControl, processes: Callable[..., Any]) -> None:
    tenants: list[TenantHandle] = [fleet.tenant(), fleet.tenant()]
    for tenant in tenants:
        fleet.google(tenant, google, email=f"{tenant.name}@example.test")

    fleet.run()

    assert {(one["tenant_id"], one["state"]) for one in processes()} == {
        (tenant.tenant_id, "completed") for tenant in tenants
    }
