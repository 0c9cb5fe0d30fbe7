"""What the API shows of processes, their events and their questions."""

from typing import Any
from uuid import UUID

from pydantic import ConfigDict, Field

from db.repositories.process_events import EventRow
from db.repositories.processes import ProcessRow
from db.repositories.questions import QuestionRow
from db.states import ProcessState, QuestionState
from tenantsync.web.fields import Body, Moment, Sequence, Shown


class Process(Shown):
    """What people watch and answer."""

    process_id: UUID
    tenant_id: UUID
    workspace_id: UUID | None = Field(description="null: the whole tenant's")
    kind: str
    title: str
    state: ProcessState
    subject_id: UUID | None
    parent_id: UUID | None
    step: str | None
    step_started_at: Moment | None
    step_durations: dict[str, Any] = Field(description="Milliseconds by step")
    completed_steps: int
    total_steps: int | None
    percentage: float | None
    estimated_completion_at: Moment | None
    priority: int = Field(description="1 is the most urgent, 10 the least")
    tags: list[str]
    attempt: int
    retry_count: int
    max_retries: int
    pause_requested: bool
    cancel_requested: bool
    deadline_at: Moment | None
    result: Any
    error: str | None
    last_sequence: int = Field(description="The number of its last event")
    started_by: str
    created_at: Moment
    started_at: Moment | None
    completed_at: Moment | None
    updated_at: Moment

    @classmethod
    def of(cls, row: ProcessRow) -> "Process":
        return cls.model_validate(row)


class Event(Shown):
    """What happened in a process."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "0191f3c0-7b1e-7cc3-9f10-6d3b1c1f2a10",
                    "process_id": "0191f3c0-7a00-7000-8000-6d3b1c1f2a10",
                    "event_type": "step_update",
                    "event_sequence": 5,
                    "event_category": "process",
                    "event_priority": 3,
                    "event_source": "worker",
                    "created_at": "2026-01-31T12:00:15.000000Z",
                    "event_data": {"step": "read", "message": "Reading the calendar"},
                }
            ]
        }
    )

    id: UUID
    process_id: UUID
    event_type: str
    event_sequence: int = Field(description="From 1, without gaps")
    event_category: str
    event_priority: int
    event_source: str
    created_at: Moment
    event_data: dict[str, Any]

    @classmethod
    def of(cls, row: EventRow) -> "Event":
        return cls(
            id=row.event_id,
            process_id=row.process_id,
            event_type=row.event_type,
            event_sequence=row.sequence,
            event_category=row.category,
            event_priority=row.priority,
            event_source=row.source,
            created_at=row.created_at,
            event_data=dict(row.data),
        )


class Events(Shown):
    """Events in the order of their numbers."""

    items: list[Event]
    next_since: int | None = Field(description="`since_sequence` of the next page; null where this is the last one")
    last_sequence: int = Field(description="The number of the last event there is")


class Acknowledgement(Shown):
    """Up to where one has read."""

    sequence: int


class Acknowledge(Body):
    """Up to where one has read."""

    sequence: Sequence


class Question(Shown):
    """What a process asks a person."""

    question_id: UUID
    process_id: UUID
    name: str
    input_type: str
    prompt: str
    options: list[dict[str, Any]] = Field(description="Each bears its `index`")
    actions: list[str] = Field(description="What else may be answered: {“action”: one of these}")
    answer_schema: dict[str, Any] | None = Field(description="JSON Schema of a free answer")
    state: QuestionState
    asked_at: Moment
    expires_at: Moment | None
    answer: Any
    answered_by: str | None
    answered_at: Moment | None

    @classmethod
    def of(cls, row: QuestionRow) -> "Question":
        return cls.model_validate(row)


class Questions(Shown):
    """A process' questions, the newest first."""

    items: list[Question]
    next_cursor: str | None


class Answer(Body):
    """An answer: an option by `{"selected_index": 0}`, an action by `{"action": "skip"}`, or what the schema takes."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"answer": {"selected_index": 0}}]})

    answer: Any = Field(description="Required, and not null")
