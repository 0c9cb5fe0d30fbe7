"""The whole timetable: what is rung every second, and what is owed at its time.

A wake-up says "look": what is to be done, and whether, stands in Postgres, so that it may be lost, doubled or late.
An occurrence is a row of the ledger, once for each entry and tick, however many beats ring; a missed one is caught
up or skipped by its entry's policy (`config/timetable.py`). Task names and queues are part of the surface
(docs/architecture.md). A new occurrence is a line here and a task in tasks/maintenance.py.
"""

from datetime import timedelta
from typing import Any

from config.queues import Queue
from config.timetable import Entry

WAKE_UPS: dict[str, dict[str, Any]] = {
    "dispatch": {
        "task": "sync.dispatch",
        "schedule": timedelta(seconds=1),
        "options": {"queue": Queue.WAKEUPS.value},
    },
    "drain-mirror": {
        "task": "mirror.drain",
        "schedule": timedelta(seconds=1),
        "options": {"queue": Queue.MIRROR.value},
    },
    "hand-out-tasks": {
        "task": "work.dispatch",
        "schedule": timedelta(seconds=1),
        "options": {"queue": Queue.WAKEUPS.value},
    },
    "tick": {
        "task": "schedule.tick",
        "schedule": timedelta(seconds=1),
        "options": {"queue": Queue.WAKEUPS.value},
    },
}

OCCURRENCES: dict[str, Entry] = {
    "clean-up": Entry("retention.cleanup", every=timedelta(hours=1), policy="latest"),
    "collect-metrics": Entry("metrics.collect", every=timedelta(seconds=15), policy="skip"),
    "audit-ledger": Entry("ledger.audit", every=timedelta(seconds=15), policy="skip"),
    "isolate-tenants": Entry("tenants.isolate", every=timedelta(seconds=10), policy="skip"),
    "take-in-tasks": Entry("work.intake", every=timedelta(seconds=60), policy="latest", setting="sync_interval"),
    "tend-processes": Entry("processes.tend", every=timedelta(seconds=10), policy="skip"),
    "write-freshness": Entry("metrics.freshness", every=timedelta(minutes=5), policy="latest"),
}
