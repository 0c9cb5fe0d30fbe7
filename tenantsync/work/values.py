"""What may be kept as JSON: checked before it reaches a column, so that what is wrong with it can be said. Pure."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from tenantsync.processes import event_types

LARGEST = event_types.LARGEST  # bytes of a result or a payload, as JSON
DEEPEST = 64  # levels; what a browser's JSON viewer and Postgres' parser both take without ado
_WIDEST = 2**63
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,40}")


BEYOND = object()
"""A value that could not even be read."""


class NotJson(ValueError):
    """A value that JSON, Postgres or a browser cannot hold. The text says where and why, and repeats no content."""


def as_json(value: Any, *, about: str, largest: int = LARGEST) -> Any:
    """The value as JSON has it: plain objects, arrays, texts, numbers. Raises NotJson.

    What comes back is what a later run reads again, so that a step gives the same the first time and the second.
    """
    plain = _plain(value, about, 0)
    size = len(json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode())
    if size > largest:
        raise NotJson(f"{about} is {size} bytes of JSON, and at most {largest} are kept")
    return plain


def as_object(value: Any, *, about: str) -> dict[str, Any] | None:
    """A mapping or a model as a JSON object; None stays None. Raises NotJson."""
    if value is None:
        return None
    if value is BEYOND:
        raise NotJson(f"{about} is nested too deep, or holds a number that is too large")
    if not isinstance(value, Mapping | BaseModel):
        raise NotJson(f"{about} is a {type(value).__name__}: it should be a mapping or a model")
    plain: dict[str, Any] = as_json(value, about=about)
    return plain


def as_text(value: str) -> str:
    """The text without what no text column can hold."""
    return value.encode("utf-8", "replace").decode().replace("\x00", "")


def _plain(value: Any, where: str, depth: int) -> Any:
    if depth > DEEPEST:
        raise NotJson(f"{where.partition('.')[0]} is nested deeper than {DEEPEST} levels")
    match value:
        case BaseModel():
            return _plain(value.model_dump(mode="json"), where, depth)
        case None | bool():
            return value
        case str():
            return _text(value, where)
        case int():
            if not -_WIDEST <= value < _WIDEST:
                raise NotJson(f"{where} is a number of more than 64 bits")
            return int(value)
        case float():
            if not math.isfinite(value):
                raise NotJson(f"{where} is {value}, which JSON does not have")
            return float(value)
        case Mapping():
            return {_key(key, where): _plain(one, _below(where, key), depth + 1) for key, one in value.items()}
        case list() | tuple():
            return [_plain(one, f"{where}[{place}]", depth + 1) for place, one in enumerate(value)]
        case _:
            raise NotJson(f"{where} is a {type(value).__name__}, which is not JSON")


def _below(where: str, key: object) -> str:
    """A place inside an object; a key that does not look like a name may be somebody's text, and is not repeated."""
    return f"{where}.{key}" if isinstance(key, str) and _PLAIN_KEY.fullmatch(key) else f"{where}.…"


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise NotJson(f"{where} has a key that is a {type(key).__name__}: keys are texts")
    return _text(key, f"a key of {where}")


def _text(value: str, where: str) -> str:
    if "\x00" in value:
        raise NotJson(f"{where} holds a NUL character, which Postgres does not keep")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise NotJson(f"{where} holds half of a character (a lone surrogate)") from None
    return str(value)
