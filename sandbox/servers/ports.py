"""Free TCP ports on the loopback."""

from __future__ import annotations

import random
import socket
import sys
from pathlib import Path

HOST = "127.0.0.1"
LOWEST = 15_000  # below lie the well-known ports of databases and web servers
_ATTEMPTS = 200
_handed_out: set[int] = set()


def is_free(port: int) -> bool:
    """As a server would find it: connections that are closed for good are no obstacle.

    On macOS SO_REUSEADDR would also bind beside a listener on every address, so there they are one.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if sys.platform == "linux":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _first_ephemeral() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        return 49_152  # the default of macOS and of IANA


def _kernel_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def free_port() -> int:
    """A port below the ephemeral range, where no outgoing connection takes it while its server restarts.

    Another process may still draw the same one; `Server.start` tries the next one then.
    """
    highest = _first_ephemeral() - 1
    for _ in range(_ATTEMPTS if highest - LOWEST > _ATTEMPTS else 0):
        port = random.randint(LOWEST, highest)
        if port not in _handed_out and is_free(port):
            _handed_out.add(port)
            return port
    return _kernel_port()
