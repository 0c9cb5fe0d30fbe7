"""JSON in and out, and times as the Calendar API writes them."""

import json
from datetime import UTC, datetime
from typing import Any

import orjson

JsonDict = dict[str, Any]


def encode(value: object) -> bytes:
    """Poisoned texts hold lone surrogates, which orjson refuses; the standard library escapes them."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def decode(body: bytes) -> JsonDict:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = json.loads(body)
    if not isinstance(value, dict):
        raise TypeError("an object is needed")
    return value


def compact(body: bytes) -> bytes:
    """A copy of its own size: orjson's results keep the 8 kB buffer that they were written in."""
    return bytes(memoryview(body))


def iso_ms(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def etag_of(ms: int) -> str:
    return f'"{ms * 2000}"'


def parse_moment(text: str) -> datetime:
    """An RFC 3339 text with its offset; ValueError without one, as the API demands it."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("an offset is mandatory")
    return moment.astimezone(UTC)
