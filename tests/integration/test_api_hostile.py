"""A hostile tenant, a hostile page and a hostile reader: what each of them gets."""

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
import psutil
import pytest

from db.session import Database
from tenantsync.identity.roles import Role
from tenantsync.web import live
from tenantsync.web.cookies import same_site_path
from tests.support import process_world
from tests.support.api_world import ApiWorld
from tests.support.kept_web import database, database_url, web
from tests.support.sse import listen
from tests.support.waiting import wait_until
from tests.support.web import Web

pytest_plugins = ["tests.support.web_fixtures"]
__all__ = ["database", "database_url", "web"]

STREAMS = 300
HTML = "<script>alert(1)</script><img src=x onerror=alert(1)>"


def operations(web: Web) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(method, path, description) of everything that a path names something for."""
    whole = web.client().get("/api/v1/openapi.json").json()
    for path, methods in whole["paths"].items():
        for method, operation in methods.items():
            if "{" in path:
                yield method.upper(), path, operation


def test_another_tenants_ids_lead_nowhere_on_any_path(web: Web) -> None:
    theirs = ApiWorld.make(web)
    mine, _ = web.tenant()
    hostile = [web.bearer(role, tenant_id=mine) for role in (Role.ADMIN, Role.MEMBER)]
    tried, through = 0, []

    for method, path, operation in operations(web):
        wanted = theirs.wanted(operation["operationId"], path, Role.ADMIN)
        if not wanted.path:
            continue
        for client in hostile:
            address = path.format(**wanted.path)
            answer = client.request(method, address, params=wanted.query, json=wanted.body)
            tried += 1
            if answer.status_code not in (403, 404):
                through.append((method, path, answer.status_code))

    assert through == []
    assert tried >= 30


def test_another_tenants_rows_are_in_no_list(web: Web, database: Database) -> None:
    theirs, mine = web.tenant()[0], web.tenant()[0]
    with database.transaction() as connection:
        process_world.waiting(connection, theirs)
        process_world.task(connection, theirs)
    client = web.bearer(Role.ADMIN, tenant_id=mine)

    lists = [client.get(f"/api/v1/{name}").json()["items"] for name in ("processes", "tasks")]
    named = [client.get(f"/api/v1/{name}", params={"tenant_id": str(theirs)}) for name in ("processes", "tasks")]

    assert lists == [[], []]
    assert [one.status_code for one in named] == [404, 404]


def test_a_task_for_another_tenant_is_not_taken(web: Web) -> None:
    theirs, their_workspace = web.tenant()
    mine, _ = web.tenant()
    client = web.bearer(Role.ADMIN, tenant_id=mine)
    task = {"kind": "calendar.sync_now"}

    for more in ({"tenant_id": str(theirs)}, {"workspace_id": str(their_workspace)}):
        assert client.post("/api/v1/tasks", json=task | more).status_code == 404


def test_an_admin_makes_nobody_an_operator(web: Web) -> None:
    tenant_id, _ = web.tenant()
    client = web.bearer(Role.ADMIN, tenant_id=tenant_id)
    user = {"email": "x@example.test", "password": "long enough 1"}
    me = client.get("/api/v1/auth/me").json()["user_id"]

    made = client.post("/api/v1/users", json=user | {"role": "operator"})
    path = client.post("/api/v1/users", json=user).headers["Location"]
    raised = client.patch(path, json={"role": "operator"})
    myself = client.patch(f"/api/v1/users/{me}", json={"role": "operator"})

    assert [one.status_code for one in (made, raised, myself)] == [403, 403, 409]


# Bodies and queries


@pytest.mark.parametrize(
    "body",
    [
        b'{"kind": "a\\u0000b"}',
        b'{"kind": "calendar.sync_now", "payload": {"a": "\\u0000"}}',
        b'{"kind": "calendar.sync_now", "payload": {"\\u0000": 1}}',
        b'{"kind": "calendar.sync_now", "payload": {"a": "\\ud800"}}',
        b'{"kind": "calendar.sync_now", "payload": {"a": NaN}}',
        b'{"kind": "calendar.sync_now", "payload": ' + b'{"a":' * 90 + b"1" + b"}" * 91,
        b"[" * 100_000,
        b'{"kind": "calendar.sync_now"',
        b"\xff\xfe",
    ],
)
def test_what_no_database_holds_is_refused(web: Web, body: bytes) -> None:
    tenant_id, _ = web.tenant()
    client = web.bearer(tenant_id=tenant_id)

    answer = client.post("/api/v1/tasks", content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    "query",
    ["cursor=%00", "limit=0", "limit=201", "limit=-1", "limit=1e3", "cursor=AAAA", "unknown=1", "state=gone"],
)
def test_a_query_that_means_nothing_is_refused(web: Web, query: str) -> None:
    tenant_id, _ = web.tenant()

    assert web.bearer(tenant_id=tenant_id).get(f"/api/v1/processes?{query}").status_code == 422


@pytest.mark.parametrize("sequence", ["-1", "9007199254740992", "1" * 400, "1.5", "NaN", "0x10"])
def test_numbers_that_no_event_has_are_refused(web: Web, database: Database, sequence: str) -> None:
    tenant_id, _ = web.tenant()
    client = web.bearer(tenant_id=tenant_id)
    with database.transaction() as connection:
        path = f"/api/v1/processes/{process_world.pending(connection, tenant_id)}"

    answers = [
        client.get(f"{path}/events", params={"since_sequence": sequence}),
        client.get(f"{path}/stream", params={"since_sequence": sequence}),
        client.get(f"{path}/stream", headers={"Last-Event-ID": sequence + "x"}),
        client.post(f"{path}/acknowledge", json={"sequence": sequence}),
    ]

    assert [one.status_code for one in answers] == [422] * 4


def test_ten_megabytes_are_refused_before_they_are_read(web: Web) -> None:
    tenant_id, _ = web.tenant()
    client = web.bearer(tenant_id=tenant_id)

    def endless() -> Iterator[bytes]:
        for _ in range(160):
            yield b"x" * 65_536

    announced = _status_of(web, b"POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 10485760\r\n\r\n")
    try:
        unannounced = client.post("/api/v1/tasks", content=endless()).status_code
    except httpx.TransportError:
        unannounced = 413  # the connection was closed while we were still talking

    assert (announced, unannounced) == (413, 413)


def _status_of(web: Web, request: bytes) -> int:
    parts = urlsplit(web.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
        connection.sendall(request)
        return int(connection.recv(1000).split()[1])


# Browsers


def test_a_form_without_its_token_or_from_another_site_does_nothing(web: Web, database: Database) -> None:
    tenant_id, _ = web.tenant()
    browser = web.browser(tenant_id=tenant_id)
    token = browser.headers.pop("X-CSRF-Token")
    with database.transaction() as connection:
        path = f"/api/v1/processes/{process_world.pending(connection, tenant_id)}"

    tried = [
        browser.post(f"{path}/pause"),
        browser.post(f"{path}/pause", headers={"X-CSRF-Token": "0" * 64}),
        browser.post(f"{path}/pause", headers={"X-CSRF-Token": token, "Origin": "https://evil.example"}),
        browser.post(f"{path}/pause", headers={"X-CSRF-Token": token, "Origin": "null"}),
        browser.post(f"{path}/pause", headers={"X-CSRF-Token": token, "Sec-Fetch-Site": "cross-site"}),
        browser.post(f"{path}/pause", headers={"X-CSRF-Token": web.session(web.user(Role.OPERATOR))[1]}),
    ]
    state = browser.get(path).json()["state"]
    done = browser.post(f"{path}/pause", headers={"X-CSRF-Token": token, "Origin": web.url})

    assert [one.status_code for one in tried] == [403] * len(tried)
    assert state == "pending"
    assert done.status_code == 200


def test_pages_of_other_origins_read_nothing_unless_they_are_named(make_web: Any) -> None:
    plain: Web = make_web()
    open_: Web = make_web(web_allowed_origins="https://app.example")
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}

    refused = plain.client().get("/healthz", headers={"Origin": "https://app.example"})
    allowed = open_.client().options("/api/v1/processes", headers=asked)
    other = open_.client().get("/healthz", headers={"Origin": "https://evil.example"})

    assert "access-control-allow-origin" not in refused.headers
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-credentials" not in allowed.headers
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", "/\t/evil.example", "evil",
     "/a\r\nSet-Cookie: x=1", "\\\\evil.example", "", None, "/\x00"],
)  # fmt: skip
def test_no_redirect_leads_away(target: str | None) -> None:
    assert same_site_path(target) == "/"


def test_paths_of_our_own_are_gone_to() -> None:
    assert same_site_path("/processes/1?tab=events#last") == "/processes/1?tab=events#last"


def test_html_in_a_title_stays_text(web: Web, database: Database) -> None:
    tenant_id, _ = web.tenant()
    client = web.bearer(tenant_id=tenant_id)
    with database.transaction() as connection:
        process_id = process_world.pending(connection, tenant_id, title=HTML)

    answer = client.get(f"/api/v1/processes/{process_id}")

    assert answer.json()["title"] == HTML
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert re.search(r"script-src 'self'(;|$)", answer.headers["Content-Security-Policy"])
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def test_errors_repeat_nothing_that_was_sent(web: Web) -> None:
    client = web.client()
    secret = "hunter2-hunter2"

    answers = [
        client.post("/api/v1/auth/login", json={"email": secret, "password": 7}),
        client.post("/api/v1/auth/login", json={"email": "a@b.example", "password": secret, "more": secret}),
        client.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {secret}"}),
    ]

    assert [one.status_code for one in answers] == [422, 422, 401]
    assert all(secret not in one.text for one in answers)


# Streams


def test_a_reader_that_does_not_read_is_let_go_and_the_others_read_on(web: Web, database: Database) -> None:
    tenant_id, _ = web.tenant()
    client = web.bearer(tenant_id=tenant_id)
    with database.transaction() as connection:
        held = process_world.running(connection, tenant_id)
    hub: live.Hub = web.server.config.app.state.hub  # type: ignore[union-attr]
    parts = urlsplit(web.url)
    request = (
        f"GET /api/v1/processes/{held.process_id}/stream HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: {client.headers['Authorization']}\r\n\r\n"
    )

    with socket.socket() as lazy, listen(client, held.process_id) as heard:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect((parts.hostname, parts.port))
        lazy.sendall(request.encode())
        wait_until(lambda: hub.streams == 2, about="two streams")
        for number in range(5, 85, 5):  # half a queue at a time, so that whoever reads keeps up
            process_world.bulky(database, held, 5, 100_000)
            wait_until(lambda number=number: len(heard) >= number, about=f"{number} events at the other reader")
        wait_until(lambda: hub.streams == 1, about="the end of the lazy reader")

    assert [orjson.loads(one.data)["event_sequence"] for one in heard[:80]] == list(range(1, 81))


def test_idle_streams_cost_little_and_all_hear_what_happens(web: Web, database: Database) -> None:
    tenant_id, _ = web.tenant()
    token = web.bearer(tenant_id=tenant_id).headers["Authorization"]
    with database.transaction() as connection:
        held = process_world.running(connection, tenant_id)
    hub: live.Hub = web.server.config.app.state.hub  # type: ignore[union-attr]
    parts = urlsplit(web.url)
    request = f"GET /api/v1/processes/{held.process_id}/stream HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n"
    before = len(psutil.Process().threads())

    with ExitStack() as stack:
        idle = [
            stack.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=10))
            for _ in range(STREAMS)
        ]
        for one in idle:
            one.sendall(request.encode())
        wait_until(lambda: hub.streams == STREAMS, about=f"{STREAMS} streams")
        threads = len(psutil.Process().threads()) - before
        process_world.steps(database, held, 1)
        heard = [_read_until(one, b'"step 0"') for one in idle]
    wait_until(lambda: hub.streams == 0, about="the end of all streams")

    assert all(heard)
    assert threads < 50


def _read_until(connection: socket.socket, wanted: bytes) -> bool:
    data = b""
    while wanted not in data:
        part = connection.recv(65_536)
        if not part:
            return False
        data += part
    return True


def test_a_stream_ends_with_its_token(web: Web, database: Database) -> None:
    tenant_id, _ = web.tenant()
    client = web.client()
    token = web.token(web.user(tenant_id=tenant_id), lifetime=timedelta(seconds=2))
    client.headers["Authorization"] = f"Bearer {token}"
    with database.transaction() as connection:
        held = process_world.running(connection, tenant_id)

    with listen(client, held.process_id) as heard:
        wait_until(lambda: heard[-1:] and heard[-1].event == "end", about="the end")

    assert orjson.loads(heard[-1].data) == {"reason": "expired"}


def test_streams_end_with_the_server_and_say_so(make_web: Any, database: Database) -> None:
    web: Web = make_web()
    tenant_id, _ = web.tenant()
    with database.transaction() as connection:
        held = process_world.running(connection, tenant_id)

    with listen(web.bearer(tenant_id=tenant_id), held.process_id) as heard:
        wait_until(lambda: heard, about="the first event")
        web.server.should_exit = True
        wait_until(lambda: heard[-1].event == "end", about="the end")

    assert orjson.loads(heard[-1].data) == {"reason": "restart"}
