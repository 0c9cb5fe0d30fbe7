"""Processes over HTTP: looked through, followed, answered, steered; events arrive in order and once."""

import threading

import httpx
import orjson
import pytest

from db.session import Database
from tenantsync.identity.roles import Role
from tests.support import process_world
from tests.support.kept_web import database, database_url, web
from tests.support.sse import Message, listen
from tests.support.waiting import wait_until
from tests.support.web import Web

pytest_plugins = ["tests.support.web_fixtures"]
__all__ = ["database", "database_url", "web"]


def numbers(messages: list[Message]) -> list[int]:
    return [orjson.loads(one.data)["event_sequence"] for one in messages if one.event == "message"]


def test_a_list_shows_the_newest_first_and_pages_lead_through_all_of_it(web: Web, database: Database) -> None:
    tenant_id, _ = web.tenant()
    client = web.bearer(tenant_id=tenant_id)
    with database.transaction() as connection:
        made = [process_world.pending(connection, tenant_id, title=f"number {n}") for n in range(5)]

    first = client.get("/api/v1/processes", params={"limit": 3}).json()
    second = client.get("/api/v1/processes", params={"limit": 3, "cursor": first["next_cursor"]}).json()

    seen = [one["process_id"] for one in first["items"] + second["items"]]
    assert seen == [str(one) for one in reversed(made)]
    assert second["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "titles"),
    [
        ({"state": "running"}, ["running"]),
        ({"state": ["running", "waiting"]}, ["waiting", "running"]),
        ({"kind": "test.other"}, ["other"]),
        ({"tag": "blue"}, ["tagged"]),
        ({"tag": ["blue", "green"]}, []),
    ],
)
def test_a_list_is_narrowed(web: Web, database: Database, query: dict[str, str], titles: list[str]) -> None:
    tenant_id, _ = web.tenant()
    with database.transaction() as connection:
        process_world.running(connection, tenant_id, title="running")
        process_world.waiting(connection, tenant_id, title="waiting")
        process_world.pending(connection, tenant_id, title="other", kind="test.other")
        process_world.pending(connection, tenant_id, title="tagged", tags=("blue", "red"))

    found = web.bearer(tenant_id=tenant_id).get("/api/v1/processes", params=query).json()["items"]

    assert [one["title"] for one in found] == titles


def test_events_are_read_from_any_number_on(web: Web, database: Database) -> None:
    tenant_id, _ = web.tenant()
    with database.transaction() as connection:
        held = process_world.running(connection, tenant_id)
    process_world.steps(database, held, 6)

    path = f"/api/v1/processes/{held.process_id}/events"
    found = web.bearer(tenant_id=tenant_id).get(path, params={"since_sequence": 3, "limit": 2}).json()

    assert [one["event_sequence"] for one in found["items"]] == [4, 5]
    assert found["next_since"] == 5
    assert found["last_sequence"] >= 8


def test_a_stream_brings_what_was_missed_and_then_what_happens(web: Web, database: Database) -> None:
    tenant_id, _ = web.tenant()
    with database.transaction() as connection:
        held = process_world.running(connection, tenant_id)
    process_world.steps(database, held, 3)

    with listen(web.bearer(tenant_id=tenant_id), held.process_id, since=1) as heard:
        wait_until(lambda: len(numbers(heard)) >= 4, about="what was missed")
        process_world.steps(database, held, 4)
        wait_until(lambda: len(numbers(heard)) >= 8, about="what happened")

    assert numbers(heard) == list(range(2, len(numbers(heard)) + 2))


def test_a_stream_taken_up_again_goes_on_where_it_ended(web: Web, database: Database) -> None:
    tenant_id, _ = web.tenant()
    client = web.bearer(tenant_id=tenant_id)
    with database.transaction() as connection:
        held = process_world.running(connection, tenant_id)
    process_world.steps(database, held, 5)

    with listen(client, held.process_id, follow=False) as first:
        wait_until(lambda: first[-1:] and first[-1].event == "end", about="the end of the first")
    process_world.steps(database, held, 5)
    with listen(client, held.process_id, last_event_id=first[-2].id, follow=False) as second:
        wait_until(lambda: second[-1:] and second[-1].event == "end", about="the end of the second")

    assert numbers(first) + numbers(second) == list(range(1, numbers(second)[-1] + 1))


def test_many_writers_and_many_readers_see_one_order(web: Web, database: Database) -> None:
    tenant_id, _ = web.tenant()
    client = web.bearer(tenant_id=tenant_id)
    with database.transaction() as connection:
        held = process_world.running(connection, tenant_id)
    readers = [listen(client, held.process_id) for _ in range(10)]
    heard = [reader.__enter__() for reader in readers]

    writers = [threading.Thread(target=process_world.steps, args=(database, held, 20)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    wait_until(lambda: all(len(numbers(one)) >= 82 for one in heard), about="82 events at 10 readers")
    for reader in readers:
        reader.__exit__(None, None, None)

    expected = list(range(1, len(numbers(heard[0])) + 1))
    assert all(numbers(one) == expected for one in heard)


def test_what_was_acknowledged_is_not_undelivered(web: Web, database: Database) -> None:
    tenant_id, _ = web.tenant()
    client = web.bearer(tenant_id=tenant_id)
    with database.transaction() as connection:
        held = process_world.running(connection, tenant_id)
    process_world.steps(database, held, 4)
    path = f"/api/v1/processes/{held.process_id}"

    before = client.get(f"{path}/undelivered").json()["items"]
    read = client.post(f"{path}/acknowledge", json={"sequence": 4})
    back = client.post(f"{path}/acknowledge", json={"sequence": 2})
    after = client.get(f"{path}/undelivered").json()["items"]

    assert read.json() == back.json() == {"sequence": 4}
    assert [one["event_sequence"] for one in after] == [one["event_sequence"] for one in before[4:]]


def test_a_question_is_answered_once_and_the_process_goes_on(web: Web, database: Database) -> None:
    tenant_id, _ = web.tenant()
    client = web.bearer(tenant_id=tenant_id)
    with database.transaction() as connection:
        asked = process_world.waiting(connection, tenant_id)
    path = f"/api/v1/processes/{asked.process_id}/questions/{asked.question_id}/answer"

    unfit = client.post(path, json={"answer": {"selected_index": 7}})
    first = client.post(path, json={"answer": {"selected_index": 1}})
    second = client.post(path, json={"answer": {"selected_index": 0}})
    shown = client.get(f"/api/v1/processes/{asked.process_id}/questions").json()["items"][0]

    assert (unfit.status_code, first.status_code, second.status_code) == (422, 200, 409)
    assert first.json()["state"] == "pending"
    assert shown["answer"]["selected_index"] == 1
    assert shown["answered_by"].startswith("user:")


def test_a_process_is_paused_resumed_and_cancelled(web: Web, database: Database) -> None:
    tenant_id, _ = web.tenant()
    client = web.bearer(tenant_id=tenant_id)
    with database.transaction() as connection:
        process_id = process_world.pending(connection, tenant_id)

    moves = ("pause", "pause", "resume", "cancel", "resume")
    answers = [client.post(f"/api/v1/processes/{process_id}/{move}") for move in moves]

    assert [answer.status_code for answer in answers] == [200, 409, 200, 200, 409]
    assert [answers[n].json()["state"] for n in (0, 2, 3)] == ["paused", "pending", "cancelled"]


def test_a_resource_that_one_has_is_not_sent_again(web: Web, database: Database) -> None:
    tenant_id, _ = web.tenant()
    client = web.bearer(tenant_id=tenant_id)
    with database.transaction() as connection:
        process_id = process_world.pending(connection, tenant_id)
    path = f"/api/v1/processes/{process_id}"

    etag = client.get(path).headers["ETag"]
    again = client.get(path, headers={"If-None-Match": etag})
    client.post(f"{path}/pause")
    changed = client.get(path, headers={"If-None-Match": etag})

    assert (again.status_code, again.content) == (304, b"")
    assert changed.status_code == 200


def test_the_same_request_with_the_same_key_is_done_once(web: Web) -> None:
    tenant_id, _ = web.tenant()
    client = web.bearer(Role.ADMIN, tenant_id=tenant_id)
    key = {"Idempotency-Key": "one"}
    task = {"kind": "calendar.sync_now", "payload": {}}

    first = client.post("/api/v1/tasks", json=task, headers=key)
    again = client.post("/api/v1/tasks", json=task, headers=key)
    other = client.post("/api/v1/tasks", json=task | {"priority": 3}, headers=key)
    listed = client.get("/api/v1/tasks").json()["items"]

    assert first.status_code == again.status_code == 201
    assert again.content == first.content
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    assert other.status_code == 422
    assert len(listed) == 1


def test_a_task_has_a_process_of_the_same_id_and_is_cancelled_with_it(web: Web) -> None:
    tenant_id, _ = web.tenant()
    client = web.bearer(tenant_id=tenant_id)

    task = client.post("/api/v1/tasks", json={"kind": "calendar.sync_now"}).json()
    process = client.get(f"/api/v1/processes/{task['task_id']}").json()
    cancelled = client.post(f"/api/v1/tasks/{task['task_id']}/cancel").json()

    assert process["kind"] == "calendar.sync_now"
    assert (task["status"], cancelled["status"]) == ("pending", "cancelled")


@pytest.mark.parametrize(
    "task",
    [{"kind": "nobody.does"}, {"kind": "calendar.report", "payload": {"week": "not one"}}, {"kind": ""}, {}],
)
def test_a_task_that_cannot_be_done_is_refused(web: Web, task: dict[str, object]) -> None:
    tenant_id, _ = web.tenant()

    answer = web.bearer(tenant_id=tenant_id).post("/api/v1/tasks", json=task)

    assert answer.status_code == 422


def test_a_change_that_was_overtaken_is_refused(web: Web) -> None:
    tenant_id, _ = web.tenant()
    admin = web.bearer(Role.ADMIN, tenant_id=tenant_id)
    user = {"email": "new@example.test", "password": "a password of hers"}
    made = admin.post("/api/v1/users", json=user)
    path = made.headers["Location"]
    etag = admin.get(path).headers["ETag"]

    first = admin.patch(path, json={"name": "Ann"}, headers={"If-Match": etag})
    second = admin.patch(path, json={"name": "Bea"}, headers={"If-Match": etag})

    assert (first.status_code, second.status_code) == (200, 412)
    assert admin.get(path).json()["name"] == "Ann"


def test_metrics_are_for_operators_and_for_whoever_has_the_token(make_web: object) -> None:
    web: Web = make_web(metrics_token="a-token-for-prometheus")  # type: ignore[operator]
    tenant_id, _ = web.tenant()

    def status(client: httpx.Client, **headers: str) -> int:
        return client.get("/metrics", headers=headers).status_code

    assert status(web.client()) == 401
    assert status(web.bearer(Role.ADMIN, tenant_id=tenant_id)) == 403
    assert status(web.bearer(Role.OPERATOR)) == 200
    assert status(web.client(), Authorization="Bearer a-token-for-prometheus") == 200
