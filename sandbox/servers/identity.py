"""As whom a server runs that refuses to be root (PostgreSQL does)."""

from __future__ import annotations

import os
import pwd
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Identity:
    uid: int
    gid: int

    def can_search(self, path: Path) -> bool:
        """Whether this user may walk down to `path`: every folder above it needs the x bit for them."""
        return all(self._may_enter(folder.stat()) for folder in path.resolve().parents)

    def _may_enter(self, status: os.stat_result) -> bool:
        if status.st_uid == self.uid:
            return bool(status.st_mode & 0o100)
        if status.st_gid == self.gid:
            return bool(status.st_mode & 0o010)
        return bool(status.st_mode & 0o001)

    def own(self, path: Path) -> None:
        os.chown(path, self.uid, self.gid)


def unprivileged() -> Identity | None:
    """None when we are an ordinary user already; else `nobody`, whom every system has: none need be made."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return Identity(entry.pw_uid, entry.pw_gid)


def needs_search_capability(identity: Identity, *paths: Path) -> bool:
    """A checkout below /root and pytest's folders are closed to `nobody`; only Linux offers a way in."""
    return sys.platform == "linux" and not all(identity.can_search(path) for path in paths)
