"""What travels between the parts of the client."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ProcessEvent:
    """What happened in a process. Numbers begin at 1 and have no gaps, but for events that were archived."""

    id: str
    process_id: str
    type: str
    sequence: int
    category: str
    priority: int
    """1 is to be shown first, 10 last."""
    source: str
    created_at: str
    """ISO 8601."""
    data: Mapping[str, Any]

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> "ProcessEvent":
        """From the JSON of the HTTP API. Raises Unavailable for what is no event."""
        try:
            return cls(
                id=told["id"],
                process_id=told["process_id"],
                type=told["event_type"],
                sequence=int(told["event_sequence"]),
                category=told["event_category"],
                priority=int(told["event_priority"]),
                source=told["event_source"],
                created_at=told["created_at"],
                data=told["event_data"],
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise Unavailable(f"the server told of an event that is none ({type(error).__name__})") from None

    def as_json(self) -> dict[str, Any]:
        """As the HTTP API says it."""
        return {
            "id": self.id,
            "process_id": self.process_id,
            "event_type": self.type,
            "event_sequence": self.sequence,
            "event_category": self.category,
            "event_priority": self.priority,
            "event_source": self.source,
            "created_at": self.created_at,
            "event_data": self.data,
        }


@dataclass(frozen=True, slots=True)
class Gap:
    """Events that are not to be had any more: archived, because they were old."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The connection stands."""


@dataclass(frozen=True, slots=True)
class Ring:
    """There is something new to fetch, up to a number if that is known."""

    up_to: int = 0


class Refused(Exception):
    """No further try can help: the request is wrong, or not allowed."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Unavailable(Exception):
    """It did not work this time."""


def is_over(event: ProcessEvent) -> bool:
    """Whether a process has come to its end with this event."""
    if event.type == "process_error":
        return event.data.get("error_type") != "recoverable"
    return event.type in ("process_completed", "process_cancelled")
