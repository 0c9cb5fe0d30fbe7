"""Digests of raw data: the same for the sync that stores and for the audit that compares."""

from hashlib import blake2b

import orjson


def digest(raw: bytes) -> str:
    """128 bits of BLAKE2b, in hex."""
    return blake2b(raw, digest_size=16).hexdigest()


def digest_of_stored(raw: str) -> str | None:
    """The digest of raw data as Postgres gives it back; None where that cannot be computed anew.

    jsonb keeps neither the order of keys nor the spelling of numbers: what was hashed was orjson's spelling, with
    sorted keys, and that is made again here.
    """
    try:
        return digest(orjson.dumps(orjson.loads(raw), option=orjson.OPT_SORT_KEYS))
    except (TypeError, ValueError):
        return None
