"""The whole timetable. Every entry is a wake-up: what is to be done, and whether, stands in Postgres.

A wake-up expires, so that those of an outage do not pile up; and however many beats send one, the work
behind it happens once. Task names and queues are part of the surface (docs/architecture.md).
"""

from datetime import timedelta

from config.queues import Queue

EXPIRES = 10  # seconds; long enough for clocks of two machines that differ, short enough that nothing piles up

BEAT_SCHEDULE = {
    "dispatch": {
        "task": "sync.dispatch",
        "schedule": timedelta(seconds=1),
        "options": {"queue": Queue.WAKEUPS.value, "expires": EXPIRES},
    },
    "drain-mirror": {
        "task": "mirror.drain",
        "schedule": timedelta(seconds=1),
        "options": {"queue": Queue.MIRROR.value, "expires": EXPIRES},
    },
    "collect-metrics": {
        "task": "metrics.collect",
        "schedule": timedelta(seconds=15),
        "options": {"queue": Queue.MAINTENANCE.value, "expires": EXPIRES},
    },
    "clean-up": {
        "task": "retention.cleanup",
        "schedule": timedelta(minutes=1),
        "options": {"queue": Queue.MAINTENANCE.value, "expires": EXPIRES},
    },
}
