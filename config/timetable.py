"""What an entry of the timetable is. The timetable itself stands in beat_schedule.py."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal, get_args

from config.queues import Queue

Policy = Literal["latest", "all", "skip"]
"""What becomes of occurrences that were missed, in an outage for instance.

`latest`: the newest is done, however late; those before it are skipped. `all`: every one is done, the oldest
first. `skip`: none is done late; the next one that comes in time is.
"""
POLICIES: tuple[str, ...] = get_args(Policy)


@dataclass(frozen=True, slots=True)
class Entry:
    """A task that is owed at every multiple of `every` since 1970, in UTC, and what becomes of a missed one."""

    task: str
    every: timedelta
    policy: Policy
    queue: Queue = Queue.MAINTENANCE
    setting: str | None = None
    """The setting that takes the place of `every`, by its name."""


def followed(entries: Mapping[str, Entry], settings: object) -> dict[str, Entry]:
    """The entries as they are followed: intervals that are settings are those that were set."""
    return {
        name: entry if entry.setting is None else replace(entry, every=getattr(settings, entry.setting))
        for name, entry in entries.items()
    }
