"""Ids: UUIDv7, made here and not by the database, so that they sort by creation and name their month."""

from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """A fresh UUIDv7 (RFC 9562 §5.7)."""
    return uuid7()


def first_id_at(moment: datetime) -> UUID:
    """The lowest UUIDv7 that can have been made at `moment`: a bound for partitions and age queries."""
    milliseconds = int(moment.astimezone(UTC).timestamp() * 1000)
    return UUID(int=(milliseconds << 80) | (0x7 << 76) | (0b10 << 62))
