"""One database for the tests of a module, emptied after each: for modules of many small tests.

A module imports both fixtures; its `database_url` then stands in for the one with a database for every test.
"""

from collections.abc import Iterator
from itertools import count

import pytest

from sandbox.servers.postgres import Postgres

TEMPLATE = "template_tenantsync"
EMPTY = """
truncate sync.tenants, sync.policies, sync.cooldowns, sync.events, sync.tombstones, sync.quarantined_items,
  sync.staged_events,
  mirror.outbox, mirror.parked_rows, worker.tasks, worker.execution_logs, worker.workers, worker.task_keys,
  worker.schedules, worker.bells, worker.audit_logs, worker.system_metrics, process.events, process.delivery_log,
  sync.budgets, sync.holds, identity.users, identity.attempts, identity.idempotency_keys cascade
"""
_numbers = count(1)


@pytest.fixture(scope="module")
def shared_database(postgres: Postgres) -> Iterator[tuple[str, str]]:
    """(name, address) of the module's database."""
    name = f"shared_{next(_numbers)}"
    yield name, postgres.create_database(name, template=TEMPLATE)
    postgres.drop_database(name)


@pytest.fixture
def database_url(postgres: Postgres, shared_database: tuple[str, str]) -> Iterator[str]:
    name, url = shared_database
    yield url
    postgres.execute(name, EMPTY)
