"""Credentials at rest: AES-256-GCM under a key ring, each value bound to its row and column.

Sealed form: one byte for the key's number, 12 bytes of nonce, then ciphertext and tag. The additional
authenticated data names tenant, account and column, so that a value copied to another row, or read as
another tenant's, does not open.
"""

import os
from collections.abc import Mapping
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE = 12


class SealBroken(Exception):
    """A sealed value does not open: it belongs to another row, was altered, or its key left the ring."""


class Vault:
    """Seals and opens with a ring of keys; the first key of the ring seals."""

    def __init__(self, ring: Mapping[int, bytes]) -> None:
        self._keys = {number: AESGCM(key) for number, key in ring.items()}
        self.primary = next(iter(ring))

    def seal(self, plain: bytes, *, tenant_id: UUID, account_id: UUID, column: str) -> bytes:
        nonce = os.urandom(_NONCE)
        bound = _bound_to(tenant_id, account_id, column)
        return bytes((self.primary,)) + nonce + self._keys[self.primary].encrypt(nonce, plain, bound)

    def open(self, sealed: bytes | memoryview, *, tenant_id: UUID, account_id: UUID, column: str) -> bytes:
        """The plain value. Raises SealBroken, naming the account and the key's number."""
        box = bytes(sealed)
        key = self._keys.get(box[0]) if box else None
        if key is None:
            raise SealBroken(
                f"account {account_id}: sealed with key {box[0] if box else '?'}, which is not in ENCRYPTION_KEYS; "
                "put that key back behind the first one and run `python -m tenantsync keys rotate`"
            )
        try:
            return key.decrypt(box[1 : 1 + _NONCE], box[1 + _NONCE :], _bound_to(tenant_id, account_id, column))
        except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
            raise SealBroken(f"account {account_id}: its {column} were altered or belong to another row") from None

    def is_current(self, sealed: bytes | memoryview) -> bool:
        """Whether the value was sealed with the ring's first key."""
        return bytes(sealed[:1]) == bytes((self.primary,))


def _bound_to(tenant_id: UUID, account_id: UUID, column: str) -> bytes:
    return b"|".join((tenant_id.bytes, account_id.bytes, column.encode()))
