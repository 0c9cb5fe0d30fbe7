"""Race points: named places between two steps, where a test stops, kills or reorders, and a trace is taken.

`reach` does nothing unless a hook is installed. A trace (TRACE_FILE) is one JSON object a line: the point, the
process, the thread, a number that grows, seconds of a clock that never steps, and ids, fences and versions.
`sandbox/tracecheck.py` replays it against the model of the protocol.
"""

import itertools
import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import orjson

POINTS = {
    "claim.asked": "a dispatcher is about to claim units of a lane",
    "claim.committed": "units are claimed under new fences, their batches written down; no message is out yet",
    "batch.published": "the message of a batch has been handed to the broker",
    "start.asked": "a worker has a message and is about to start its units",
    "start.committed": "those whose fence still stood are running; their lease has begun",
    "fence.asked": "a run is about to take its fence for a write",
    "fence.answered": "the fence was taken, and its row is held until the commit; or it was refused",
    "changed.written": "rows, cursor, outbox and ledger of a changed run are written and not committed",
    "changed.committed": "they are committed, and the run has ended",
    "quiet.asked": "runs without rows to write are about to be ended",
    "quiet.committed": "those whose fence still stood have ended",
    "renew.asked": "a heartbeat is about to renew the leases of a process",
    "renew.committed": "they are renewed; runs that were not are lost",
    "back.asked": "a worker that was told to stop is about to give units up",
    "back.committed": "those whose fence still stood are due again",
    "outbox.asked": "a sender is about to lease tenants that have rows to send",
    "outbox.leased": "they are leased, and their wake-up is consumed",
    "outbox.keys_taken": "it has read which keys wait",
    "outbox.rows_read": "it has read what those rows are now; nothing is on the wire yet",
    "outbox.sent": "Supabase has answered for them; nothing is acknowledged yet",
    "outbox.acknowledged": "what arrived is forgotten, up to the version sent",
    "outbox.renewing": "a sender is about to extend its leases",
    "outbox.renewed": "they are extended; those that were not stand as they were, or are somebody else's",
    "occurrence.planned": "what an entry owes by now is written down, and one is noted as sent; no message is out yet",
    "occurrence.published": "the message of an occurrence has been handed to the broker",
    "occurrence.asked": "a worker has its message and is about to begin it",
    "occurrence.begun": "it holds the occurrence under a new attempt, or leaves it alone",
    "occurrence.ending": "the job is done and its end is about to be written",
    "occurrence.ended": "the end is written, or was refused because the occurrence is somebody else's",
    "task.taking": "an intake is about to write down a task that was asked for at Supabase",
    "task.taken": "the task and its process are committed; Supabase does not know yet",
    "task.sending": "tasks are marked as sent; no message is out yet",
    "task.begun": "a worker holds a task under a new attempt, or leaves it alone",
    "task.ending": "the handler is done, and what came of it is about to be written",
    "outbox.releasing": "the sender is about to give its tenants back",
    "outbox.released": "they are given back",
}
"""What has just happened where. A test holds this table to the calls of `reach` in the code."""


class Hook(Protocol):
    """Runs in the thread that reached the point. What it raises comes out there."""

    def __call__(self, point: str, facts: Mapping[str, Any]) -> None: ...


_hook: Hook | None = None


def reach(point: str, **facts: Any) -> None:
    """Say that this point is reached. Facts are passed as they are; whoever hooks in takes the ids out of them."""
    if _hook is not None:
        _hook(point, facts)


def install(hook: Hook | None) -> None:
    """From now on, in this process; None removes the hook."""
    global _hook  # noqa: PLW0603 — one hook a process
    _hook = hook


@contextmanager
def hooked(hook: Hook) -> Iterator[None]:
    """The hook, for the length of a block."""
    before = _hook
    install(hook)
    try:
        yield
    finally:
        install(before)


class Recorder:
    """A hook that appends a line for every point to a file, which any number of processes may share.

    A line is one write to a file opened for appending, so the order of lines is the order of events, whatever
    the clocks say. It begins with the newline: one that was cut off by a kill spoils no other.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._numbers = itertools.count(1)

    def __call__(self, point: str, facts: Mapping[str, Any]) -> None:
        line = {
            "point": point,
            "pid": os.getpid(),
            "thread": threading.get_ident(),
            "n": next(self._numbers),
            "t": round(time.monotonic(), 6),
            **{name: _plain(fact) for name, fact in facts.items() if name in KEPT},
        }
        os.write(self._file, b"\n" + orjson.dumps(line, option=orjson.OPT_NON_STR_KEYS))

    def close(self) -> None:
        os.close(self._file)


KEPT = frozenset(
    {"lane", "units", "unit", "tenant", "fence", "taken", "started", "ended", "lost", "returned", "lease", "entity",
     "held", "renewed", "keys", "rows", "entry", "task", "attempt", "won"}
)  # fmt: skip
"""The facts that a trace may hold."""
_IDS = ("unit_id", "tenant_id", "fence", "row_id", "id", "version", "lease_until", "lost")
"""Of values and rows, nothing else gets into a trace."""


def _plain(fact: Any) -> Any:
    if fact is None or isinstance(fact, bool | int | float | str):
        return fact
    if isinstance(fact, UUID | datetime):
        return str(fact)
    if isinstance(fact, timedelta):
        return fact.total_seconds()
    if isinstance(fact, Mapping):
        return {name: _plain(fact[name]) for name in _IDS if name in fact}
    if isinstance(fact, Collection):
        return [_plain(one) for one in fact]
    return {name: _plain(getattr(fact, name)) for name in _IDS if hasattr(fact, name)}
