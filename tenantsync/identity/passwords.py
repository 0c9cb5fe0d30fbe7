"""Passwords: argon2id, a few at a time, and the same work for people who do not exist."""

import secrets
import threading
from functools import lru_cache

from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError

SHORTEST = 10
LONGEST = 512
AT_ONCE = 2  # each takes 64 MiB and most of a core for 50 ms

_hasher = PasswordHash.recommended()
_places = threading.BoundedSemaphore(AT_ONCE)


class PasswordUnfit(ValueError):
    """A password that we do not take; says why."""


def check_fit(password: str, *, email: str) -> None:
    """Raise PasswordUnfit for what is too short, endless, or the address itself."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise PasswordUnfit(f"a password should have {SHORTEST} to {LONGEST} characters")
    if password.casefold() in (email.casefold(), email.partition("@")[0].casefold()):
        raise PasswordUnfit("a password should not be the e-mail address")
    if len(set(password)) < 4:
        raise PasswordUnfit("a password should have at least four different characters")


def hashed(password: str) -> str:
    """What is stored of a password."""
    with _places:
        return _hasher.hash(password)


def matches(password: str, stored: str | None) -> bool:
    """Whether this is the password. Takes as long where there is none, so that nobody learns who has one."""
    with _places:
        try:
            right = _hasher.verify(password, stored or _nobodys())
        except UnknownHashError:
            right = False
    return right and stored is not None


@lru_cache(maxsize=1)
def _nobodys() -> str:
    return _hasher.hash(secrets.token_urlsafe(32))
