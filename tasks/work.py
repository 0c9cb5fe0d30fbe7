"""Tasks that web apps ask for: taken in, handed out, run."""

from functools import lru_cache
from typing import Any
from uuid import UUID

from kombu.exceptions import OperationalError

from config.queues import Queue
from config.settings import get_settings
from tasks import broker, stopping
from tasks.celery_app import app
from tasks.runtime import runtime, wake_up
from tasks.schedule import MOST_WAITING, do
from tenantsync.errors import PublishFailed
from tenantsync.work import dispatch as handing_out
from tenantsync.work import execution
from tenantsync.work import intake as intaking
from tenantsync.work.handlers import Handlers, load
from tenantsync.work.supabase_tasks import SupabaseTasks


@lru_cache(maxsize=1)
def handlers() -> Handlers:
    """Ours and the project's own. Raises HandlersBroken; workers ask for them before they start."""
    return load(get_settings().task_handlers)


def ring() -> None:
    """A doorbell: something was asked for at Supabase. Taken in at once, or by the next second's wake-up."""
    intaking.ring(runtime().database)
    send_answer()


@app.task(name="work.intake")
def take_in(*, occurrence: str | None = None, **_: Any) -> None:
    """Take in what is new at Supabase, and cancel what is wanted no more."""
    ours = runtime()
    do(
        occurrence,
        lambda step: intaking.take_in(ours.database, SupabaseTasks(ours.supabase), handlers(), step=step),
    )


@app.task(name="work.answer")
def answer(**_: Any) -> None:
    """Take in what a doorbell rang for, unless somebody has."""
    ours = runtime()
    with wake_up("work.answer"):
        intaking.answer(ours.database, SupabaseTasks(ours.supabase), handlers())


@app.task(name="work.dispatch")
def dispatch(**_: Any) -> None:
    """Hand out tasks that wait, and have a bell answered that nobody answered yet."""
    ours = runtime()
    with wake_up("work.dispatch"):
        handing_out.dispatch(ours.database, publish, handlers())
        if intaking.is_rung(ours.database):
            send_answer()


@app.task(name="work.run")
def run(*, process_id: str, **_: Any) -> None:
    """Run a task, unless somebody else does."""
    ours = runtime()
    with wake_up("work.run"):
        execution.execute(
            ours.database,
            ours.publisher,
            handlers(),
            UUID(process_id),
            worker=ours.worker,
            lease=ours.settings.sync_lease,
            retry_delay=ours.settings.worker_retry_delay,
            stop=lambda: None if stopping.asked_at() is None else stopping.time_left(),
        )


def publish(process_id: UUID, *, time_limit: int) -> None:
    """Send a task's id, nothing else. One that has to wait behind many others is sent again later instead."""
    try:
        if broker.waiting(app, Queue.TASKS) < MOST_WAITING:
            run.apply_async(
                kwargs={"process_id": str(process_id)},
                task_id=str(process_id),
                queue=Queue.TASKS.value,
                time_limit=time_limit,
            )
    except OperationalError as error:
        raise PublishFailed(f"the broker did not take a task ({type(error).__name__})") from None


def send_answer() -> None:
    """Have the bell answered by whoever serves the house."""
    try:
        answer.apply_async(queue=Queue.MAINTENANCE.value)
    except OperationalError as error:
        raise PublishFailed(f"the broker did not take a bell ({type(error).__name__})") from None
