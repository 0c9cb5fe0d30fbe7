"""The Celery app. Importing it reads the settings: whatever is wrong with them is said here, and nothing starts."""

import sys

from celery import Celery

from beat_schedule import OCCURRENCES, WAKE_UPS
from config.celery_settings import celery_config
from config.settings import SettingsError, get_settings
from config.timetable import followed

TASK_MODULES = ("tasks.sync", "tasks.mirror", "tasks.schedule", "tasks.maintenance", "tasks.work")


def make_app() -> Celery:
    """The app, configured from the environment; a bad environment ends the process with code 2."""
    try:
        settings = get_settings()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    app = Celery("tenantsync", include=TASK_MODULES, amqp="tasks.connections:PromptAmqp")
    app.conf.update(celery_config(settings))
    app.conf.task_routes |= {entry.task: {"queue": entry.queue.value} for entry in OCCURRENCES.values()}
    app.conf.beat_schedule = WAKE_UPS
    return app


app = make_app()
TIMETABLE = followed(OCCURRENCES, get_settings())
"""The occurrences as they are followed here."""

from tasks import lifecycle  # noqa: E402 — signal receivers register on import and need the app

lifecycle.install(app)
