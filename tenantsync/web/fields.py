"""Kinds of fields that requests share, as strict as the API's description says they are."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_EMAIL = re.compile(r"[^@\s<>\"(),:;\\\[\]]{1,64}@[^@\s<>\"(),:;\\\[\]]{1,189}")
MOST_SEQUENCE = 2**53 - 1  # what JavaScript counts to


def _canonical(value: Any) -> Any:
    if isinstance(value, UUID) or (isinstance(value, str) and _UUID.fullmatch(value)):
        return value
    raise ValueError("should be a UUID like 0191f3c0-7b1e-7cc3-9f10-6d3b1c1f2a10")


def _email(value: str) -> str:
    clean = value.strip()
    if not _EMAIL.fullmatch(clean) or not clean.isprintable():
        raise ValueError("should be an e-mail address")
    return clean


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("should have printable characters alone")
    return value


def utc(value: datetime) -> str:
    """A moment as every answer shows it."""
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _flag(value: Any) -> Any:
    if value not in (True, False, "true", "false"):
        raise ValueError("should be true or false")
    return value in (True, "true")


Flag = Annotated[bool, BeforeValidator(_flag)]
"""A boolean in a query: `true` or `false`, and none of the words that are often taken for them."""
Id = Annotated[UUID, BeforeValidator(_canonical)]
Email = Annotated[str, Field(min_length=3, max_length=254, examples=["ann@example.com"]), AfterValidator(_email)]
Line = Annotated[str, AfterValidator(_printable)]
Moment = Annotated[datetime, PlainSerializer(utc, return_type=str, when_used="json")]
Sequence = Annotated[int, Field(ge=0, le=MOST_SEQUENCE, strict=True)]


class Body(BaseModel):
    """What a request sends: unknown fields are refused, and numbers are not read out of strings."""

    model_config = ConfigDict(extra="forbid", strict=False)


class Shown(BaseModel):
    """What an answer shows."""

    model_config = ConfigDict(from_attributes=True)
