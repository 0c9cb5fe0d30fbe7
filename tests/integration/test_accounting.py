"""Every expected occurrence of a unit is accounted for, whatever becomes of it; and where it is not, it is named."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from config.queues import Lane
from db.ids import new_id
from db.repositories import accounting, accounts, units
from sandbox.google.control import GoogleControl
from sandbox.google.specs import Fault, SeedSpec
from tenantsync.accounting import service
from tests.support.accounting import Ledger
from tests.support.fleet import Fleet, TenantHandle
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures

pytest_plugins = ["tests.support.accounting_fixtures"]

ANN = "ann@example.test"
BOTH_LATER = """
with u as (update sync.units set next_due_at = now() + interval '3 hours')
update sync.calendars set next_due_at = now() + interval '3 hours'
"""


@pytest.fixture
def acme(ledger: Ledger, google: GoogleControl) -> TenantHandle:
    """A tenant with a small calendar, listed before anything was expected of it."""
    account = google.create_account(ANN)
    google.seed(ANN, ANN, SeedSpec(events=3, series_every=0))
    tenant = ledger.fleet.tenant("acme")
    ledger.fleet.google(tenant, google, account=account)
    ledger.fleet.run()
    return tenant


def test_a_quiet_run_is_done_and_stands_for_those_before_it(ledger: Ledger, acme: TenantHandle) -> None:
    ledger.pass_time(5)

    ledger.fleet.run()

    assert ledger.slots(acme) == (1, 0, 0, 4)
    assert ledger.closes()["expected"] == 5


def test_a_changed_run_is_done(ledger: Ledger, google: GoogleControl, acme: TenantHandle) -> None:
    ledger.pass_time()
    google.churn(1, account=ANN)

    ledger.fleet.sync()

    assert ledger.slots(acme) == (1, 0, 0, 0)
    ledger.closes()


def test_an_extra_run_counts_nowhere(ledger: Ledger, acme: TenantHandle) -> None:
    ledger.pass_time()
    ledger.fleet.sync()
    ledger.fleet.sync()

    ledger.fleet.sync()

    assert ledger.slots(acme) == (1, 0, 0, 0)
    ledger.closes()


def test_what_is_due_and_has_not_run_yet_is_in_flight(ledger: Ledger, acme: TenantHandle) -> None:
    ledger.pass_time(3)

    found = ledger.closes()

    assert (found["expected"], found["in_flight"], found["swept"]) == (3, 3, 0)


def test_failures_count_as_failed_and_backoff_as_skipped(
    ledger: Ledger, google: GoogleControl, acme: TenantHandle
) -> None:
    google.add_fault(Fault(kind="status", status=503, account=ANN, times=None))
    ledger.pass_time()
    ledger.fleet.sync()
    ledger.pass_time(2)
    resting = ledger.closes()
    google.clear_faults()

    ledger.pass_time(100)
    ledger.fleet.run()

    assert resting["swept"] == 2
    assert ledger.slots(acme) == (1, 1, 2 + 99, 0)
    ledger.closes()


def test_a_closed_account_is_skipped_until_it_opens(ledger: Ledger, google: GoogleControl, acme: TenantHandle) -> None:
    google.add_fault(Fault(kind="status", status=429, account=ANN, retry_after=1000, times=1))
    ledger.pass_time()
    ledger.fleet.sync()
    ledger.pass_time(2)
    ledger.closes()
    ledger.fleet.due()
    ledger.fleet.run()
    ledger.closes()

    ledger.pass_time(30)
    ledger.fleet.run()

    done, failed, skipped, superseded = ledger.slots(acme)
    assert (done, failed) == (1, 1)
    assert skipped + superseded == 2 + 29
    assert skipped >= 2
    ledger.closes()


def test_a_revoked_account_is_skipped_until_it_is_connected_again(
    ledger: Ledger, google: GoogleControl, acme: TenantHandle
) -> None:
    google.revoke_grant(ANN)
    ledger.pass_time()
    ledger.fleet.sync()
    ledger.pass_time(10)

    found = ledger.closes()

    assert found["swept"] == 10
    assert ledger.slots(acme) == (0, 1, 10, 0)


def test_nothing_is_expected_in_a_pause(ledger: Ledger, acme: TenantHandle) -> None:
    ledger.pass_time(2)
    ledger.pause(acme)
    ledger.pass_time(50)
    paused = ledger.closes()
    ledger.resume(acme)
    ledger.pass_time(3)

    ledger.fleet.run()

    assert paused["expected"] == 2
    assert ledger.closes()["expected"] == 2 + 3
    assert ledger.slots(acme) == (1, 0, 0, 4)


def test_a_run_that_ends_in_a_pause_counts_up_to_where_it_began(ledger: Ledger, acme: TenantHandle) -> None:
    ledger.pass_time(2)
    claimed = ledger.fleet.claim(Lane.SYNC)
    ledger.pause(acme)
    ledger.pass_time(4)
    ledger.fleet.run_batch(Lane.SYNC, claimed)
    ledger.resume(acme)

    ledger.pass_time()
    ledger.fleet.sync()

    assert sum(ledger.slots(acme)) == ledger.closes()["expected"] == 2 + 1


def test_a_tenant_is_paused_once_and_resumed_once(ledger: Ledger, acme: TenantHandle) -> None:
    with ledger.fleet.database.transaction() as connection:
        opened = [accounting.open_pause(connection, tenant_id=acme.tenant_id, by="b", reason=None) for _ in range(2)]
        closed = [accounting.close_pause(connection, tenant_id=acme.tenant_id) for _ in range(2)]

    assert (opened, closed) == ([True, False], [True, False])
    (row,) = ledger.fleet.rows("select paused_at, resumed_at from sync.pauses")
    assert row["paused_at"] < row["resumed_at"]


def test_another_interval_counts_from_when_it_was_declared(ledger: Ledger, acme: TenantHandle) -> None:
    ledger.pass_time(4)
    ledger.declare(ledger.every / 2)
    ledger.pass_time(3)

    ledger.fleet.run()

    assert ledger.closes()["expected"] == sum(ledger.slots(acme)) == 4 + 2 * 3


def test_the_policy_follows_the_setting_and_is_written_once(ledger: Ledger) -> None:
    ledger.fleet.execute("delete from sync.policies")

    ledger.audit()
    ledger.audit()

    assert [row["every"] for row in ledger.fleet.rows("select every from sync.policies")] == [ledger.every]


def test_a_unit_without_calendars_is_skipped(ledger: Ledger, acme: TenantHandle) -> None:
    ledger.fleet.tenant("empty")
    with ledger.fleet.database.transaction() as connection:
        account_id = ledger.fleet.account(acme)["account_id"]
        accounts.remove(connection, tenant_id=acme.tenant_id, account_id=account_id)
    ledger.pass_time()
    ledger.fleet.sync()
    ledger.pass_time(3)

    found = ledger.closes()

    assert ledger.slots(acme) == (0, 0, 4, 0)
    assert (found["expected"], found["checked"]) == (8, 2)


def test_an_account_that_is_added_later_is_expected_from_then_on(
    ledger: Ledger, google: GoogleControl, acme: TenantHandle
) -> None:
    late = ledger.fleet.tenant("late")
    ledger.pass_time(2)
    ledger.closes()
    ledger.fleet.google(late, google, account=google.create_account("bob@example.test"))

    ledger.fleet.run()
    ledger.pass_time()
    ledger.fleet.sync()

    assert ledger.slots(late) == (1, 0, 2, 0)
    ledger.closes()


def test_a_parked_unit_is_skipped_until_it_is_released(ledger: Ledger, acme: TenantHandle) -> None:
    ledger.park(acme)
    ledger.pass_time(7)
    found = ledger.closes()
    with ledger.fleet.database.transaction() as connection:
        units.release(connection, unit_id=acme.workspace_id)

    ledger.pass_time()
    ledger.fleet.sync()

    assert found["swept"] == 7
    assert ledger.slots(acme) == (1, 0, 7, 0)
    ledger.closes()


def test_a_run_whose_worker_died_is_in_flight_until_it_was_run_again(ledger: Ledger, acme: TenantHandle) -> None:
    ledger.pass_time()
    ledger.fleet.due()
    claimed = ledger.fleet.claim(Lane.SYNC)
    start(ledger.fleet, [(unit.unit_id, unit.fence) for unit in claimed])
    ledger.closes()
    ledger.pass_time()
    ledger.closes()

    ledger.fleet.run_lane(Lane.SYNC)
    ledger.fleet.run()

    assert ledger.slots(acme) == (1, 0, 0, 1)
    ledger.closes()


def start(fleet: Fleet, pairs: Any) -> None:
    with fleet.database.statement() as connection:
        units.start(connection, batch_id=new_id(), units=pairs, worker="doomed", lease=timedelta(seconds=5))


def test_two_workers_do_not_account_twice(
    ledger: Ledger, make_fleet: Callable[..., Fleet], google: GoogleControl, acme: TenantHandle
) -> None:
    other = make_fleet(worker="worker-2")
    ledger.pass_time(2)
    slow = ledger.fleet.claim(Lane.SYNC)
    ledger.fleet.execute("update sync.units set lease_until = now() - interval '1 second'")
    ledger.fleet.execute("update sync.turns set ready_at = now() where lane = 'sync'")

    fast = other.claim(Lane.SYNC)
    other.run_batch(Lane.SYNC, fast)
    ledger.fleet.run_batch(Lane.SYNC, slow)

    assert len(slow) == len(fast) == 1
    assert ledger.slots(acme) == (1, 0, 0, 1)
    ledger.closes()


def test_a_first_sync_that_moves_to_the_bulk_lane_is_one_occurrence(
    ledger: Ledger, google: GoogleControl, acme: TenantHandle
) -> None:
    google.seed(ANN, ANN, SeedSpec(events=3000, series_every=0))
    ledger.pass_time()
    ledger.fleet.due()
    ledger.fleet.run_lane(Lane.SYNC)
    moved = ledger.slots(acme)
    ledger.closes()

    ledger.fleet.run()

    assert moved == (0, 0, 0, 0)
    assert ledger.slots(acme) == (1, 0, 0, 0)
    ledger.closes()


@pytest.mark.parametrize(
    ("sabotage", "missing", "doubled"),
    [
        ("update sync.units set next_due_at = 'infinity'", 2, 0),
        ("update sync.units set next_due_at = now() + interval '3 hours'", 2, 0),
        (BOTH_LATER, 2, 0),
        ("update sync.units set next_due_at = 'infinity', rest = 'backoff'", 2, 0),
        ("update sync.turns set ready_at = 'infinity'", 2, 0),
        ("update sync.turns set ready_at = now() + interval '5 minutes'", 2, 0),
        ("update sync.turns set paused = true", 2, 0),
        ("update sync.units set accounted_to = now()", 2, 0),
        ("update sync.units set slots_done = slots_done - 1", 1, 0),
        ("update sync.units set slots_done = slots_done + 1", 0, 1),
        ("update sync.units set slots_skipped = slots_skipped + 3", 0, 3),
        ("update sync.units set accounted_to = accounted_to - interval '1 day'", 0, 4),
    ],
)  # fmt: skip
def test_what_was_lost_or_doubled_is_named(
    ledger: Ledger, acme: TenantHandle, sabotage: str, missing: int, doubled: int
) -> None:
    ledger.pass_time(4)
    ledger.fleet.run()
    ledger.pass_time(2)
    ledger.closes()
    ledger.fleet.execute(sabotage)

    found = ledger.audit()

    assert (found["missing"], found["doubled"]) == (missing, doubled)
    (name,) = found["names"]
    assert (name["tenant"], name["unit"]) == (str(acme.tenant_id), str(acme.workspace_id))
    assert name["tick"] is not None
    assert found["expected"] - found["accounted"] == found["missing"] - found["doubled"]


def test_a_lost_wake_up_that_was_mended_is_missing_no_longer(ledger: Ledger, acme: TenantHandle) -> None:
    ledger.pass_time(2)
    ledger.fleet.execute("update sync.units set next_due_at = 'infinity'")
    missing = ledger.audit()["missing"]

    ledger.fleet.sync()

    assert missing == 2
    ledger.closes()


def test_a_round_goes_on_where_the_audit_before_ended(ledger: Ledger, acme: TenantHandle) -> None:
    for number in range(6):
        ledger.fleet.tenant(f"more-{number}")
    ledger.pass_time(2)
    ledger.fleet.execute("update sync.units set slots_done = slots_done + 1 where tenant_id = :t", t=acme.tenant_id)

    found = [ledger.partly(units=2) for _ in range(4)]

    assert [one["round"] is None for one in found] == [False, False, False, True]
    assert [one["doubled"] for one in found] == [1, 1, 1, 1]
    assert (found[-1]["checked"], found[-1]["expected"]) == (7, 14)


@pytest.mark.parametrize(
    ("done", "behind", "missing", "doubled"),
    [(240, "10 seconds", 0, 0), (239, "10 seconds", 1, 0), (241, "10 seconds", 0, 1), (240, "5 minutes", 20, 0)],
)
def test_a_periodic_job_is_held_against_its_ticks(
    ledger: Ledger, done: int, behind: str, missing: int, doubled: int
) -> None:
    ledger.fleet.execute(
        "insert into worker.schedules (entry, kind, every, policy, since, last_tick, done)"
        " select 'job', 'job', interval '15 s', 'all', m - interval '1 hour', m, :done"
        "   from (select date_bin('15 s', now(), 'epoch') - date_bin('15 s', cast(:behind as interval)"
        "         + timestamptz 'epoch', 'epoch') + timestamptz 'epoch' as m) x",
        done=done,
        behind=behind,
    )

    found = service.reckon(ledger.fleet.database, ledger.fleet.settings, entries={"job"})
    ledger.fleet.execute("delete from worker.schedules")

    assert (found["doubled"], found["jobs"]) == (doubled, 1)
    assert found["missing"] - missing in (0, 1 if missing == 20 else 0)
    assert [name["entry"] for name in found["names"]] == ["job"] * (missing + doubled > 0)
