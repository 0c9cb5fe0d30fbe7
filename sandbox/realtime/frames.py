"""Phoenix messages as they travel: objects in version 1.0.0, arrays in 2.0.0, and broadcasts in binary there. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

OBJECTS, ARRAYS = "1.0.0", "2.0.0"
VERSIONS = (OBJECTS, ARRAYS)
PUSHED, DELIVERED = 3, 4  # kinds of binary frames: from a client, to a client
AS_BYTES, AS_JSON = 0, 1
_SHORT = 255  # a length takes one byte


class BadFrame(ValueError):
    """Not a message of the protocol."""


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    event: str
    payload: dict[str, Any]
    ref: str | None = None
    join_ref: str | None = None


def encode(version: str, message: Message) -> str | bytes:
    """What a client of that version reads."""
    if version == OBJECTS:
        parts = {"ref": message.ref, "topic": message.topic, "event": message.event, "payload": message.payload}
        return json.dumps(parts)
    if message.event == "broadcast" and (frame := _delivered(message)):
        return frame
    return json.dumps([message.join_ref, message.ref, message.topic, message.event, message.payload])


def decode(version: str, data: str | bytes) -> Message:
    """What a client of that version wrote."""
    try:
        if isinstance(data, bytes):
            return _pushed(data)
        parts = json.loads(data)
        if version == ARRAYS:
            join_ref, ref, topic, event, payload = parts
        else:
            join_ref, ref = parts.get("join_ref"), parts.get("ref")
            topic, event, payload = parts["topic"], parts["event"], parts.get("payload")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BadFrame(f"not a message of version {version}") from error
    if not isinstance(topic, str) or not isinstance(event, str) or not isinstance(payload, dict | None):
        raise BadFrame("topic, event or payload is of the wrong kind")
    return Message(topic, event, payload or {}, _text(ref), _text(join_ref))


def _text(ref: Any) -> str | None:
    return None if ref is None else str(ref)


def _delivered(message: Message) -> bytes | None:
    """A broadcast for a client, or None where a part is too long for the one byte of its length."""
    meta = json.dumps(message.payload["meta"]).encode() if message.payload.get("meta") else b""
    parts = [message.topic.encode(), str(message.payload.get("event", "")).encode(), meta]
    if any(len(part) > _SHORT for part in parts):
        return None
    body = json.dumps(message.payload.get("payload")).encode()
    return bytes([DELIVERED, *(len(part) for part in parts), AS_JSON]) + b"".join(parts) + body


def _pushed(data: bytes) -> Message:
    if len(data) < 7 or data[0] != PUSHED:
        raise BadFrame("not a broadcast")
    lengths, encoding, at = data[1:6], data[6], 7
    parts = []
    for length in lengths:
        parts.append(data[at : at + length].decode())
        at += length
    join_ref, ref, topic, event, meta = parts
    if encoding != AS_JSON:
        raise BadFrame("broadcasts of bytes are not understood here")
    payload = {"type": "broadcast", "event": event, "payload": json.loads(data[at:])}
    if meta:
        payload["meta"] = json.loads(meta)
    return Message(topic, "broadcast", payload, ref or None, join_ref or None)
