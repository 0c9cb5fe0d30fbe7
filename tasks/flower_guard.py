"""Closes what Flower leaves open: `/metrics` and `/healthcheck` answer anybody, password or not.

Here they answer without a password only to whoever is inside: a direct connection from a private or
loopback address, such as a container's health check or a Prometheus in the same network. A request that
came through a proxy counts as coming from outside.
"""

import ipaddress
from collections.abc import Callable, Coroutine
from typing import Any

from flower.views.monitor import Healthcheck, Metrics

_FORWARDED = ("X-Forwarded-For", "X-Real-Ip", "Forwarded", "Via")


def from_inside(remote_ip: str, headers: Any) -> bool:
    """Whether a request comes straight from a private or loopback address."""
    if any(name in headers for name in _FORWARDED):
        return False
    try:
        address = ipaddress.ip_address(remote_ip)
    except ValueError:
        return remote_ip == ""  # a unix socket
    return address.is_private or address.is_loopback


def _guarded(get: Callable[[Any], Coroutine[Any, Any, None]]) -> Callable[[Any], Coroutine[Any, Any, None]]:
    async def guarded(handler: Any) -> None:
        if not from_inside(handler.request.remote_ip, handler.request.headers):
            handler.get_current_user()  # answers 401 unless the password is right
        await get(handler)

    return guarded


def close_open_pages() -> None:
    """Put the guard before both pages. Called once, by flowerconfig.py."""
    for page in (Metrics, Healthcheck):
        page.get = _guarded(page.get)
