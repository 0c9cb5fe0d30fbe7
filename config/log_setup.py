"""Logging: one stream of constant event names with fields, as JSON or as columns, secrets blotted out."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from config.settings import Settings

_SECRET_KEYS = re.compile(r"(token|secret|password|credential|authorization|api_?key|cookie)", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"(Bearer\s+|Basic\s+|sb_secret_|(?:access_token|refresh_token|client_secret|api_?key|password|sync_?token)[\"']?\s*[=:]\s*[\"']?)"
    r"[^\s\"'&,}]+|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)|eyJ[\w-]{8,}(?:\.[\w-]*){0,2}|tsr_[\w-]{8,}",
    re.IGNORECASE,
)
BLOT = "[hidden]"
_CHATTY = (
    "httpx", "httpcore", "hpack", "websockets", "kombu", "amqp", "celery.worker.strategy", "celery.app.trace",
    "celery.beat",
)  # fmt: skip
"""Three lines a tick, eighty thousand ticks a day: what they say is in worker.tasks and in Flower. Those that speak
with others tell of headers and keys besides."""


def blot(text: str) -> str:
    """The text without tokens, passwords in addresses and values of secret-looking keys."""
    return _SECRET_TEXT.sub(lambda found: (found.group(1) or "") + BLOT, text)


def hide_secrets(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: the last line of defence, for what a caller logs by mistake."""
    for key, value in event.items():
        event[key] = _hidden(value, under="" if key == "event" else key)
    return event


def _hidden(value: Any, *, under: str = "") -> Any:
    if _SECRET_KEYS.search(under):
        return BLOT
    if isinstance(value, str):
        return blot(value)
    if isinstance(value, dict):
        return {key: _hidden(inner, under=str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(inner) for inner in value]
    return value


def setup_logging(settings: Settings) -> None:
    """Send structlog's and the standard library's records through one formatter to standard error."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    final = [structlog.processors.format_exc_info, hide_secrets, renderer]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.log_level)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(max(root.level, logging.WARNING))
