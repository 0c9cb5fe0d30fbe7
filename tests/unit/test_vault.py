"""Credentials at rest: only the right key opens them, and only where they belong."""

from uuid import UUID, uuid4

import pytest

from tenantsync.vault import SealBroken, Vault

ONE, TWO, THREE = (bytes([number]) * 32 for number in (1, 2, 3))
TENANT, ACCOUNT = uuid4(), uuid4()
SECRET = b'{"refresh_token": "1//0g-quite-secret"}'


def place(tenant: UUID = TENANT, account: UUID = ACCOUNT, column: str = "credentials") -> dict[str, object]:
    return {"tenant_id": tenant, "account_id": account, "column": column}


@pytest.fixture
def vault() -> Vault:
    return Vault({1: ONE})


@pytest.fixture
def sealed(vault: Vault) -> bytes:
    return vault.seal(SECRET, **place())


@pytest.mark.parametrize("plain", [SECRET, b"", b"\x00", b"x" * 1_000_000])
def test_what_was_sealed_opens_in_its_place(vault: Vault, plain: bytes) -> None:
    assert vault.open(vault.seal(plain, **place()), **place()) == plain


def test_a_value_opens_as_the_driver_hands_it_over(vault: Vault, sealed: bytes) -> None:
    assert vault.open(memoryview(sealed), **place()) == SECRET


def test_nothing_of_the_plain_value_shows(sealed: bytes) -> None:
    assert b"secret" not in sealed
    assert b"refresh" not in sealed


def test_the_same_value_never_looks_the_same_twice(vault: Vault) -> None:
    seen = {vault.seal(SECRET, **place())[1:13] for _ in range(200)}

    assert len(seen) == 200


@pytest.mark.parametrize(
    "elsewhere",
    [
        place(tenant=uuid4()),
        place(account=uuid4()),
        place(column="access_token"),
        place(tenant=ACCOUNT, account=TENANT),
    ],
    ids=["another tenant", "another account", "another column", "tenant and account swapped"],
)
def test_a_value_does_not_open_in_another_place(vault: Vault, sealed: bytes, elsewhere: dict[str, object]) -> None:
    with pytest.raises(SealBroken):
        vault.open(sealed, **elsewhere)


@pytest.mark.parametrize("position", [1, 12, 13, -1], ids=["nonce", "nonce's end", "text", "tag"])
def test_a_value_that_was_altered_does_not_open(vault: Vault, sealed: bytes, position: int) -> None:
    altered = bytearray(sealed)
    altered[position] ^= 1

    with pytest.raises(SealBroken):
        vault.open(bytes(altered), **place())


@pytest.mark.parametrize("length", [0, 1, 5, 12, 13, 20, 28])
def test_a_value_that_was_cut_short_does_not_open(vault: Vault, sealed: bytes, length: int) -> None:
    with pytest.raises(SealBroken):
        vault.open(sealed[:length], **place())


def test_another_key_of_the_same_number_does_not_open(sealed: bytes) -> None:
    with pytest.raises(SealBroken):
        Vault({1: TWO}).open(sealed, **place())


def test_the_first_key_of_the_ring_seals_whatever_its_number() -> None:
    sealed = Vault({2: TWO, 7: THREE, 1: ONE}).seal(SECRET, **place())

    assert Vault({2: TWO}).open(sealed, **place()) == SECRET


def test_every_key_of_the_ring_opens_what_it_sealed() -> None:
    old = Vault({1: ONE}).seal(SECRET, **place())
    new = Vault({2: TWO}).seal(SECRET, **place())

    ring = Vault({2: TWO, 1: ONE})

    assert (ring.open(old, **place()), ring.open(new, **place())) == (SECRET, SECRET)


def test_only_what_the_first_key_sealed_is_current() -> None:
    ring = Vault({2: TWO, 1: ONE})

    assert not ring.is_current(Vault({1: ONE}).seal(SECRET, **place()))
    assert ring.is_current(memoryview(ring.seal(SECRET, **place())))


def test_a_key_that_left_the_ring_is_named_with_the_account_and_what_to_do(sealed: bytes) -> None:
    with pytest.raises(SealBroken) as broken:
        Vault({2: TWO}).open(sealed, **place())

    assert "key 1" in str(broken.value)
    assert str(ACCOUNT) in str(broken.value)
    assert "ENCRYPTION_KEYS" in str(broken.value)


def test_a_value_of_another_place_is_reported_with_the_account_and_without_the_value(
    vault: Vault, sealed: bytes
) -> None:
    with pytest.raises(SealBroken) as broken:
        vault.open(sealed, **place(tenant=uuid4()))

    assert str(ACCOUNT) in str(broken.value)
    assert "secret" not in str(broken.value)
    assert broken.value.__cause__ is None


def test_a_vault_shows_no_key(vault: Vault) -> None:
    assert ONE.hex() not in repr(vault)
    assert repr(ONE) not in repr(vars(vault))
