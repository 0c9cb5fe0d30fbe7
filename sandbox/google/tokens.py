"""Sync tokens and page tokens: opaque texts that carry their own binding and cannot be made up."""

import base64
import binascii
import hashlib
import struct
from dataclasses import astuple, dataclass
from typing import ClassVar, TypeVar

_MAC_BYTES = 8
Claims = TypeVar("Claims", "SyncClaims", "PageClaims")


@dataclass(frozen=True, slots=True)
class SyncClaims:
    """`owner` numbers a calendar or an account's calendar list; `serial` lets single tokens be forgotten."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">IQQQI")
    owner: int
    params: int
    revision: int
    issued_ms: int
    serial: int


@dataclass(frozen=True, slots=True)
class PageClaims:
    """`ceiling` is the revision that the list's sync token will stand for, fixed by its first page."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">IQQIQI")
    owner: int
    query: int
    position: int
    sub: int
    ceiling: int
    serial: int


class TokenMint:
    def __init__(self, name: str) -> None:
        self._key = hashlib.blake2b(name.encode(), digest_size=32).digest()

    def write(self, claims: SyncClaims | PageClaims, *, length: int = 64) -> str:
        """The text is padded to `length` (a multiple of four) and always ends with a `=`."""
        head = claims.LAYOUT.pack(*astuple(claims))
        return self._seal(head, -(-length // 4) * 3 - 1)

    def read(self, text: str, kind: type[Claims]) -> Claims | None:
        """None for anything that this mint did not write as it stands, down to the last padding byte."""
        try:
            raw = base64.b64decode(text, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        head = raw[: kind.LAYOUT.size]
        if len(raw) < kind.LAYOUT.size + _MAC_BYTES or self._seal(head, len(raw)) != text:
            return None
        return kind(*kind.LAYOUT.unpack(head))

    def _seal(self, head: bytes, size: int) -> str:
        """The filler follows from the seal, so a token cut or stretched at its end is refused as well."""
        mac = hashlib.blake2b(head, key=self._key, digest_size=_MAC_BYTES).digest()
        missing = size - len(head) - _MAC_BYTES
        filler = b"" if missing <= 0 else hashlib.shake_128(mac).digest(missing)
        return base64.urlsafe_b64encode(head + mac + filler).decode()


def digest(parts: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big")
