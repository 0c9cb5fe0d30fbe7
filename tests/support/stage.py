"""A tenant with processes, each a row that a test moves by hand; the fixture is in `stage_fixtures.py`."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection, text

from db.repositories import process_events, processes, questions
from db.repositories.process_events import EventRow
from db.repositories.processes import ProcessRow
from db.repositories.questions import QuestionRow
from db.session import Database, in_transaction
from tenantsync.processes import service
from tenantsync.processes.service import Held, NewQuestion
from tenantsync.processes.values import Address
from tests.support.fleet import TenantHandle

T = TypeVar("T")

LEASE = timedelta(minutes=1)
WHICH = NewQuestion("which", "SELECT_THEME", options=["red", "green"], actions=["skip"])


class Stage:
    """Everything here is one call into the product, in a transaction of its own."""

    def __init__(self, database: Database, tenant: TenantHandle) -> None:
        self.database = database
        self.tenant = tenant

    def do(self, work: Callable[[Connection], T]) -> T:
        return in_transaction(self.database, work)

    def execute(self, statement: str, **parameters: Any) -> None:
        self.do(lambda connection: connection.execute(text(statement), parameters))

    def column(self, query: str, **parameters: Any) -> list[Any]:
        """The first column of what a query finds."""
        return self.do(lambda connection: list(connection.execute(text(query), parameters).scalars()))

    def create(self, **options: Any) -> UUID:
        given: dict[str, Any] = {
            "tenant_id": self.tenant.tenant_id,
            "workspace_id": self.tenant.workspace_id,
            "kind": "orders.export",
            "title": "Export orders",
            "started_by": "ann",
            "queue": "tasks",
        }
        return self.do(lambda connection: service.create(connection, **(given | options)))

    def begin(self, process_id: UUID | None = None, **options: Any) -> Held:
        """A process that runs; a new one where none is named."""
        chosen = process_id or self.create(**options)
        held = self.do(lambda connection: service.begin(connection, process_id=chosen, worker="worker-1", lease=LEASE))
        assert held is not None
        return held

    def ask(self, held: Held | None = None, question: NewQuestion = WHICH) -> QuestionRow:
        """A question of a process, which waits for the answer; of a new one where none is named."""
        chosen = held or self.begin()
        return self.do(lambda connection: service.ask(connection, held=chosen, question=question))

    def answer(self, question: QuestionRow, answer: Any, by: str = "ann") -> ProcessRow:
        return self.do(
            lambda connection: service.answer(
                connection,
                tenant_id=question.tenant_id,
                process_id=question.process_id,
                question_id=question.question_id,
                answer=answer,
                by=by,
            )
        )

    def wish(self, word: str, process_id: UUID) -> ProcessRow:
        """`pause`, `resume` or `cancel`."""
        function = {"pause": service.pause, "resume": service.resume, "cancel": service.cancel}[word]
        return self.do(
            lambda connection: function(connection, tenant_id=self.tenant.tenant_id, process_id=process_id, by="ann")
        )

    def tend(self) -> Mapping[str, int]:
        return {name: count for name, count in service.tend(self.database).items() if count}

    def row(self, process_id: UUID) -> ProcessRow:
        with self.database.reading() as connection:
            found = processes.get(connection, tenant_id=self.tenant.tenant_id, process_id=process_id)
        assert found is not None
        return found

    def state(self, process_id: UUID) -> str:
        return self.row(process_id).state

    def question(self, question_id: UUID) -> QuestionRow:
        with self.database.reading() as connection:
            found = questions.get(connection, tenant_id=self.tenant.tenant_id, question_id=question_id)
        assert found is not None
        return found

    def events(self, process_id: UUID) -> list[EventRow]:
        with self.database.reading() as connection:
            return process_events.after(
                connection, tenant_id=self.tenant.tenant_id, process_id=process_id, sequence=0, limit=100_000
            )

    def types(self, process_id: UUID) -> list[str]:
        return [event.event_type for event in self.events(process_id)]

    def last(self, process_id: UUID) -> EventRow:
        return self.events(process_id)[-1]

    def address(self, process_id: UUID) -> Address:
        return Address(process_id, self.tenant.tenant_id)

    def audit(self) -> list[tuple[str, str]]:
        """(who, what) of what people did."""
        query = text("select actor, action from worker.audit_logs where tenant_id = :tenant order by id")
        about = {"tenant": self.tenant.tenant_id}
        return self.do(lambda connection: [(row.actor, row.action) for row in connection.execute(query, about)])

    def put(self, process_id: UUID, state: str, **columns: Any) -> None:
        """A process in any state, past every trigger."""
        changes = "".join(f", {name} = :{name}" for name in columns)
        with self.database.transaction() as connection:
            connection.execute(text("set local session_replication_role = replica"))
            connection.execute(
                text(f"update process.processes set state = :state{changes} where process_id = :process"),
                {"state": state, "process": process_id, **columns},
            )
