"""Questions to people: asked once by name, answered once, reminded of, and over at their deadline."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import jsonschema
from referencing import Registry
from referencing.exceptions import Unresolvable
from sqlalchemy import Connection

from db.ids import new_id
from db.repositories import processes, questions, tenants
from db.repositories.processes import ProcessRow
from db.repositories.questions import QuestionRow
from db.states import ProcessState, QuestionState
from tenantsync.processes import event_types, running
from tenantsync.processes.event_types import PayloadRefused
from tenantsync.processes.moving import about, locked, locked_by, move, state_updated, tell
from tenantsync.processes.publishing import Event
from tenantsync.processes.values import AlreadyAnswered, Held, InvalidAnswer, NewQuestion, NotFound

MOST_OPTIONS = 200


def ask(connection: Connection, *, held: Held, question: NewQuestion) -> QuestionRow:
    """Ask a person and wait; the run ends here. One that was asked before is returned as it stands.

    Where it is answered by now, or over with a default, the process goes on running, and the caller reads `answer`.
    Raises PayloadRefused, ValueError for a question that cannot be asked.
    """
    options = with_indexes(question.options)
    row, now = locked_by(connection, held)
    asked, new = questions.ask(
        connection,
        question_id=new_id(),
        process_id=row.process_id,
        tenant_id=row.tenant_id,
        name=question.name,
        input_type=question.input_type,
        prompt=question.prompt,
        options=options,
        actions=question.actions,
        answer_schema=_valid_schema(question.answer_schema),
        remind_after=question.remind_after,
        expires_after=question.deadline,
        default_answer=None if question.default_answer is None else _default(question, options),
    )
    if not new and asked.state != QuestionState.OPEN:
        return asked
    event = state_updated(row, ProcessState.WAITING)
    if new:
        event = Event("user_input_required", _required(asked))
    move(connection, row, now, ProcessState.WAITING, event)
    return asked


def _required(asked: QuestionRow) -> Mapping[str, Any]:
    return about(
        asked,
        prompt=asked.prompt,
        timeout=asked.expires_at,
        options=list(asked.options),
        additional_actions=list(asked.actions),
        answer_schema=asked.answer_schema,
    )


def with_indexes(options: Sequence[Any]) -> list[dict[str, Any]]:
    """Options as they are asked: objects that bear their index. Raises PayloadRefused or ValueError."""
    if len(options) > MOST_OPTIONS:
        raise ValueError(f"a question has at most {MOST_OPTIONS} options, not {len(options)}")
    numbered = [
        {**(dict(one) if isinstance(one, Mapping) else {"title": str(one), "value": one}), "index": index}
        for index, one in enumerate(options)
    ]
    event_types.as_json(numbered, about="the options")
    return numbered


def _valid_schema(schema: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if schema is not None:
        schema = dict(schema)
        event_types.as_json(schema, about="the answer's schema")
        try:
            jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator).check_schema(schema)
        except jsonschema.SchemaError as error:
            raise ValueError(f"the answer's schema is none ({error.message[:200]})") from None
    return schema


def _default(question: NewQuestion, options: Sequence[Mapping[str, Any]]) -> Any:
    try:
        return judge(question.default_answer, options, question.actions, question.answer_schema)
    except InvalidAnswer as refused:
        raise ValueError(f"the default answer of {question.name!r} would be refused: {refused}") from None


def judge(
    answer: Any,
    options: Sequence[Mapping[str, Any]],
    actions: Sequence[str],
    schema: Mapping[str, Any] | None,
) -> Any:
    """An answer as it is kept. Raises InvalidAnswer.

    An action: {"action": "skip"}. An option: its index, its value or id, bare or as `selected_index`,
    `selected_id` or `selected`. Everything else: what the schema takes, or any JSON where there is none.
    """
    try:
        event_types.as_json(answer, about="the answer")
    except PayloadRefused as refused:
        raise InvalidAnswer(str(refused)) from None
    if isinstance(answer, Mapping) and "action" in answer and actions:
        if answer["action"] not in actions:
            raise InvalidAnswer(f"the action is one of: {', '.join(actions)}")
        return dict(answer)
    if options:
        chosen = _chosen(answer, options)
        return {"selected_index": chosen["index"], "selected": dict(chosen)}
    if schema is not None:
        _fits(answer, schema)
    if answer is None:
        raise InvalidAnswer("the answer is empty")
    return answer


def _chosen(answer: Any, options: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    if isinstance(answer, Mapping):
        for key in ("selected_index", "index"):
            if key in answer:
                return _by_index(answer[key], options)
        for key in ("selected_id", "selected", "value", "id"):
            if key in answer:
                return _by_value(answer[key], options)
        raise InvalidAnswer("choose an option by selected_index, selected_id or selected")
    try:
        return _by_value(answer, options)
    except InvalidAnswer:
        return _by_index(answer, options)


def _by_index(index: Any, options: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(options):
        raise InvalidAnswer(f"choose one of the {len(options)} options, by its index from 0 to {len(options) - 1}")
    return options[index]


def _by_value(value: Any, options: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    for option in options:
        if any(key in option and _same(option[key], value) for key in ("value", "id")):
            return option
    raise InvalidAnswer(f"none of the {len(options)} options has that value")


def _same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and bool(left == right)


def _fits(answer: Any, schema: Mapping[str, Any]) -> None:
    kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    try:
        # An empty registry: a reference to somewhere else is an error and not a request.
        error = next(kind(schema, registry=Registry()).iter_errors(answer), None)
    except (Unresolvable, RecursionError):
        raise InvalidAnswer("the question's own schema leads nowhere: no answer can fit it") from None
    if error is not None:
        where = "/".join(str(part)[:40] for part in error.absolute_path)
        raise InvalidAnswer(f"{where or 'the answer'} does not fit ({error.validator})")


def answer(
    connection: Connection, *, tenant_id: UUID, process_id: UUID, question_id: UUID, answer: Any, by: str
) -> ProcessRow:
    """Take a person's answer, once, and let the process go on.

    While the process is paused it stays so; one that nothing runs is done with it.
    Raises NotFound, AlreadyAnswered or InvalidAnswer.
    """
    found = processes.lock(connection, tenant_id=tenant_id, process_id=process_id)
    question = questions.get(connection, tenant_id=tenant_id, question_id=question_id)
    if found is None or question is None or question.process_id != process_id:
        raise NotFound("there is no such question")
    row, now = found
    if question.state != QuestionState.OPEN:
        raise AlreadyAnswered(f"the question is {question.state}: it takes no answer any more")
    if question.expires_at is not None and question.expires_at <= now:
        raise AlreadyAnswered("the question's time is over")
    kept = judge(answer, question.options, question.actions, question.answer_schema)
    if (
        questions.close(
            connection, tenant_id=tenant_id, question_id=question_id, state=QuestionState.ANSWERED, answer=kept, by=by
        )
        is None
    ):
        raise AlreadyAnswered("the question takes no answer any more")
    after = _received(connection, row, now, question, kept, by=by)
    tenants.write_audit_log(
        connection,
        tenant_id=tenant_id,
        actor=by,
        action="process.answer",
        details={"process_id": str(process_id), "question_id": str(question_id), "name": question.name},
    )
    return after


def _received(
    connection: Connection, row: ProcessRow, now: Any, question: QuestionRow, kept: Any, *, by: str
) -> ProcessRow:
    shown = kept.get("selected", kept) if isinstance(kept, Mapping) else kept
    event = Event("user_input_received", about(question, selected=shown, by=by))
    if row.state == ProcessState.WAITING and row.queue is None:
        tell(connection, row, event)
        return running.completed(connection, row, now, {"answer": kept})
    if row.state == ProcessState.WAITING:
        return move(connection, row, now, ProcessState.PENDING, event)
    tell(connection, row, event)
    return row


def remind(connection: Connection, *, tenant_id: UUID, process_id: UUID, question_id: UUID) -> bool:
    """Say once more that somebody is asked; False when it is not time, or no longer."""
    row, _ = locked(connection, tenant_id=tenant_id, process_id=process_id)
    reminded = questions.mark_reminded(connection, tenant_id=tenant_id, question_id=question_id)
    if reminded is None:
        return False
    tell(connection, row, Event("input_reminder", about(reminded, timeout=reminded.expires_at)))
    return True


def expire(connection: Connection, *, tenant_id: UUID, process_id: UUID, question_id: UUID) -> bool:
    """End a question that nobody answered in time; False when somebody did, or it is not time."""
    row, now = locked(connection, tenant_id=tenant_id, process_id=process_id)
    question = questions.get(connection, tenant_id=tenant_id, question_id=question_id)
    if (
        question is None
        or question.state != QuestionState.OPEN
        or question.expires_at is None
        or question.expires_at > now
        or row.state != ProcessState.WAITING
    ):
        return False
    default = question.default_answer
    questions.close(
        connection, tenant_id=tenant_id, question_id=question_id, state=QuestionState.EXPIRED, answer=default
    )
    event = Event("input_expired", about(question, used_default=default is not None))
    if default is not None:
        move(connection, row, now, ProcessState.PENDING, event)
        return True
    tell(connection, row, event)
    running.failed(connection, row, now, f"nobody answered {question.name!r} in time")
    return True
