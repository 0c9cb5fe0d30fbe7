"""What the parts of processes hand to one another, and how they refuse."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID


class Addressed(Protocol):
    """Whose events are published. With an attempt, only as long as that attempt runs the process."""

    @property
    def process_id(self) -> UUID: ...
    @property
    def tenant_id(self) -> UUID: ...
    @property
    def attempt(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Address:
    """A process, told by somebody who does not run it."""

    process_id: UUID
    tenant_id: UUID
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A process that we run, under this attempt. `memo`: results of the steps that earlier attempts finished."""

    process_id: UUID
    tenant_id: UUID
    attempt: int
    kind: str
    workspace_id: UUID | None = None
    subject_id: UUID | None = None
    queue: str | None = None
    step: str | None = None
    retry_count: int = 0
    max_retries: int = 0
    memo: Mapping[str, Any] = field(default_factory=dict)


class Wish(StrEnum):
    """What a run hears when it renews its lease."""

    GO_ON = "go_on"
    PAUSE = "pause"
    """Somebody wants it paused: `pause_here` at the next step."""
    CANCEL = "cancel"
    """Somebody wants it no more: `cancel_here` at once."""
    LOST = "lost"
    """The process is somebody else's or over; nothing of this run may be written any more."""


@dataclass(frozen=True, slots=True)
class NewQuestion:
    """A question to a person. A process asks each `name` once; a resumed run finds the answer under it.

    `options`: texts, or objects with a `title`; an answer chooses one by its index, its `value` or its `id`.
    `actions`: words that may be answered instead. Without options the answer is any JSON, as `answer_schema` allows.
    Nobody answers within `deadline`: `default_answer` counts, and where there is none the process fails.
    """

    name: str
    input_type: str
    prompt: str = ""
    options: Sequence[Any] = ()
    actions: Sequence[str] = ()
    answer_schema: Mapping[str, Any] | None = None
    deadline: timedelta | None = None
    remind_after: timedelta | None = None
    default_answer: Any = None


class ProcessLost(Exception):
    """A newer attempt runs the process, or it is over: nothing of this one was written."""


class ProcessUnknown(LookupError):
    """The tenant has no such process."""


class MoveRefused(Exception):
    """A process cannot do what a person wants of it now. Says why."""


class AnswerRefused(Exception):
    """An answer was not taken. Says why, and quotes nothing of it."""


class NotFound(AnswerRefused):
    """The process has asked no such question."""


class AlreadyAnswered(AnswerRefused):
    """The question is not open any more."""


class InvalidAnswer(AnswerRefused):
    """The answer is none that the question allows."""
