"""A worker of tasks in an operating-system process of its own: takes in, hands out and runs until all is done."""

import os
from uuid import UUID

from sqlalchemy import text

from db.repositories import ledger
from db.session import Database
from tenantsync.mirror.supabase import Supabase
from tenantsync.processes.publishing import Publisher
from tenantsync.work import dispatch, execution, intake
from tenantsync.work.handlers import Handlers
from tenantsync.work.run import Run
from tenantsync.work.supabase_tasks import SupabaseTasks
from tests.support.desk import LEASE, Letter

DID = text("insert into executed (task_id, step, pid) values (:task, :step, :pid)")


def work(database_url: str, supabase_url: str, secret: str, expected: int) -> None:
    """Work until `expected` tasks are over."""
    database = Database(database_url, pool_size=3, name="tests")
    supabase = Supabase(supabase_url, secret)
    publisher = Publisher(database)
    handlers = Handlers()
    name = f"tasks@{os.getpid()}"

    @handlers.handler("letters.write")
    def write(letter: Letter, run: Run) -> dict[str, int]:
        for step in ("compose", "send"):
            run.step(step, lambda step=step: _did(database, run.task_id, step))  # type: ignore[misc]
        return {"copies": letter.copies, "pid": os.getpid()}

    sent: list[UUID] = []

    def publish(process_id: UUID, *, time_limit: int) -> None:
        sent.extend([process_id, process_id])  # a broker may double whatever it is given

    while _left(database, expected):
        with database.statement() as connection:
            reading = {"slots": 2, "cpu": 0, "memory": 0, "active": 0, "now": None}
            ledger.heartbeat(connection, worker=name, queues=["tasks"], reading=reading)
        intake.take_in(database, SupabaseTasks(supabase), handlers, page=10)
        dispatch.dispatch(database, publish, handlers)
        while sent:
            execution.execute(database, publisher, handlers, sent.pop(0), worker=name, lease=LEASE)
    publisher.close()
    supabase.close()
    database.close()


def _did(database: Database, task: UUID, step: str) -> None:
    with database.statement() as connection:
        connection.execute(DID, {"task": task, "step": step, "pid": os.getpid()})


def _left(database: Database, expected: int) -> bool:
    with database.statement() as connection:
        done = connection.execute(text("select count(*) from worker.tasks where status = 'completed'")).scalar_one()
    return int(done) < expected
