"""What the API's operations need to succeed: for each, something real to name, of the caller's own tenant."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from db.ids import new_id
from db.repositories import identity, tenants
from tenantsync.identity import people
from tenantsync.identity.roles import Role
from tenantsync.identity.tokens import new_refresh_token, refresh_hash
from tenantsync.processes import service
from tests.support import process_world
from tests.support.web import PASSWORD, Web


@dataclass
class Wanted:
    """What a request is to name and to say, where it is meant to succeed."""

    path: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    body: Any = None


@dataclass
class ApiWorld:
    """One tenant with one of everything, seen by each role."""

    web: Web
    tenant_id: UUID
    workspace_id: UUID
    tokens: dict[Role, str]
    emails: dict[Role, str]

    @classmethod
    def make(cls, web: Web) -> "ApiWorld":
        tenant_id, workspace_id = web.tenant()
        emails = {role: web.user(role, tenant_id=None if role is Role.OPERATOR else tenant_id) for role in Role}
        tokens = {role: web.token(email) for role, email in emails.items()}
        return cls(web, tenant_id, workspace_id, tokens, emails)

    def passing_token(self, role: Role) -> str:
        """A token of somebody new, for what ends all sessions of whoever calls it."""
        return self.web.token(self.web.user(role, tenant_id=None if role is Role.OPERATOR else self.tenant_id))

    def wanted(self, operation: str, path: str, role: Role | None) -> Wanted:
        """Something real for an operation, made anew where the operation uses it up.

        Without a maker of its own it gets the tenant and the workspace, where its path names them.
        """
        maker = MAKERS.get(operation)
        if maker is None:
            ours = {"tenant_id": str(self.tenant_id), "workspace_id": str(self.workspace_id)}
            return Wanted(path={name: one for name, one in ours.items() if f"{{{name}}}" in path})
        with self.web.database.transaction() as connection:
            return maker(self, connection, role)


def _process(
    make: Callable[[Connection, UUID], UUID],
) -> Callable[[ApiWorld, Connection, Role | None], Wanted]:
    def made(world: ApiWorld, connection: Connection, _: Role | None) -> Wanted:
        return Wanted(path={"process_id": str(make(connection, world.tenant_id))})

    return made


def _paused(connection: Connection, tenant_id: UUID) -> UUID:
    process_id = process_world.pending(connection, tenant_id)
    service.pause(connection, tenant_id=tenant_id, process_id=process_id, by="test")
    return process_id


def _running(connection: Connection, tenant_id: UUID) -> UUID:
    return process_world.running(connection, tenant_id).process_id


def _streamed(world: ApiWorld, connection: Connection, _: Role | None) -> Wanted:
    path = {"process_id": str(_running(connection, world.tenant_id))}
    return Wanted(path=path, query={"follow": "false", "since_sequence": "0"})


def _acknowledged(world: ApiWorld, connection: Connection, _: Role | None) -> Wanted:
    return Wanted(path={"process_id": str(_running(connection, world.tenant_id))}, body={"sequence": 1})


def _answered(world: ApiWorld, connection: Connection, _: Role | None) -> Wanted:
    asked = process_world.waiting(connection, world.tenant_id)
    path = {"process_id": str(asked.process_id), "question_id": str(asked.question_id)}
    return Wanted(path=path, body={"answer": {"selected_index": 0}})


def _task(world: ApiWorld, connection: Connection, _: Role | None) -> Wanted:
    return Wanted(path={"task_id": str(process_world.task(connection, world.tenant_id))})


def _new_task(world: ApiWorld, _: Connection, role: Role | None) -> Wanted:
    tenant = {"tenant_id": str(world.tenant_id)} if role is Role.OPERATOR else {}
    return Wanted(body={"kind": "calendar.sync_now", "payload": {"wait": 1}} | tenant)


def _user(world: ApiWorld, connection: Connection, _: Role | None) -> Wanted:
    wish = people.checked(email=f"{uuid4()}@example.test", name="", role=Role.MEMBER, language="en")
    row = people.add(connection, wish, tenant_id=world.tenant_id, password_hash=None, by="test")
    return Wanted(path={"user_id": str(row.user_id)})


def _changed_user(world: ApiWorld, connection: Connection, role: Role | None) -> Wanted:
    return Wanted(path=_user(world, connection, role).path, body={"name": "Ann"})


def _new_user(world: ApiWorld, _: Connection, role: Role | None) -> Wanted:
    tenant = {"tenant_id": str(world.tenant_id)} if role is Role.OPERATOR else {}
    return Wanted(body={"email": f"{uuid4()}@example.test", "password": "a password of theirs"} | tenant)


def _credentials(world: ApiWorld, _: Connection, role: Role | None) -> Wanted:
    return Wanted(body={"email": world.emails[role or Role.MEMBER], "password": PASSWORD})


def _session(world: ApiWorld, connection: Connection, role: Role | None) -> Wanted:
    session_id = world.web.open_session(connection, world.emails[role or Role.MEMBER])
    return Wanted(path={"session_id": str(session_id)})


def _refresh(world: ApiWorld, connection: Connection, role: Role | None) -> Wanted:
    session_id = world.web.open_session(connection, world.emails[role or Role.MEMBER])
    token = new_refresh_token()
    identity.add_refresh(connection, session_id=session_id, token_hash=refresh_hash(token))
    return Wanted(body={"refresh_token": token})


def _run(world: ApiWorld, connection: Connection, _: Role | None) -> Wanted:
    run_id = new_id()
    connection.execute(
        text(
            "insert into worker.tasks (id, tenant_id, kind, subject_id, queue, status, result)"
            " values (:id, :tenant, 'sync.unit', :unit, 'sync', 'completed', '{}')"
        ),
        {"id": run_id, "tenant": world.tenant_id, "unit": world.workspace_id},
    )
    return Wanted(path={"run_id": str(run_id)})


def _parked_unit(world: ApiWorld, connection: Connection, _: Role | None) -> Wanted:
    unit_id = tenants.add_workspace(connection, tenant_id=world.tenant_id, name=str(uuid4()))
    for state in ("dispatched", "running", "parked"):
        connection.execute(
            text("update sync.units set state = :state, next_due_at = now() where unit_id = :unit"),
            {"state": state, "unit": unit_id},
        )
    return Wanted(path={"unit_id": str(unit_id)})


def _share(world: ApiWorld, _: Connection, __: Role | None) -> Wanted:
    return Wanted(path={"tenant_id": str(world.tenant_id)}, body={"weight": 2.5})


def _rows(world: ApiWorld, _: Connection, __: Role | None) -> Wanted:
    return Wanted(body={"tenant_id": str(world.tenant_id)})


Maker = Callable[[ApiWorld, Connection, Role | None], Wanted]
MAKERS: Mapping[str, Maker] = {
    "logIn": _credentials,
    "refreshTokens": _refresh,
    "endSession": _session,
    "createUser": _new_user,
    "getUser": _user,
    "changeUser": _changed_user,
    "getProcess": _process(_running),
    "listEvents": _process(_running),
    "listUndelivered": _process(_running),
    "listQuestions": _process(_running),
    "streamEvents": _streamed,
    "acknowledgeEvents": _acknowledged,
    "answerQuestion": _answered,
    "pauseProcess": _process(process_world.pending),
    "resumeProcess": _process(_paused),
    "cancelProcess": _process(process_world.pending),
    "createTask": _new_task,
    "getRun": _run,
    "retryParkedUnit": _parked_unit,
    "dropParkedUnit": _parked_unit,
    "retryParkedRows": _rows,
    "dropParkedRows": _rows,
    "setShare": _share,
    "getTask": _task,
    "listTaskLogs": _task,
    "cancelTask": _task,
}
