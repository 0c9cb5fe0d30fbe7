"""A hostile tenant's rows in Supabase's `tasks`: each ends by itself, and nobody else waits for it."""

from uuid import uuid4

import psycopg2
import pytest

from tests.support.desk import Desk
from tests.support.fleet import TenantHandle

pytest_plugins = ["tests.support.supabase_fixtures", "tests.support.desk_fixtures"]

INSERT = "insert into public.tasks (id, tenant_id, kind, payload, priority) values (%s, %s, 'letters.write', %s, 1)"
UNREADABLE = {"deep": '{"a":' * 1200 + "1" + "}" * 1200, "endless": '{"a": 1' + "0" * 5000 + "}"}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_payload_that_nobody_can_read_fails_alone(lenient_desk: Desk, asker: TenantHandle, name: str) -> None:
    desk, asked = lenient_desk, uuid4()
    desk.mirror.execute(INSERT, (str(asked), str(asker.tenant_id), UNREADABLE[name]))
    other = desk.ask(asker)

    took = desk.take_in()

    assert (took["taken"], took["refused"]) == (1, 1)
    assert desk.task(other)["status"] == "pending"
    assert "too deep, or holds a number that is too large" in desk.task(asked)["error_log"]


@pytest.mark.parametrize(
    "payload",
    [
        *UNREADABLE.values(),
        '{"a": [' + ",".join(["1e131071"] * 100) + "]}",
        '{"a": -1e400}',
        '{"a": [' + ",".join(["0e-16000"] * 100) + "]}",
        '{"a":' * 64 + "1" + "}" * 64,
    ],
)
def test_what_grows_when_it_is_read_is_not_taken_at_supabase(desk: Desk, asker: TenantHandle, payload: str) -> None:
    with pytest.raises(psycopg2.errors.CheckViolation):
        desk.mirror.execute(INSERT, (str(uuid4()), str(asker.tenant_id), payload))


def test_usual_payloads_pass_the_rules_of_supabase(desk: Desk, asker: TenantHandle) -> None:
    for payload in ('{"a":' * 63 + "1" + "}" * 63, '{"a": 1e300, "b": [0.1, -7]}', "[]", '"text"', "null"):
        desk.mirror.execute(INSERT, (str(uuid4()), str(asker.tenant_id), payload))

    assert desk.mirror.rows("select count(*) as n from public.tasks", ())[0]["n"] >= 5
