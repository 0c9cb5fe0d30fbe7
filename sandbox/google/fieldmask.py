"""Partial responses: the `fields` parameter, nested with slashes and parentheses."""

import re
from typing import Any

from sandbox.google.codec import JsonDict, decode, encode
from sandbox.google.errors import ApiError

# Maps a field to its own mask; None stands for all of it.
Mask = dict[str, Any]
_TOKEN = re.compile(r"[A-Za-z0-9_.$*-]+|[,()/]")


def parse_mask(text: str) -> Mask:
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != text.replace(" ", "") or not tokens:
        raise _invalid(text)
    mask, rest = _fields(tokens, text)
    if rest:
        raise _invalid(text)
    return mask


def apply_mask(mask: Mask | None, value: Any) -> Any:
    if mask is None or "*" in mask:
        return value
    if isinstance(value, list):
        return [apply_mask(mask, item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: apply_mask(mask[key], value[key]) for key in value if key in mask}


def mask_body(mask: Mask | None, body: bytes) -> bytes:
    return body if mask is None else encode(apply_mask(mask, decode(body)))


def mask_items(mask: Mask, headline: JsonDict, items: list[bytes] | None) -> tuple[JsonDict, list[bytes] | None]:
    """Masks a list without parsing items that are wanted whole or not at all."""
    kept = apply_mask({key: value for key, value in mask.items() if key != "items"}, headline)
    if items is None or not {"items", "*"} & mask.keys():
        return kept, None
    inner = mask.get("items")
    return kept, items if inner is None else [mask_body(inner, item) for item in items]


def _fields(tokens: list[str], text: str) -> tuple[Mask, list[str]]:
    mask: Mask = {}
    while True:
        name, inner, tokens = _field(tokens, text)
        mask[name] = inner
        if not tokens or tokens[0] != ",":
            return mask, tokens
        tokens = tokens[1:]


def _field(tokens: list[str], text: str) -> tuple[str, Mask | None, list[str]]:
    if not tokens or tokens[0] in ",()/":
        raise _invalid(text)
    name, tokens = tokens[0], tokens[1:]
    if tokens[:1] == ["/"]:
        child, inner, tokens = _field(tokens[1:], text)
        return name, {child: inner}, tokens
    if tokens[:1] == ["("]:
        mask, tokens = _fields(tokens[1:], text)
        if tokens[:1] != [")"]:
            raise _invalid(text)
        return name, mask, tokens[1:]
    return name, None, tokens


def _invalid(text: str) -> ApiError:
    return ApiError(400, "invalidParameter", f"Invalid field selection {text[:80]}", location="fields")
