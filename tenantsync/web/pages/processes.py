"""`/processes` and `/tasks`: what people watch and answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from db.repositories import browsing, process_events, questions, tenant_lists
from db.repositories.browsing import Place
from db.repositories.process_events import EventRow
from db.repositories.processes import ProcessRow
from db.states import ProcessState
from tenantsync import clock
from tenantsync.processes import service
from tenantsync.web.api.processes import this_process
from tenantsync.web.live import shown
from tenantsync.web.pages.common import PAGE, Looking, Next, PageRoute, uuid_or_404
from tenantsync.web.pages.forms import as_form, read_answer
from tenantsync.web.pages.rendering import back, bad, good, language_of, page, pretty, query
from tenantsync.web.pages.runs import A_DAY, asked_tenant
from tenantsync.web.pages.texts import Speaker, speaker
from tenantsync.web.paging import before_id, encoded
from tenantsync.web.problems import not_found
from tenantsync.web.services import Parts
from tenantsync.web.viewers import Viewer

router = APIRouter(route_class=PageRoute, include_in_schema=False)
EVENTS = 200
"""Events that are there when the page comes; older ones are told by the API."""
MOST_CHILDREN = 50
MOST_QUESTIONS = 20
STEER = {"pause": service.pause, "resume": service.resume, "cancel": service.cancel}


@router.get("/processes")
def listed(request: Request, viewer: Looking, parts: Parts) -> Response:
    """Processes, the newest first."""
    return _list(request, viewer, parts, tasks=False)


@router.get("/tasks")
def listed_tasks(request: Request, viewer: Looking, parts: Parts) -> Response:
    """Those of them that the web app asked for, through Supabase or the API."""
    return _list(request, viewer, parts, tasks=True)


def _list(request: Request, viewer: Viewer, parts: Parts, *, tasks: bool) -> Response:
    asked = request.query_params
    state = asked.get("state") if asked.get("state") in set(ProcessState) else None
    tenant_id = asked_tenant(request, viewer)
    place = Place(tenant_id, before_id(asked.get("cursor")), viewer.workspace_ids)
    with parts.database.statement() as connection:
        rows = browsing.processes(
            connection, place, states=None if state is None else [state], tasks=tasks, limit=PAGE + 1
        )
        names = tenant_lists.names(connection, ids={tenant_id} if tenant_id else set())
    chosen = {"tenant": asked.get("tenant"), "state": state}
    return page(
        request,
        viewer,
        "processes.html",
        tasks=tasks,
        rows=rows[:PAGE],
        state=state,
        states=[one.value for one in ProcessState],
        narrowed=asked.get("tenant"),
        tenant_id=tenant_id,
        tenant_name=names.get(tenant_id) if tenant_id else None,
        first=query(**chosen) or "?" if asked.get("cursor") else None,
        next=query(**chosen, cursor=encoded(str(rows[PAGE - 1]["process_id"]))) if len(rows) > PAGE else None,
    )


@router.get("/processes/{process}")
def one(process: str, request: Request, viewer: Looking, parts: Parts) -> Response:
    """A process: what it does, what it asks, what happened."""
    row = this_process(uuid_or_404(process), viewer, parts)
    return _show(request, viewer, parts, row)


def _show(
    request: Request, viewer: Viewer, parts: Parts, row: ProcessRow, *, refused: str | None = None, status: int = 200
) -> Response:
    speak = speaker(language_of(request, viewer))
    place = Place(row.tenant_id, workspaces=viewer.workspace_ids)
    with parts.database.statement() as connection:
        line = tenant_lists.one(connection, tenant_id=row.tenant_id)
        asked = questions.listed(connection, tenant_id=row.tenant_id, process_id=row.process_id, limit=MOST_QUESTIONS)
        events = process_events.after(
            connection,
            tenant_id=row.tenant_id,
            process_id=row.process_id,
            sequence=max(0, row.last_sequence - EVENTS),
            limit=EVENTS,
        )
        steps = browsing.steps(
            connection, task_id=row.process_id, tenant_id=row.tenant_id, since=row.created_at - A_DAY
        )
        below = browsing.children(connection, place, process_id=row.process_id, limit=MOST_CHILDREN)
        delivered = browsing.delivered(connection, tenant_id=row.tenant_id, process_id=row.process_id)
    return page(
        request,
        viewer,
        "process.html",
        status=status,
        process=row,
        tenant=line,
        forms=[as_form(one) for one in asked if one.state == "open"],
        answered=[(one, said(one.answer, speak)) for one in asked if one.state != "open"],
        events=[{**shown(one), "about": about(one.data, speak)} for one in reversed(events)],
        cut=bool(events) and events[0].sequence > 1,
        steps=steps,
        durations=durations(row.step_durations, events),
        below=below,
        delivered=delivered,
        refused=refused,
        lasted=None if row.started_at is None else ((row.completed_at or clock.now()) - row.started_at).total_seconds(),
        moves=possible(row),
    )


TELLING = (
    "message", "prompt", "reason", "query", "chunk", "html_chunk", "content", "description", "current_step", "step",
    "status", "name",
)  # fmt: skip
"""What an event is shown by: the first of these that it has. static/process.js goes by the same list."""
LONGEST_ABOUT = 400


def about(data: Mapping[str, Any], speak: Speaker) -> str:
    """A line about an event."""
    for name in TELLING:
        if isinstance(data.get(name), str) and data[name]:
            said = speak.word("state", data[name]) if name == "status" else str(data[name])
            return said[:LONGEST_ABOUT]
    if isinstance(data.get("percentage"), int | float):
        return f"{data['percentage']:.0f} %"
    selected = data.get("selected")
    if isinstance(selected, Mapping):
        selected = selected.get("title", selected)
    return "" if selected is None else (selected if isinstance(selected, str) else pretty(selected))[:LONGEST_ABOUT]


def durations(taken: Mapping[str, Any], events: Sequence[EventRow]) -> list[tuple[str, float]]:
    """Milliseconds of finished steps in the order of their ends: events tell it, as JSON in Postgres has no order."""
    ends = {one.data.get("step"): one.sequence for one in events if one.event_type == "step_completed"}
    took = [(name, float(value)) for name, value in taken.items() if isinstance(value, int | float)]
    return sorted(took, key=lambda step: ends.get(step[0], 0))


def said(answer: Any, speak: Speaker) -> str:
    """An answer as people read it."""
    told = about(answer, speak) if isinstance(answer, Mapping) else ""
    return told or pretty(answer)


def possible(row: ProcessRow) -> frozenset[str]:
    """What a person may want of it now."""
    if not row.open:
        return frozenset()
    may: set[str] = set()
    if row.queue is not None:
        paused = row.state == ProcessState.PAUSED or row.pause_requested
        may |= {"resume" if paused else "pause"}
    if not row.cancel_requested and (row.queue is not None or row.state != ProcessState.RUNNING):
        may |= {"cancel"}
    return frozenset(may)


@router.post("/processes/{process}/{wish}")
def steer(process: str, wish: str, request: Request, viewer: Looking, parts: Parts, onward: Next) -> Response:
    """Pause it, let it go on, or end it."""
    row = this_process(uuid_or_404(process), viewer, parts)
    work = STEER.get(wish)
    if work is None:
        raise not_found("page")
    try:
        with parts.database.transaction() as connection:
            work(connection, tenant_id=row.tenant_id, process_id=row.process_id, by=viewer.actor)
    except service.MoveRefused:
        return back(request, onward, bad("flash.move_refused"))
    return back(request, onward, good(_DONE[wish]))


_DONE = {
    "pause": "flash.process_pause",
    "resume": "flash.process_resume",
    "cancel": "flash.process_cancel",
}


@router.post("/processes/{process}/questions/{question}")
async def answer(process: str, question: str, request: Request, viewer: Looking, parts: Parts) -> Response:
    """Answer a question, once."""
    form = await request.form(max_fields=100)
    given = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    several = {name: [str(one) for one in form.getlist(name)] for name in form}
    return await run_in_threadpool(_answer, process, question, request, viewer, parts, given, several)


def _answer(
    process: str,
    question: str,
    request: Request,
    viewer: Viewer,
    parts: Parts,
    given: dict[str, str],
    several: dict[str, list[str]],
) -> Response:
    row = this_process(uuid_or_404(process), viewer, parts)
    question_id = uuid_or_404(question)
    here = f"/processes/{row.process_id}"
    with parts.database.statement() as connection:
        asked = questions.get(connection, tenant_id=row.tenant_id, question_id=question_id)
    if asked is None or asked.process_id != row.process_id:
        raise not_found("question")
    try:
        value = read_answer(asked, given, several)
        with parts.database.transaction() as connection:
            service.answer(
                connection,
                tenant_id=row.tenant_id,
                process_id=row.process_id,
                question_id=question_id,
                answer=value,
                by=viewer.actor,
            )
    except service.AlreadyAnswered:
        return back(request, here, bad("flash.already_answered"))
    except service.NotFound:
        raise not_found("question") from None
    except service.InvalidAnswer as error:
        return _show(request, viewer, parts, row, refused=str(error), status=422)
    return back(request, here, good("flash.answered"))
