"""What somebody tries who means harm: forms and cursors that no database holds, guessing passwords, keys of others."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from sqlalchemy import text

from db.session import Database
from tenantsync.identity.public_keys import PublicKeys
from tenantsync.identity.roles import Role
from tenantsync.web.live import Hub, Subscription, TooManyStreams
from tests.support.jwks import KeyServer, Signer, key_server
from tests.support.web import Web

pytest_plugins = ["tests.support.web_fixtures"]

SUPABASE_SECRET = "supabase-0123456789-abcdefghijklmnopqrstuvwxyz"


def sent(client: httpx.Client, path: str, **fields: str) -> int:
    """The status of a form's answer."""
    given = {"csrf_token": client.headers.get("X-CSRF-Token", ""), "next": "/", **fields}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return client.post(path, content=urlencode(given), headers=headers).status_code


def test_a_form_with_a_nul_is_refused(web: Web) -> None:
    tenant_id, _ = web.tenant()
    admin, operator = web.browser(Role.ADMIN, tenant_id=tenant_id), web.browser(Role.OPERATOR)
    row = {"tenant": str(tenant_id), "row": str(tenant_id), "entity": "a\0"}

    answers = [
        sent(web.client(), "/login", email="a\0b@c.example", password="x"),
        sent(operator, "/people", email="a@b.example", password="long enough 1", tenant="a\0"),
        sent(admin, "/parked/rows/retry", **row),
        web.client().post("/login", files={"email": (None, b"a\0b@c.example")}).status_code,
    ]

    assert answers == [422] * 4


@pytest.mark.parametrize("cursor", ["%C3%A9", "AAAA", "_w", "a" * 5000, "%EF%BC%A1"])
def test_a_cursor_of_nobodys_is_refused_on_pages_too(web: Web, cursor: str) -> None:
    operator = web.browser(Role.OPERATOR)

    answers = [operator.get(f"/{name}?cursor={cursor}").status_code for name in ("processes", "tenants", "audit")]

    assert answers == [422] * 3


def test_a_flash_of_nobodys_is_none(web: Web) -> None:
    browser = web.browser(Role.OPERATOR)
    browser.cookies.set("tenantsync-flash", ("[" * 2000).encode().hex())

    assert browser.get("/schedules").status_code == 200


# Guessing


def used_up(database: Database, key: str) -> None:
    with database.transaction() as connection:
        statement = "insert into identity.attempts values (:key, now() + interval '1 hour')"
        connection.execute(text(statement), {"key": key})


def attempts(database: Database) -> set[str]:
    with database.reading() as connection:
        return set(connection.execute(text("select key from identity.attempts")).scalars())


@pytest.mark.parametrize(
    "spelling", ["iris@example.test", "IRIS@EXAMPLE.TEST", " İrİs@example.test ", "ır\u0131s@x.test"]
)
def test_an_address_spelt_in_other_ways_gives_no_more_guesses(web: Web, database: Database, spelling: str) -> None:
    web.user(Role.OPERATOR, email="iris@example.test")
    used_up(database, "account:" + hashlib.sha256(b"iris@example.test").hexdigest())

    answer = web.client().post("/api/v1/auth/login", json={"email": spelling.strip(), "password": "a guess"})

    with database.reading() as connection:
        same = connection.execute(text("select lower(:a) = 'iris@example.test'"), {"a": spelling.strip()}).scalar_one()
    assert answer.status_code == (429 if same else 401)


def test_whoever_guesses_too_often_uses_up_nobodys_attempts(web: Web, database: Database) -> None:
    used_up(database, "address:127.0.0.1")

    answer = web.client().post("/api/v1/auth/login", json={"email": "iris@example.test", "password": "a guess"})

    assert answer.status_code == 429
    assert attempts(database) == {"address:127.0.0.1"}


def test_a_header_that_nobody_vouches_for_makes_no_other_address(web: Web, database: Database) -> None:
    headers = {"X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.1", "X-Real-IP": "192.0.2.1"}

    web.client(headers=headers).post("/api/v1/auth/login", json={"email": "i@example.test", "password": "a guess"})

    assert {one for one in attempts(database) if one.startswith("address:")} == {"address:127.0.0.1"}


# What is written down


def test_tasks_and_ended_sessions_are_written_down(web: Web, database: Database) -> None:
    tenant_id, _ = web.tenant()
    email = web.user(tenant_id=tenant_id)
    client = web.client()
    client.headers["Authorization"] = f"Bearer {web.token(email)}"
    web.token(email)
    other = next(one for one in client.get("/api/v1/auth/sessions").json()["items"] if not one["current"])

    client.delete(f"/api/v1/auth/sessions/{other['session_id']}")
    task = client.post("/api/v1/tasks", json={"kind": "calendar.sync_now"}).json()

    with database.reading() as connection:
        query = "select action, details from worker.audit_logs where actor = :actor order by id"
        me = client.get("/api/v1/auth/me").json()["user_id"]
        rows = connection.execute(text(query), {"actor": f"user:{me}"}).all()
    assert [row.action for row in rows] == ["user.log_out", "task.add"]
    assert rows[1].details == {"task_id": task["task_id"], "kind": "calendar.sync_now"}


# Answers that are kept


def moved(web: Web, user_id: UUID, **app_metadata: Any) -> httpx.Client:
    claims = {
        "iss": "http://127.0.0.1:1/auth/v1",
        "aud": "authenticated",
        "role": "authenticated",
        "sub": str(user_id),
        "exp": int(time.time()) + 600,
        "app_metadata": app_metadata,
    }
    client = web.client()
    client.headers["Authorization"] = f"Bearer {jwt.encode(claims, SUPABASE_SECRET, algorithm='HS256')}"
    return client


def test_a_key_gets_no_answer_out_of_a_tenant_that_somebody_has_left(make_web: Callable[..., Web]) -> None:
    web = make_web(supabase_jwt_secret=SUPABASE_SECRET)
    user_id, key = uuid4(), {"Idempotency-Key": "one"}
    old, new = web.tenant()[0], web.tenant()[0]
    task = {"kind": "calendar.sync_now"}

    first = moved(web, user_id, tenant_id=str(old)).post("/api/v1/tasks", json=task, headers=key)
    again = moved(web, user_id, tenant_id=str(old)).post("/api/v1/tasks", json=task, headers=key)
    later = moved(web, user_id, tenant_id=str(new)).post("/api/v1/tasks", json=task, headers=key)

    assert [one.status_code for one in (first, again, later)] == [201, 201, 422]
    assert str(old) not in later.text


def test_what_is_kept_of_a_request_is_no_hash_of_a_password(web: Web, database: Database) -> None:
    client = web.bearer(Role.OPERATOR)
    user = b'{"email": "a@b.example", "password": "long enough 1", "role": "operator"}'
    headers = {"Content-Type": "application/json", "Idempotency-Key": "one"}

    client.post("/api/v1/users", content=user, headers=headers)

    with database.reading() as connection:
        kept = connection.execute(text("select fingerprint from identity.idempotency_keys")).scalars().all()
    assert len(kept) == 1
    assert hashlib.sha256(b"POST /api/v1/users?\n" + user).hexdigest() not in kept


# Keys


@pytest.fixture
def jwks() -> Iterator[KeyServer]:
    with key_server() as server:
        yield server


def test_who_comes_while_the_keys_are_fetched_is_not_turned_away(jwks: KeyServer) -> None:
    jwks.keys, jwks.pause = [Signer.make("one").public()], 0.3
    keys = PublicKeys(jwks.url)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(keys.find, ["one"] * 8))

    assert all(found)
    assert jwks.asked == 1


def test_keys_that_come_byte_by_byte_hold_nobody_up_for_long(jwks: KeyServer) -> None:
    jwks.drip = 0.05
    keys = PublicKeys(jwks.url, pace=0.0, timeout=0.4)
    began = time.monotonic()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(keys.find, ["one"] * 8))

    assert not any(found)
    assert time.monotonic() - began < 4


# Streams


async def _full(database: Database, mine: UUID, theirs: UUID) -> tuple[bool, bool, bool]:
    """(one more of mine is refused, another tenant's is not, and one of mine is not once another has left)"""
    hub = Hub(database, of_a_tenant=2)

    def one(tenant_id: UUID) -> Subscription | None:
        try:
            return hub.subscribe(uuid4(), since=0, head=0, session_id=None, expires_at=1e12, tenant_id=tenant_id)
        except TooManyStreams:
            return None

    first, _, refused, other = one(mine), one(mine), one(mine), one(theirs)
    assert first is not None
    hub.unsubscribe(first)
    hub.unsubscribe(first)
    return refused is None, other is not None, one(mine) is not None and one(mine) is None


def test_one_tenants_streams_leave_room_for_the_others(database: Database) -> None:
    assert asyncio.run(_full(database, uuid4(), uuid4())) == (True, True, True)
