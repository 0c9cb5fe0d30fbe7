"""HTTP requests, and what their answers mean."""

import contextlib
import socket
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from tenantsync_client.values import Refused, Unavailable

Token = str | Callable[[], str] | None
"""As it is, or asked for before each attempt."""
_LATER = (408, 429)


def token_of(token: Token) -> str | None:
    return token() if callable(token) else token


def checked(answer: httpx.Response, *, renewable: bool) -> httpx.Response:
    """The answer, if it is one. Raises Refused or Unavailable."""
    if answer.is_success:
        return answer
    told = _told(answer)
    status = answer.status_code
    if status == httpx.codes.UNAUTHORIZED and renewable:
        raise Unavailable(told)
    if httpx.codes.is_client_error(status) and status not in _LATER:
        raise Refused(told, status)
    raise Unavailable(told)


def json_of(answer: httpx.Response) -> Any:
    """What an answer holds. Raises Unavailable."""
    try:
        return answer.json()
    except (ValueError, RecursionError):
        raise Unavailable("the server answered with something else than JSON") from None


def _told(answer: httpx.Response) -> str:
    """What a problem document says, or the status where there is none."""
    with contextlib.suppress(ValueError, AttributeError, RecursionError, httpx.HTTPError):
        answer.read()
        told: Mapping[str, Any] = answer.json()
        return f"{answer.status_code} " + ": ".join(str(told[one]) for one in ("title", "detail") if told.get(one))
    return f"{answer.status_code} {answer.reason_phrase}".strip()


def hang_up(answer: httpx.Response) -> None:
    """Let a thread that waits for more of an answer go; closing alone would leave it waiting."""
    stream = answer.extensions.get("network_stream")
    wire = stream.get_extra_info("socket") if stream is not None else None
    if wire is not None:
        with contextlib.suppress(OSError):
            wire.shutdown(socket.SHUT_RDWR)
