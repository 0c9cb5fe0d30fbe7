"""Numbers that Postgres writes out in full: nothing that reads them stumbles."""

from uuid import UUID

import orjson
from sqlalchemy import text

from db.session import Database
from tenantsync.processes import service
from tenantsync.processes.values import NewQuestion
from tests.support import process_world
from tests.support.sse import listen
from tests.support.waiting import wait_until
from tests.support.web import Web

pytest_plugins = ["tests.support.web_fixtures"]

HUGE = 1e300


def asks_anything(database: Database, tenant_id: UUID) -> process_world.Asked:
    with database.transaction() as connection:
        held = process_world.running(connection, tenant_id)
        row = service.ask(connection, held=held, question=NewQuestion(name="anything", input_type="ANY", prompt="?"))
    return process_world.Asked(held.process_id, row.question_id)


def test_a_number_of_three_hundred_digits_ends_nobodys_stream(web: Web, database: Database) -> None:
    tenant_id, other = web.tenant()[0], web.tenant()[0]
    client = web.bearer(tenant_id=tenant_id)
    asked = asks_anything(database, tenant_id)
    with database.transaction() as connection:
        neighbour = process_world.running(connection, other)

    with (
        listen(client, asked.process_id) as heard,
        listen(web.bearer(tenant_id=other), neighbour.process_id) as others,
    ):
        wait_until(lambda: heard and others, about="two streams")
        path = f"/api/v1/processes/{asked.process_id}/questions/{asked.question_id}/answer"
        answered = client.post(path, json={"answer": {"n": HUGE}})
        process_world.steps(database, neighbour, 1)
        wait_until(lambda: any("step_update" in one.data for one in others), about="the neighbour's step")
        wait_until(lambda: any("user_input_received" in one.data for one in heard), about="the answer")

    assert answered.status_code == 200
    received = next(orjson.loads(one.data) for one in heard if "user_input_received" in one.data)
    assert received["event_data"]["selected"] == {"n": HUGE}


def test_what_is_read_again_is_what_was_written(database: Database) -> None:
    with database.statement() as connection:
        found = connection.execute(
            text("select cast(:v as jsonb) as b, cast(:v as json) as j"),
            {"v": orjson.dumps({"n": HUGE, "i": 2**63 - 1}).decode()},
        ).one()

    assert found.b == {"n": HUGE, "i": 2**63 - 1}
    assert orjson.dumps([found.b, found.j])
