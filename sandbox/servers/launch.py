"""Turns itself into the command that follows, after settling how that command dies and as whom it runs.

    launch.py PARENT SIGNAL [UID GID SEARCH] -- COMMAND ...

It is run as a script, by path, with no imports of ours, before any privilege is dropped. A `preexec_fn` would
do the same inside a fork of a threaded Python, where a lock that another thread holds hangs the child.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def _call(function: str, *args: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*args) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{function}: {os.strerror(code)}")


def _keep_search_capability() -> None:
    """Keep the one capability that walks into folders of other users, across setuid and exec.

    Reading is enough and preferred; a container often has only the wider CAP_DAC_OVERRIDE to give.
    """
    header = _Header(CAPABILITY_VERSION_3, 0)
    sets = (_Sets * 2)()
    _call("capget", ctypes.byref(header), sets)
    wanted = next((c for c in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE) if sets[0].permitted >> c & 1), None)
    if wanted is None:
        return
    sets[0] = _Sets(1 << wanted, 1 << wanted, 1 << wanted)
    sets[1] = _Sets(0, 0, 0)
    _call("capset", ctypes.byref(header), sets)
    _call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, wanted, 0, 0)


def _become(uid: int, gid: int, *, search: bool) -> None:
    if search:
        _call("prctl", PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if search:
        _keep_search_capability()


def _die_with(parent: int, death_signal: int) -> None:
    """Must follow setuid, which clears the setting; only Linux has it."""
    if sys.platform == "linux":
        _call("prctl", PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above could notice
        sys.exit(1)


def _restore_signals() -> None:
    """Python ignores SIGPIPE, and an ignored signal stays ignored across exec."""
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def main(arguments: list[str]) -> None:
    split = arguments.index("--")
    numbers = [int(each) for each in arguments[:split]]
    command = arguments[split + 1 :]
    parent, death_signal, *identity = numbers
    if identity:
        uid, gid, search = identity
        _become(uid, gid, search=bool(search))
    _die_with(parent, death_signal)
    _restore_signals()
    os.execv(command[0], command)  # noqa: S606 — it replaces this process


if __name__ == "__main__":
    main(sys.argv[1:])
