"""Limited memory for the children of a worker that serves nothing but quarantine and the isolated lane.

What a unit there takes beyond the limit is refused by the kernel and becomes a MemoryError of that run, not
the end of everything else on the machine. (`worker_max_memory_per_child` looks only when a message is done.)
"""

import resource
from collections.abc import Iterable
from pathlib import Path

from config.queues import Queue

CONFINED = frozenset({Queue.QUARANTINE.value, Queue.ISOLATED.value})
MEGABYTE = 2**20


def is_confined(queues: Iterable[str]) -> bool:
    """Whether a worker that serves these queues runs its children in limited memory."""
    served = set(queues)
    return bool(served) and served <= CONFINED


def limit_memory(megabytes: int) -> None:
    """Let this process take so much more memory than it has now, for good. On Linux; elsewhere nothing happens."""
    held = _data_now()
    if held is not None:
        # RLIMIT_DATA counts private writable mappings; RLIMIT_AS would count libraries and thread stacks never used.
        resource.setrlimit(resource.RLIMIT_DATA, (held + megabytes * MEGABYTE, held + megabytes * MEGABYTE))


def _data_now() -> int | None:
    """Bytes of private writable mappings."""
    try:
        with Path("/proc/self/status").open(encoding="ascii") as status:
            lines = dict(line.split(":", 1) for line in status if ":" in line)
    except OSError:
        return None
    return int(lines["VmData"].split()[0]) * 1024
