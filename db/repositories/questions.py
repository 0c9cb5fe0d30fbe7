"""Questions to people, and what came of them. Whoever changes one holds its process."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

FLEET_QUERIES = ("LISTED_ALL", "DUE")


@dataclass(frozen=True, slots=True)
class QuestionRow:
    """A question as it stands. `options` bear their index; `answer` is as it was checked."""

    question_id: UUID
    process_id: UUID
    tenant_id: UUID
    name: str
    input_type: str
    prompt: str
    options: Sequence[Mapping[str, Any]]
    actions: Sequence[str]
    answer_schema: Mapping[str, Any] | None
    state: str
    asked_at: datetime
    remind_at: datetime | None
    reminded_at: datetime | None
    expires_at: datetime | None
    default_answer: Any
    answer: Any
    answered_by: str | None
    answered_at: datetime | None


COLUMNS = ", ".join(f"q.{one.name}" for one in fields(QuestionRow))

ASK = text(f"""
insert into process.questions as q
  (question_id, process_id, tenant_id, name, input_type, prompt, options, actions, answer_schema, remind_at, expires_at,
   default_answer)
values (:question, :process, :tenant, :name, :input_type, :prompt, cast(:options as jsonb), cast(:actions as text[]),
        cast(:answer_schema as jsonb), now() + :remind_after, now() + :expires_after, cast(:default_answer as jsonb))
on conflict (process_id, name) do nothing
returning {COLUMNS}
""")

NAMED = text(f"""
select {COLUMNS} from process.questions q
 where q.tenant_id = :tenant and q.process_id = :process and q.name = :name
""")

GET = text(f"select {COLUMNS} from process.questions q where q.tenant_id = :tenant and q.question_id = :question")

_LISTED = f"""
select {COLUMNS} from process.questions q
 where {{tenant}} and (cast(:process as uuid) is null or q.process_id = :process)
   and (cast(:states as text[]) is null or q.state = any(cast(:states as text[])))
   and (cast(:before as uuid) is null or q.question_id < :before)
 order by q.question_id desc limit :limit
"""
LISTED = text(_LISTED.format(tenant="q.tenant_id = :tenant"))
LISTED_ALL = text(_LISTED.format(tenant="true"))

CLOSE = text(f"""
update process.questions q
   set state = :state, answer = cast(:answer as jsonb), answered_by = :by,
       answered_at = case when cast(:answer as jsonb) is not null then clock_timestamp() end
 where q.tenant_id = :tenant and q.question_id = :question and q.state = 'open'
returning {COLUMNS}
""")

WITHDRAW = text(f"""
update process.questions q set state = 'withdrawn'
 where q.tenant_id = :tenant and q.process_id = :process and q.state = 'open'
returning {COLUMNS}
""")

REMINDED = text(f"""
update process.questions q set reminded_at = clock_timestamp(), remind_at = null
 where q.tenant_id = :tenant and q.question_id = :question and q.state = 'open' and q.remind_at <= clock_timestamp()
returning {COLUMNS}
""")

# Those of paused processes rest as well: they are looked at again once somebody resumes them.
DUE = text(f"""
select {COLUMNS} from process.questions q join process.processes p on p.process_id = q.process_id
 where q.state = 'open' and least(q.remind_at, q.expires_at) <= now() and p.state = 'waiting'
 order by least(q.remind_at, q.expires_at) limit :limit
""")


def ask(
    connection: Connection,
    *,
    question_id: UUID,
    process_id: UUID,
    tenant_id: UUID,
    name: str,
    input_type: str,
    prompt: str,
    options: Sequence[Mapping[str, Any]],
    actions: Sequence[str],
    answer_schema: Mapping[str, Any] | None,
    remind_after: timedelta | None,
    expires_after: timedelta | None,
    default_answer: Any,
) -> tuple[QuestionRow, bool]:
    """Ask, once for each name of a process: (the question as it stands, whether it is new)."""
    parameters = {
        "question": question_id,
        "process": process_id,
        "tenant": tenant_id,
        "name": name,
        "input_type": input_type,
        "prompt": prompt,
        "options": orjson.dumps(list(options)).decode(),
        "actions": list(actions),
        "answer_schema": _json(answer_schema),
        "remind_after": remind_after,
        "expires_after": expires_after,
        "default_answer": _json(default_answer),
    }
    row = connection.execute(ASK, parameters).mappings().one_or_none()
    if row is not None:
        return QuestionRow(**row), True
    found = named(connection, tenant_id=tenant_id, process_id=process_id, name=name)
    if found is None:
        raise LookupError(f"process {process_id} belongs to another tenant")
    return found, False


def named(connection: Connection, *, tenant_id: UUID, process_id: UUID, name: str) -> QuestionRow | None:
    """The question of this name that a process has asked."""
    row = connection.execute(NAMED, {"tenant": tenant_id, "process": process_id, "name": name}).mappings().one_or_none()
    return None if row is None else QuestionRow(**row)


def get(connection: Connection, *, tenant_id: UUID, question_id: UUID) -> QuestionRow | None:
    row = connection.execute(GET, {"tenant": tenant_id, "question": question_id}).mappings().one_or_none()
    return None if row is None else QuestionRow(**row)


def listed(
    connection: Connection,
    *,
    tenant_id: UUID | None,
    process_id: UUID | None = None,
    states: Collection[str] | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> list[QuestionRow]:
    """Questions of a tenant (of all without one), or of one process; newest first, from below the id `before`."""
    parameters = {
        "tenant": tenant_id,
        "process": process_id,
        "states": None if states is None else list(states),
        "before": before,
        "limit": limit,
    }
    query = LISTED_ALL if tenant_id is None else LISTED
    return [QuestionRow(**row) for row in connection.execute(query, parameters).mappings()]


def close(
    connection: Connection, *, tenant_id: UUID, question_id: UUID, state: str, answer: Any = None, by: str | None = None
) -> QuestionRow | None:
    """End an open question, as `answered` or `expired`; None when it is no longer open."""
    parameters = {"tenant": tenant_id, "question": question_id, "state": state, "answer": _json(answer), "by": by}
    row = connection.execute(CLOSE, parameters).mappings().one_or_none()
    return None if row is None else QuestionRow(**row)


def withdraw(connection: Connection, *, tenant_id: UUID, process_id: UUID) -> QuestionRow | None:
    """Take back what a process asks, if it asks anything."""
    row = connection.execute(WITHDRAW, {"tenant": tenant_id, "process": process_id}).mappings().one_or_none()
    return None if row is None else QuestionRow(**row)


def mark_reminded(connection: Connection, *, tenant_id: UUID, question_id: UUID) -> QuestionRow | None:
    """Note that people were reminded; None when it was not time, or is no longer."""
    row = connection.execute(REMINDED, {"tenant": tenant_id, "question": question_id}).mappings().one_or_none()
    return None if row is None else QuestionRow(**row)


def due(connection: Connection, *, limit: int = 500) -> list[QuestionRow]:
    """Open questions whose reminder or end has come."""
    return [QuestionRow(**row) for row in connection.execute(DUE, {"limit": limit}).mappings()]


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()
