"""Changing the encryption key: everything is sealed anew, nothing is lost, and one broken seal stops nobody else."""

import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from db.ids import new_id
from sandbox.google.control import GoogleControl
from sandbox.google.specs import AccountInfo, SeedSpec
from tenantsync.calendars import connecting
from tenantsync.vault import SealBroken, Vault
from tests.support.fleet import KEY, Fleet, TenantHandle, events_equal_truth

ANN, BOB = "ann@example.test", "bob@example.test"
NEW_KEY = base64.urlsafe_b64encode(b"n" * 32).decode()
OLD_RING = f"1:{KEY}"
BOTH = f"2:{NEW_KEY},1:{KEY}"
NEW_RING = f"2:{NEW_KEY}"
RINGS = {OLD_RING: {1: b"k" * 32}, NEW_RING: {2: b"n" * 32}}


@pytest.fixture
def ann(google: GoogleControl) -> AccountInfo:
    account = google.create_account(ANN)
    google.seed(ANN, ANN, SeedSpec(events=5))
    return account


@pytest.fixture
def acme(fleet: Fleet, google: GoogleControl, ann: AccountInfo) -> TenantHandle:
    """A tenant whose credentials and access token are sealed with the old key."""
    tenant = fleet.tenant("acme")
    fleet.google(tenant, google, account=ann)
    fleet.run()
    return tenant


@pytest.fixture
def rotate(fleet: Fleet, make_fleet: Callable[..., Fleet]) -> Callable[[], int]:
    """`tenantsync keys rotate`, with the new key first."""
    settings = make_fleet(encryption_keys=BOTH).settings
    return lambda: connecting.rotate_keys(fleet.database, settings)


def numbers(fleet: Fleet) -> set[int]:
    """Numbers of the keys that anything is sealed with."""
    sealed = fleet.rows("select credentials, access_token from sync.accounts")
    return {bytes(value)[0] for row in sealed for value in row.values() if value is not None}


def plant_sealed(fleet: Fleet, tenant: TenantHandle, number: int) -> None:
    """Accounts with credentials under the old key, straight into Postgres."""
    vault = Vault(RINGS[OLD_RING])
    for _ in range(number):
        account = new_id()
        sealed = vault.seal(b"{}", tenant_id=tenant.tenant_id, account_id=account, column="credentials")
        fleet.execute(
            "insert into sync.accounts (account_id, tenant_id, workspace_id, provider, identity, credentials)"
            " values (:account, :tenant, :workspace, 'google', cast(:account as text), :sealed)",
            account=account,
            tenant=tenant.tenant_id,
            workspace=tenant.workspace_id,
            sealed=sealed,
        )


def test_after_a_rotation_the_new_key_alone_suffices(
    fleet: Fleet,
    make_fleet: Callable[..., Fleet],
    google: GoogleControl,
    acme: TenantHandle,
    rotate: Callable[[], int],
) -> None:
    changed = rotate()
    google.churn(5, account=ANN)
    google.expire_access_tokens(ANN)

    make_fleet(worker="worker-2", encryption_keys=NEW_RING).sync()

    assert changed == 1
    assert numbers(fleet) == {2}
    events_equal_truth(fleet, acme, google, ANN, ANN)


def test_a_rotation_changes_the_seals_and_not_what_is_sealed(
    fleet: Fleet, acme: TenantHandle, rotate: Callable[[], int]
) -> None:
    account = fleet.account(acme)
    place = {"tenant_id": acme.tenant_id, "account_id": account["account_id"]}
    opened = {
        column: Vault(RINGS[OLD_RING]).open(account[column], **place, column=column)
        for column in ("credentials", "access_token")
    }

    rotate()

    after = fleet.account(acme)
    vault = Vault(RINGS[NEW_RING])
    assert {column: vault.open(after[column], **place, column=column) for column in opened} == opened


def test_a_rotation_that_has_nothing_left_to_do_answers_zero(acme: TenantHandle, rotate: Callable[[], int]) -> None:
    assert [rotate(), rotate()] == [1, 0]


def test_before_the_rotation_both_keys_serve(
    fleet: Fleet, make_fleet: Callable[..., Fleet], google: GoogleControl, acme: TenantHandle
) -> None:
    google.churn(5, account=ANN)

    make_fleet(worker="worker-2", encryption_keys=BOTH).sync()

    events_equal_truth(fleet, acme, google, ANN, ANN)


def test_a_rotation_reaches_every_account_of_a_large_fleet(fleet: Fleet, rotate: Callable[[], int]) -> None:
    plant_sealed(fleet, fleet.tenant(), 205)
    plant_sealed(fleet, fleet.tenant(), 205)

    assert rotate() == 410
    assert numbers(fleet) == {2}


def test_a_rotation_passes_over_accounts_that_hold_nothing(
    fleet: Fleet, acme: TenantHandle, rotate: Callable[[], int]
) -> None:
    account_id: UUID = fleet.account(acme)["account_id"]
    connecting.disconnect(fleet.database, tenant_id=acme.tenant_id, account_id=account_id)

    assert rotate() == 0


def test_two_rotations_at_once_do_the_work_once(fleet: Fleet, rotate: Callable[[], int]) -> None:
    plant_sealed(fleet, fleet.tenant(), 150)

    with ThreadPoolExecutor(2) as pool:
        changed = [one.result() for one in [pool.submit(rotate), pool.submit(rotate)]]

    assert sum(changed) == 150
    assert numbers(fleet) == {2}


def test_a_rotation_tells_supabase_nothing(fleet: Fleet, acme: TenantHandle, rotate: Callable[[], int]) -> None:
    fleet.clear_outbox()

    rotate()

    assert fleet.rows("select * from mirror.outbox") == []


def test_a_rotation_without_the_old_key_names_it_and_changes_nothing(
    fleet: Fleet, make_fleet: Callable[..., Fleet], acme: TenantHandle
) -> None:
    settings = make_fleet(encryption_keys=NEW_RING).settings
    before = fleet.account(acme)

    with pytest.raises(SealBroken, match="key 1"):
        connecting.rotate_keys(fleet.database, settings)

    assert fleet.account(acme) == before


def test_one_seal_that_is_broken_does_not_keep_the_others_from_the_new_key(
    fleet: Fleet, acme: TenantHandle, rotate: Callable[[], int]
) -> None:
    plant_sealed(fleet, fleet.tenant("other"), 5)
    fleet.execute("update sync.accounts set credentials = set_byte(credentials, 20, get_byte(credentials, 20) # 1)"
                  " where tenant_id = :tenant", tenant=acme.tenant_id)  # fmt: skip

    with pytest.raises(SealBroken, match=str(fleet.account(acme)["account_id"])):
        rotate()

    others = fleet.rows("select credentials from sync.accounts where tenant_id <> :acme", acme=acme.tenant_id)
    assert {bytes(row["credentials"])[0] for row in others} == {2}


# A seal that does not open

DAMAGE = {
    "altered": "set_byte(credentials, 20, get_byte(credentials, 20) # 1)",
    "cut short": "substring(credentials from 1 for 6)",
    "emptied": "''::bytea",
    "of another row": "(select b.credentials from sync.accounts b where b.identity = 'bob@example.test')",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=[name.replace(" ", "_") for name in DAMAGE])
def test_an_account_whose_seal_is_broken_says_so_and_stops_no_other_of_its_unit(
    fleet: Fleet, google: GoogleControl, acme: TenantHandle, damage: str
) -> None:
    bob = google.create_account(BOB)
    google.seed(BOB, BOB, SeedSpec(events=3))
    fleet.google(acme, google, account=bob)
    fleet.execute(f"update sync.accounts set credentials = {damage} where identity = :ann", ann=ANN)

    fleet.sync()

    assert fleet.unit(acme)["state"] == "idle"
    assert "seal_broken" in fleet.calendar(acme, ANN)["last_error"]
    assert fleet.calendar(acme, BOB)["state"] == "synced"
    events_equal_truth(fleet, acme, google, BOB, BOB)
