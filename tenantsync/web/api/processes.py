"""`/api/v1/processes`: looking through them, following them, answering and steering them."""

from collections.abc import Callable
from functools import partial
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from sqlalchemy import Connection

from db.repositories import process_events, process_views, processes, questions
from db.repositories.process_events import EventRow
from db.repositories.processes import ProcessRow
from db.session import Database
from db.states import ProcessState
from tenantsync.processes import service
from tenantsync.web.api.process_models import (
    Acknowledge,
    Acknowledgement,
    Answer,
    Event,
    Events,
    Process,
    Question,
    Questions,
)
from tenantsync.web.conditional import TAGGED, Known, tagged
from tenantsync.web.fields import MOST_SEQUENCE, Flag, Id, Line
from tenantsync.web.live import Hub, TooManyStreams
from tenantsync.web.once import Onced, as_answer
from tenantsync.web.paging import USUAL, Cursor, Limit, Page, before_id, decoded, encoded, page_of
from tenantsync.web.problems import Problem, not_found, responses
from tenantsync.web.services import Parts
from tenantsync.web.streams import EventStream
from tenantsync.web.viewers import SignedIn, Viewer

router = APIRouter(prefix="/processes", tags=["processes"])
MOST_EVENTS = 1000

MESSAGE = {
    "type": "object",
    "description": "One server-sent event",
    "required": ["data"],
    "properties": {
        "id": {"type": "string", "description": "The event's number"},
        "event": {"type": "string", "description": "message, or end"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {
                "anyOf": [
                    {"$ref": "#/components/schemas/Event"},
                    {"type": "object", "required": ["reason"], "properties": {"reason": {"type": "string"}}},
                ]
            },
        },
    },
}

Since = Annotated[int, Query(ge=0, le=MOST_SEQUENCE, description="The number of the last event that one has")]
EventLimit = Annotated[int, Query(ge=1, le=MOST_EVENTS, description="How many at most")]
Tag = Annotated[str, Query(max_length=100)]
Kind = Annotated[Line, Query(max_length=100)]
Steer = Callable[..., ProcessRow]


def this_process(process_id: Id, viewer: SignedIn, parts: Parts) -> ProcessRow:
    """The process that a path names, if it is the viewer's to see."""
    with parts.database.statement() as connection:
        tenant_id = viewer.scope or processes.tenant_of(connection, process_id=process_id)
        row = None if tenant_id is None else processes.get(connection, tenant_id=tenant_id, process_id=process_id)
    if row is None or not viewer.sees(row.tenant_id, row.workspace_id):
        raise not_found("process")
    return row


ThisProcess = Annotated[ProcessRow, Depends(this_process)]


@router.get("", operation_id="listProcesses", responses=responses(401, 404, 422, 503))
def list_processes(
    viewer: SignedIn,
    parts: Parts,
    state: Annotated[list[ProcessState] | None, Query(description="In one of these states")] = None,
    kind: Annotated[list[Kind] | None, Query(description="Of one of these kinds", max_length=20)] = None,
    tag: Annotated[list[Tag] | None, Query(description="With all of these tags", max_length=20)] = None,
    parent: Annotated[Id | None, Query(description="Below this process")] = None,
    tenant_id: Annotated[Id | None, Query(description="Of this tenant; operators see everybody's without it")] = None,
    limit: Limit = USUAL,
    cursor: Cursor = None,
) -> Page[Process]:
    """Processes, the newest first."""
    if tenant_id is not None:
        viewer.must_see(tenant_id)
    with parts.database.statement() as connection:
        rows = process_views.narrowed(
            connection,
            tenant_id=viewer.scope or tenant_id,
            workspace_ids=viewer.workspace_ids,
            states=state,
            kinds=kind,
            tags=tag,
            parent_id=parent,
            before=before_id(cursor),
            limit=limit + 1,
        )
    return page_of(rows, limit=limit, shown=Process.of, position=lambda row: row.process_id)


@router.get(
    "/{process_id}",
    operation_id="getProcess",
    response_model=Process,
    responses={200: {"headers": TAGGED}, 304: {"description": "One has it already"}, **responses(401, 404, 422, 503)},
)
def get_process(row: ThisProcess, known: Known) -> Response:
    """One process."""
    return tagged(Process.of(row), known)


@router.get("/{process_id}/events", operation_id="listEvents", responses=responses(401, 404, 422, 503))
def list_events(row: ThisProcess, parts: Parts, since_sequence: Since = 0, limit: EventLimit = 500) -> Events:
    """What happened after a number, in order. Events leave after a time, the oldest first."""
    with parts.database.statement() as connection:
        rows = process_events.after(
            connection,
            tenant_id=row.tenant_id,
            process_id=row.process_id,
            sequence=since_sequence,
            limit=limit + 1,
        )
    shown = [Event.of(one) for one in rows[:limit]]
    last = max(row.last_sequence, shown[-1].event_sequence if shown else 0)
    return Events(items=shown, next_since=shown[-1].event_sequence if len(rows) > limit else None, last_sequence=last)


@router.get(
    "/{process_id}/stream",
    operation_id="streamEvents",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events: each `data` is an Event, each `id` its number. Comments are "
            "heartbeats; `event: end` says why the stream ends. Come back with `Last-Event-ID`.",
            "content": {"text/event-stream": {"schema": MESSAGE}},
        },
        **responses(401, 404, 409, 422, 503),
    },
)
async def stream(
    request: Request,
    row: ThisProcess,
    viewer: SignedIn,
    parts: Parts,
    since_sequence: Since = 0,
    follow: Annotated[Flag, Query(description="false: end after what there is by now")] = True,
    last_event_id: Annotated[
        str | None,
        Header(alias="Last-Event-ID", pattern="^[0-9]{1,16}$", description="Wins over `since_sequence`"),
    ] = None,
) -> Response:
    """Follow a process: what one missed since a number, then what happens."""
    since = since_sequence if last_event_id is None else int(last_event_id)
    if since > row.last_sequence:
        raise Problem(409, detail="The process has no event of that number yet. Begin again from 0.", kind="beyond")
    hub: Hub = request.app.state.hub
    try:
        subscription = hub.subscribe(
            row.process_id,
            since=since,
            head=row.last_sequence,
            session_id=viewer.session_id,
            expires_at=viewer.expires_at,
            tenant_id=viewer.scope,
        )
    except TooManyStreams:
        raise Problem(
            503, detail="This server holds as many streams as it may. Try again.", headers={"Retry-After": "5"}
        ) from None
    if not follow:
        subscription.until_caught_up = True

    return EventStream(hub, subscription, partial(_missed, parts.database, row))


async def _missed(database: Database, row: ProcessRow, after: int, limit: int) -> list[EventRow]:
    def read() -> list[EventRow]:
        with database.statement() as connection:
            return process_events.after(
                connection, tenant_id=row.tenant_id, process_id=row.process_id, sequence=after, limit=limit
            )

    return await anyio.to_thread.run_sync(read)


@router.post(
    "/{process_id}/acknowledge", operation_id="acknowledgeEvents", responses=responses(401, 403, 404, 409, 422, 503)
)
def acknowledge(read: Acknowledge, row: ThisProcess, viewer: SignedIn, parts: Parts) -> Acknowledgement:
    """Say up to which event one has read. It never goes back."""
    if read.sequence > row.last_sequence:
        raise Problem(409, detail="The process has no event of that number yet.", kind="beyond")
    with parts.database.statement() as connection:
        now = process_events.acknowledge(
            connection,
            tenant_id=row.tenant_id,
            process_id=row.process_id,
            reader=viewer.actor,
            sequence=read.sequence,
        )
    if now is None:
        raise not_found("process")
    return Acknowledgement(sequence=now)


@router.get("/{process_id}/undelivered", operation_id="listUndelivered", responses=responses(401, 404, 422, 503))
def undelivered(
    row: ThisProcess, viewer: SignedIn, parts: Parts, limit: Limit = USUAL, cursor: Cursor = None
) -> Page[Event]:
    """Events that one has not acknowledged."""
    position = decoded(cursor)
    if position is not None and not (position.isdecimal() and int(position) <= MOST_SEQUENCE):
        raise Problem(422, "Invalid request", "The cursor is not one that this list gave out.", kind="invalid")
    with parts.database.statement() as connection:
        rows = process_events.undelivered(
            connection,
            tenant_id=row.tenant_id,
            reader=viewer.actor,
            process_id=row.process_id,
            after=None if position is None else (row.process_id, int(position)),
            limit=limit + 1,
        )
    return page_of(rows, limit=limit, shown=Event.of, position=lambda one: one.sequence)


@router.get("/{process_id}/questions", operation_id="listQuestions", responses=responses(401, 404, 422, 503))
def list_questions(row: ThisProcess, parts: Parts, limit: Limit = USUAL, cursor: Cursor = None) -> Questions:
    """What the process asked, the newest first."""
    with parts.database.statement() as connection:
        rows = questions.listed(
            connection,
            tenant_id=row.tenant_id,
            process_id=row.process_id,
            before=before_id(cursor),
            limit=limit + 1,
        )
    shown = rows[:limit]
    more = encoded(str(shown[-1].question_id)) if len(rows) > limit else None
    return Questions(items=[Question.of(one) for one in shown], next_cursor=more)


@router.post(
    "/{process_id}/questions/{question_id}/answer",
    operation_id="answerQuestion",
    response_model=Process,
    responses=responses(401, 403, 404, 409, 422, 503),
)
def answer(question_id: Id, given: Answer, row: ThisProcess, viewer: SignedIn, once: Onced) -> Response:
    """Answer a question. It is taken once."""

    def work(connection: Connection) -> Response:
        try:
            after = service.answer(
                connection,
                tenant_id=row.tenant_id,
                process_id=row.process_id,
                question_id=question_id,
                answer=given.answer,
                by=viewer.actor,
            )
        except service.NotFound:
            raise not_found("question") from None
        except service.AlreadyAnswered as error:
            raise Problem(409, detail=_sentence(error), kind="already-answered") from None
        except service.InvalidAnswer as error:
            raise Problem(422, "Invalid answer", _sentence(error), kind="invalid-answer") from None
        return as_answer(Process.of(after))

    return once.answer(work)


@router.post(
    "/{process_id}/pause",
    operation_id="pauseProcess",
    response_model=Process,
    responses=responses(401, 403, 404, 409, 422, 503),
)
def pause(row: ThisProcess, viewer: SignedIn, once: Onced) -> Response:
    """Let it rest: between two steps, if it is running. What is done is kept."""
    return once.answer(lambda connection: _steered(service.pause, connection, row, viewer))


@router.post(
    "/{process_id}/resume",
    operation_id="resumeProcess",
    response_model=Process,
    responses=responses(401, 403, 404, 409, 422, 503),
)
def resume(row: ThisProcess, viewer: SignedIn, once: Onced) -> Response:
    """Let it go on."""
    return once.answer(lambda connection: _steered(service.resume, connection, row, viewer))


@router.post(
    "/{process_id}/cancel",
    operation_id="cancelProcess",
    response_model=Process,
    responses=responses(401, 403, 404, 409, 422, 503),
)
def cancel(row: ThisProcess, viewer: SignedIn, once: Onced) -> Response:
    """End it, with everything below it."""
    return once.answer(lambda connection: _steered(service.cancel, connection, row, viewer))


def _steered(steer: Steer, connection: Connection, row: ProcessRow, viewer: Viewer) -> Response:
    try:
        after = steer(connection, tenant_id=row.tenant_id, process_id=row.process_id, by=viewer.actor)
    except service.ProcessUnknown:
        raise not_found("process") from None
    except service.MoveRefused as error:
        raise Problem(409, detail=_sentence(error), kind="move-refused") from None
    return as_answer(Process.of(after))


def _sentence(error: Exception) -> str:
    told = str(error)
    return f"{told[:1].upper()}{told[1:]}."
