"""A worker of tasks in an operating-system process of its own that is killed, or stopped, at a race point."""

import multiprocessing
import os
import signal
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any
from uuid import UUID

from sqlalchemy import text

from db import racepoints
from db.repositories import ledger
from db.session import Database
from tenantsync.mirror import service as mirror
from tenantsync.mirror.supabase import Supabase
from tenantsync.processes.publishing import Publisher
from tenantsync.work import dispatch, execution, intake
from tenantsync.work.handlers import Handlers
from tenantsync.work.run import Run
from tenantsync.work.supabase_tasks import SupabaseTasks
from tests.support.desk import LEASE, Letter

CONTEXT: ForkServerContext = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.support.doomed"])

DID = text("insert into executed (task_id, step, pid) values (:task, :step, :pid)")


def start(database_url: str, supabase_url: str, secret: str, *, point: str, end: signal.Signals) -> BaseProcess:
    """Take in, hand out, run and bring back once; at the point the process gets the signal."""
    made = CONTEXT.Process(target=_work, args=(database_url, supabase_url, secret, point, end))
    made.start()
    return made


def add_handler(handlers: Handlers, database: Database) -> None:
    """A kind that writes down who does which of its steps."""

    @handlers.handler("letters.write")
    def write(letter: Letter, run: Run) -> dict[str, int]:
        for step in ("compose", "send"):
            run.step(step, lambda step=step: did(database, run.task_id, step))  # type: ignore[misc]
            run.publish("section_chunk", {"section_index": 0, "chunk": step})
        return {"copies": letter.copies}


def did(database: Database, task: UUID, step: str) -> None:
    with database.statement() as connection:
        connection.execute(DID, {"task": task, "step": step, "pid": os.getpid()})


def _work(database_url: str, supabase_url: str, secret: str, doom: str, end: signal.Signals) -> None:
    database, supabase, handlers = Database(database_url, pool_size=4, name="doomed"), None, Handlers()
    supabase = Supabase(supabase_url, secret)
    publisher = Publisher(database)
    add_handler(handlers, database)
    sent: list[UUID] = []

    def publish(process_id: UUID, *, time_limit: int) -> None:
        sent.append(process_id)

    def strike(point: str, facts: Mapping[str, Any]) -> None:
        if point == doom:
            racepoints.install(None)
            os.kill(os.getpid(), end)

    racepoints.install(strike)
    with database.statement() as connection:
        reading = {"slots": 2, "cpu": 0, "memory": 0, "active": 0, "now": None}
        ledger.heartbeat(connection, worker="doomed", queues=["tasks"], reading=reading)
    intake.take_in(database, SupabaseTasks(supabase), handlers)
    dispatch.dispatch(database, publish, handlers)
    for process_id in sent:
        execution.execute(database, publisher, handlers, process_id, worker="doomed", lease=LEASE)
    mirror.drain(database, supabase, batch_size=100, budget=5.0)
    publisher.close()
    supabase.close()
    database.close()
