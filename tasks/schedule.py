"""The tick that follows the timetable, and how its occurrences are sent and done."""

from typing import Any
from uuid import UUID

from kombu.exceptions import OperationalError

from config.timetable import Entry
from tasks import broker
from tasks.celery_app import TIMETABLE, app
from tasks.runtime import runtime, wake_up
from tenantsync.errors import PublishFailed
from tenantsync.processes import service as processes
from tenantsync.schedule import occurrences
from tenantsync.schedule import service as schedule

MOST_WAITING = 20
"""Messages in a queue beyond which no occurrence joins them; its row waits instead. Where nobody serves a queue,
what is sent again and again must not fill Redis."""


@app.task(name="schedule.tick")
def tick(**_: Any) -> None:
    """Write down what the timetable owes by now, send what waits, and do for processes what cannot wait longer."""
    ours = runtime()
    with wake_up("schedule.tick"):
        schedule.tick(ours.database, publish, TIMETABLE)
        processes.catch_up(ours.database)


def publish(entry: Entry, occurrence: UUID) -> None:
    """Send an occurrence to its entry's queue: its id, nothing else."""
    try:
        if broker.waiting(app, entry.queue) < MOST_WAITING:
            app.send_task(
                entry.task, kwargs={"occurrence": str(occurrence)}, task_id=str(occurrence), queue=entry.queue.value
            )
    except OperationalError as error:
        raise PublishFailed(f"the broker did not take {entry.task} ({type(error).__name__})") from None


def do(occurrence: str | None, work: occurrences.Work) -> None:
    """Do an occurrence that a message named; a message that names none, as beats of before sent them, is nothing."""
    if occurrence is None:
        return
    ours = runtime()
    occurrences.run(ours.database, UUID(occurrence), work, worker=ours.worker, lease=ours.settings.sync_lease)
