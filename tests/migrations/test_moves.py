"""Every pair of states of every machine, tried on a real row: the database allows what db/states.py declares."""

import uuid
from collections.abc import Callable, Iterator
from itertools import product
from uuid import UUID

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import IntegrityError

from db.ids import new_id
from db.session import Database, driver_url
from db.states import MACHINES
from sandbox.servers.postgres import Postgres
from tests.conftest import TEMPLATE
from tests.support.mirror import plant_calendar, plant_tenant

PAIRS = [
    pytest.param(table, column, old.value, new.value, (old.value, new.value) in moves or old is new,
                 id=f"{table}-{old.value}-{new.value}")
    for (table, column), (states, moves) in MACHINES.items()
    for old, new in product(states, states)
]  # fmt: skip
WHERE = {
    "sync.units": "unit_id = :unit",
    "sync.accounts": "tenant_id = :tenant",
    "sync.calendars": "calendar_id = :calendar",
    "worker.tasks": "id = :task",
    "process.processes": "process_id = :process",
    "process.questions": "process_id = :process",
}
PROCESS = """
with made as (
  insert into process.processes (process_id, tenant_id, kind) values (:process, :tenant, 'test') returning process_id)
insert into process.questions (question_id, process_id, tenant_id, name, input_type)
select process_id, process_id, :tenant, 'which', 'SELECT' from made
"""


@pytest.fixture(scope="module")
def populated(postgres: Postgres) -> Iterator[tuple[str, dict[str, UUID]]]:
    """A database with one row of each machine, and their ids."""
    name = f"moves_{uuid.uuid4().hex}"
    url = postgres.create_database(name, template=TEMPLATE)
    database = Database(url, pool_size=1, name="tests")
    tenant, task, process = plant_tenant(database, "acme"), new_id(), new_id()
    calendar = plant_calendar(database, tenant)
    with database.transaction() as connection:
        connection.execute(text("insert into worker.tasks (id, kind) values (:id, 'test')"), {"id": task})
        connection.execute(text(PROCESS), {"process": process, "tenant": tenant.tenant_id})
    database.close()
    yield (
        url,
        {
            "unit": tenant.workspace_id,
            "tenant": tenant.tenant_id,
            "calendar": calendar,
            "task": task,
            "process": process,
        },
    )
    postgres.drop_database(name)


@pytest.fixture
def connection(populated: tuple[str, dict[str, UUID]]) -> Iterator[Connection]:
    """A transaction that is rolled back."""
    engine = create_engine(driver_url(populated[0]))
    with engine.connect() as opened:
        yield opened
    engine.dispose()


@pytest.fixture
def put(connection: Connection, populated: tuple[str, dict[str, UUID]]) -> Callable[[str, str], None]:
    """Changes a machine's row past every trigger."""

    def change(table: str, changes: str) -> None:
        connection.execute(text("set local session_replication_role = replica"))
        connection.execute(text(f"update {table} set {changes} where {WHERE[table]}"), populated[1])
        connection.execute(text("set local session_replication_role = origin"))

    return change


@pytest.fixture
def moved(connection: Connection, populated: tuple[str, dict[str, UUID]]) -> Callable[[str, str], bool]:
    """Changes a machine's row as code does; whether the database let it."""

    def change(table: str, changes: str) -> bool:
        try:
            done = connection.execute(text(f"update {table} set {changes} where {WHERE[table]}"), populated[1])
        except IntegrityError:
            return False
        return done.rowcount == 1

    return change


@pytest.mark.parametrize(("table", "column", "old", "new", "declared"), PAIRS)
def test_a_move_is_allowed_if_and_only_if_it_is_declared(
    put: Callable[[str, str], None],
    moved: Callable[[str, str], bool],
    table: str,
    column: str,
    old: str,
    new: str,
    declared: bool,
) -> None:
    put(table, f"{column} = '{old}'")

    assert moved(table, f"{column} = '{new}'") is declared


@pytest.mark.parametrize(("table", "column"), MACHINES)
def test_a_state_that_no_machine_knows_is_refused(moved: Callable[[str, str], bool], table: str, column: str) -> None:
    assert not moved(table, f"{column} = 'elsewhere'")


@pytest.mark.parametrize(
    ("lease", "allowed"),
    [("now() + interval '1 second'", False), ("now()", True), ("now() - interval '1 second'", True), ("null", True)],
)
def test_a_live_run_cannot_be_taken_over(
    put: Callable[[str, str], None], moved: Callable[[str, str], bool], lease: str, allowed: bool
) -> None:
    put("sync.units", f"state = 'running', lease_until = {lease}")

    assert moved("sync.units", "state = 'dispatched', fence = fence + 1, lease_until = now()") is allowed


def test_a_live_run_can_be_ended(put: Callable[[str, str], None], moved: Callable[[str, str], bool]) -> None:
    put("sync.units", "state = 'running', lease_until = now() + interval '1 minute'")

    assert moved("sync.units", "state = 'idle', lease_until = null")


def test_a_live_run_can_renew_its_lease(put: Callable[[str, str], None], moved: Callable[[str, str], bool]) -> None:
    put("sync.units", "state = 'running', lease_until = now() + interval '1 second'")

    assert moved("sync.units", "lease_until = now() + interval '5 seconds'")


def test_every_row_that_is_partitioned_obeys_as_well(
    connection: Connection, put: Callable[[str, str], None], moved: Callable[[str, str], bool]
) -> None:
    place = text("select tableoid::regclass::text from worker.tasks")
    put("worker.tasks", "status = 'completed'")

    assert connection.execute(place).scalar_one() != "worker.tasks_default"
    assert not moved("worker.tasks", "status = 'processing'")
