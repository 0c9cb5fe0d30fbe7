"""Comparing two sides. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from db.repositories.auditing import StoredEvent, StoredResource
from tenantsync.calendars.digests import digest_of_stored
from tenantsync.calendars.provider import Listed

_MOMENTS = frozenset(
    {"deleted_at", "starts_at", "ends_at", "original_start", "provider_updated_at", "created_at", "started_at",
     "completed_at", "estimated_completion_at"}
)  # fmt: skip
OPTIONAL = "_optional"
"""Of an expected row: it may be absent."""


@dataclass(frozen=True, slots=True)
class Differences:
    """Resources on which provider and Postgres disagree; for each what the provider has (None: nothing)."""

    by_resource: Mapping[str, str | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.by_resource)

    def persisting(self, earlier: "Differences") -> "Differences":
        """Those that stood before a further sync with the same data at the provider, and stand after it.

        A resource that the provider changed in between may simply not have been fetched yet.
        """
        return Differences(
            {
                resource: digest
                for resource, digest in self.by_resource.items()
                if resource in earlier.by_resource and earlier.by_resource[resource] == digest
            }
        )


def by_resource(rows: Iterable[StoredEvent]) -> dict[str, StoredResource]:
    """What is held of each resource. Raw data is hashed again: a digest column proves nothing by itself."""
    digests: dict[str, set[str]] = {}
    shown: set[str] = set()
    for row in rows:
        honest = digest_of_stored(row.raw) in (row.digest, None)
        digests.setdefault(row.resource, set()).add(row.digest if honest else f"not {row.digest}")
        if row.visible:
            shown.add(row.resource)
    return {name: StoredResource(frozenset(found), name in shown) for name, found in digests.items()}


def compare_calendar(listed: Mapping[str, Listed], stored: Mapping[str, StoredResource]) -> Differences:
    """Where a calendar at its provider and in Postgres differ.

    What neither side shows is equal: a provider may or may not repeat the cancelled instances of a series
    that is gone.
    """
    found: dict[str, str | None] = {}
    for resource, there in listed.items():
        here = stored.get(resource)
        if here is None:
            if there.visible:
                found[resource] = there.digest
        elif there.digest not in here.digests:
            found[resource] = there.digest
    for resource, here in stored.items():
        if resource not in listed and here.visible:
            found[resource] = None
    return Differences(found)


@dataclass(slots=True)
class MirrorDifferences:
    """Where Postgres and Supabase differ, by row id."""

    rows: int = 0
    missing: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    differing: dict[str, str] = field(default_factory=dict)
    """Row id to the first column that differs."""

    def __bool__(self) -> bool:
        return bool(self.missing or self.surplus or self.differing)

    @property
    def count(self) -> int:
        return len(self.missing) + len(self.surplus) + len(self.differing)

    def persisting(self, earlier: "MirrorDifferences") -> "MirrorDifferences":
        """Those that stood before already: what differs only once was on its way."""
        return MirrorDifferences(
            self.rows,
            [row for row in self.missing if row in earlier.missing],
            [row for row in self.surplus if row in earlier.surplus],
            {row: column for row, column in self.differing.items() if row in earlier.differing},
        )


def key_of(row: Mapping[str, Any]) -> str:
    """What a mirrored row is ordered and named by; an event of a process by that and its number."""
    return f"{row['process_id']}/{row['sequence']:019}" if "sequence" in row else str(row["id"])


def compare_rows(expected: Iterator[dict[str, Any]], mirrored: Iterator[dict[str, Any]]) -> MirrorDifferences:
    """Compare two streams of rows, both ordered by key, column by column."""
    result = MirrorDifferences()
    ours, theirs = next(expected, None), next(mirrored, None)
    while ours is not None or theirs is not None:
        if theirs is None or (ours is not None and key_of(ours) < key_of(theirs)):
            assert ours is not None  # noqa: S101 — narrows the type
            result.rows += 1
            if not ours.get(OPTIONAL):
                result.missing.append(key_of(ours))
            ours = next(expected, None)
        elif ours is None or key_of(theirs) < key_of(ours):
            result.surplus.append(key_of(theirs))
            theirs = next(mirrored, None)
        else:
            result.rows += 1
            column = first_difference(ours, theirs)
            if column is not None:
                result.differing[key_of(ours)] = column
            ours, theirs = next(expected, None), next(mirrored, None)
    return result


def first_difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """The first column of ours that theirs does not have with the same value; None when all agree."""
    for name, value in ours.items():
        if name == OPTIONAL:
            continue
        if name not in theirs or _plain(name, value) != _plain(name, theirs[name]):
            return name
    return None


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if name in _MOMENTS and isinstance(value, str):
        return datetime.fromisoformat(value)
    return value
