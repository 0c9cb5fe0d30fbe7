"""The types of events: what each carries, where it belongs, and how it is published.

A project registers its own beside ours (`register`); whatever is published under a name that nobody registered, or
does not fit its type's payload, is refused before anything is written.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

LARGEST = 262_144  # bytes of JSON; Supabase's column refuses more, and a browser that follows live has to parse it
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class PayloadRefused(ValueError):
    """An event that cannot be published, or a value that Postgres cannot hold. Quotes nothing of it."""


class Kind(StrEnum):
    """How events of a type are published."""

    DURABLE = "durable"
    """Each at once."""
    SNAPSHOT = "snapshot"
    """The newest stands for all before it; at most one in 0.2 s."""
    PIECE = "piece"
    """Each counts, and many come: they are written in groups."""


class Category(StrEnum):
    """What an event is about. Events of `system` and `debug` are archived early."""

    SYSTEM = "system"
    PROCESS = "process"
    INTERACTION = "interaction"
    GENERATION = "generation"
    STATE = "state"
    ERROR = "error"
    DEBUG = "debug"


class Payload(BaseModel):
    """What an event carries. Fields that a type does not name are kept: a project adds its own."""

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True, ser_json_inf_nan="null")


Count = Annotated[int, Field(ge=0, le=2**53)]
Percentage = Annotated[float, Field(ge=0, le=100)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class ProcessCreated(Payload):
    """A process is there, and what it was asked for."""

    process_id: UUID
    initial_request: Any = None


class StepProgress(Payload):
    """How many steps of how many are done."""

    completed_steps: Count
    total_steps: Count | None = None
    percentage: Percentage | None = None


class StepUpdate(Payload):
    """A step begins."""

    step: Name
    previous_step: str | None = None
    message: str = ""
    progress: StepProgress | None = None
    estimated_completion: datetime | None = None


class StepCompleted(Payload):
    """A step is done."""

    step: Name
    result: Any = None
    duration_ms: Count | None = None


class UserInputRequired(Payload):
    """A person is asked something."""

    input_type: Name
    question_id: UUID | None = None
    name: str | None = None
    prompt: str = ""
    timeout: datetime | None = None
    options: list[Any] = []
    additional_actions: list[str] = []
    answer_schema: dict[str, Any] | None = None


class UserInputReceived(Payload):
    """A person answered."""

    input_type: Name
    question_id: UUID | None = None
    name: str | None = None
    selected: Any = None
    by: str | None = None


class InputReminder(Payload):
    """A person is asked once more."""

    input_type: Name
    question_id: UUID | None = None
    name: str | None = None
    timeout: datetime | None = None


class InputOver(Payload):
    """A question ended without a person's answer."""

    input_type: Name
    question_id: UUID | None = None
    name: str | None = None
    used_default: bool = False
    reason: str | None = None


class ResearchProgress(Payload):
    """Which of how many queries is under way."""

    query_index: Count
    total_queries: Count
    query: str = ""


class SectionChunk(Payload):
    """The seed's table says `chunk`, its example `html_chunk`; one of the two is there."""

    section_index: Count
    chunk: str | None = None
    html_chunk: str | None = None
    is_complete: bool = False
    section_heading: str | None = None
    total_chars_generated: Count | None = None
    estimated_section_length: Count | None = None
    generation_progress: Percentage | None = None

    def model_post_init(self, _: Any) -> None:
        if self.chunk is None and self.html_chunk is None:
            raise ValueError("chunk or html_chunk is needed")


class SectionCompleted(Payload):
    """A section is written."""

    section_index: Count
    content: str
    images: list[Any] = []


class ImagePlaceholderGenerated(Payload):
    """A place for an image, and what it shall show."""

    placeholder_id: Name
    description: str = ""
    prompt: str = ""


class ImageGenerated(Payload):
    """An image is there."""

    placeholder_id: Name
    image_url: str
    gcs_path: str | None = None


class ProcessPaused(Payload):
    """It stopped between two steps."""

    reason: str
    resume_available: bool = True


class ProcessResumed(Payload):
    """It goes on."""

    resumed_from_step: str | None = None


class ProcessCompleted(Payload):
    """It is done."""

    result: Any = None
    statistics: dict[str, Any] = {}


class ProcessError(Payload):
    """It failed: for good, or it is tried again."""

    error_type: str = Field(pattern="^(recoverable|fatal)$")
    message: str
    step: str | None = None
    recovery_options: list[str] = []


class ProcessCancelled(Payload):
    """Somebody wanted it no more."""

    reason: str


class Heartbeat(Payload):
    """It lives."""

    timestamp: datetime
    active_connections: Count | None = None


class StateUpdated(Payload):
    """Its state, where no other event tells."""

    status: Name
    current_step: str | None = None
    is_waiting_for_input: bool = False


class Progress(Payload):
    """How far it is."""

    percentage: Percentage | None = None
    message: str = ""
    estimated_completion: datetime | None = None


@dataclass(frozen=True, slots=True)
class EventType:
    """A type of event. Priority: 1 is shown first, 10 last."""

    name: str
    payload: type[BaseModel]
    category: Category
    priority: int
    kind: Kind = Kind.DURABLE
    source: str = "worker"


OURS = (
    EventType("process_created", ProcessCreated, Category.PROCESS, 3),
    EventType("step_update", StepUpdate, Category.PROCESS, 3),
    EventType("step_completed", StepCompleted, Category.PROCESS, 3),
    EventType("user_input_required", UserInputRequired, Category.INTERACTION, 1),
    EventType("user_input_received", UserInputReceived, Category.INTERACTION, 1, source="person"),
    EventType("input_reminder", InputReminder, Category.INTERACTION, 2, source="schedule"),
    EventType("input_expired", InputOver, Category.INTERACTION, 1, source="schedule"),
    EventType("input_withdrawn", InputOver, Category.INTERACTION, 2),
    EventType("research_progress", ResearchProgress, Category.GENERATION, 5, Kind.SNAPSHOT),
    EventType("section_chunk", SectionChunk, Category.GENERATION, 4, Kind.PIECE),
    EventType("section_completed", SectionCompleted, Category.GENERATION, 3),
    EventType("image_placeholder_generated", ImagePlaceholderGenerated, Category.GENERATION, 5),
    EventType("image_generated", ImageGenerated, Category.GENERATION, 4),
    EventType("process_paused", ProcessPaused, Category.PROCESS, 2),
    EventType("process_resumed", ProcessResumed, Category.PROCESS, 2),
    EventType("process_completed", ProcessCompleted, Category.PROCESS, 1),
    EventType("process_cancelled", ProcessCancelled, Category.PROCESS, 1),
    EventType("process_error", ProcessError, Category.ERROR, 1),
    EventType("state_updated", StateUpdated, Category.STATE, 4, Kind.SNAPSHOT),
    EventType("progress", Progress, Category.STATE, 6, Kind.SNAPSHOT),
    EventType("heartbeat", Heartbeat, Category.SYSTEM, 9, Kind.SNAPSHOT, source="schedule"),
)
"""The seed's fifteen and those that our own machinery needs."""

_registered: dict[str, EventType] = {one.name: one for one in OURS}
_NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}$")


def register(
    name: str,
    payload: type[BaseModel],
    *,
    category: Category | str,
    priority: int = 5,
    kind: Kind | str = Kind.DURABLE,
    source: str = "worker",
) -> EventType:
    """Add a type of a project's own; the same again is fine, another of the same name raises ValueError."""
    if not _NAME.match(name):
        raise ValueError(f"a type of event is named like process_created, not {name!r}")
    if not 1 <= priority <= 10:
        raise ValueError(f"{name}: a priority is a number from 1 (first) to 10 (last), not {priority}")
    made = EventType(name, payload, Category(category), priority, Kind(kind), source)
    there = _registered.setdefault(name, made)
    if there != made:
        raise ValueError(f"a type of event named {name} is registered already, and differs")
    return there


def known() -> Mapping[str, EventType]:
    """Every type by its name."""
    return dict(_registered)


def find(name: str) -> EventType:
    """The type of this name. Raises PayloadRefused."""
    found = _registered.get(name)
    if found is None:
        raise PayloadRefused(
            f"no type of event is named {name[:63]!r}: register it with tenantsync.processes.event_types.register"
        )
    return found


def checked(event_type: EventType, data: Mapping[str, Any] | BaseModel) -> dict[str, Any]:
    """A payload as it is written, as plain JSON. Raises PayloadRefused."""
    try:
        given = data if isinstance(data, event_type.payload) else event_type.payload.model_validate(_plain(data))
        ready = given.model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        wrong = sorted({f"{_place(one['loc'])}: {one['msg']}" for one in error.errors(include_url=False)})
        raise PayloadRefused(f"{event_type.name} does not fit its payload ({'; '.join(wrong[:5])})") from None
    except (TypeError, ValueError) as error:
        raise PayloadRefused(f"{event_type.name} is not JSON ({type(error).__name__})") from None
    as_json(ready, about=event_type.name)
    return ready


def as_json(value: Any, *, about: str, largest: int = LARGEST) -> bytes:
    """A value as JSON that Postgres takes and that is no larger than it may be. Raises PayloadRefused."""
    try:
        written = orjson.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadRefused(
            f"{about} is not JSON: it holds a value, a text or a depth that JSON has no form for ({_why(error)})"
        ) from None
    if b"\\u0000" in written and _NUL.search(written):
        raise PayloadRefused(f"{about} holds a NUL character, which Postgres cannot store")
    if len(written) > largest:
        raise PayloadRefused(f"{about} is {len(written)} bytes of JSON; at most {largest} are taken")
    return written


def _plain(data: Mapping[str, Any] | BaseModel) -> dict[str, Any]:
    return data.model_dump() if isinstance(data, BaseModel) else dict(data)


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part)[:40] for part in location) or "it"


def _why(error: Exception) -> str:
    text = str(error)
    for known_reason in ("surrogates", "Recursion limit", "Integer exceeds 64-bit", "keys must be str"):
        if known_reason.lower() in text.lower():
            return known_reason
    return type(error).__name__
