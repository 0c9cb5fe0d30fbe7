"""Logging in, staying in and being thrown out, over a real server."""

from tenantsync.identity.roles import Role
from tests.support.web import PASSWORD, Web

pytest_plugins = ["tests.support.web_fixtures"]


def test_whoever_logs_in_is_who_they_are(web: Web) -> None:
    tenant_id, _ = web.tenant()
    client = web.client()
    email = web.user(Role.ADMIN, tenant_id=tenant_id)

    tokens = client.post("/api/v1/auth/login", json={"email": email, "password": PASSWORD}).json()
    client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
    me = client.get("/api/v1/auth/me").json()

    assert (me["role"], me["tenant_id"]) == ("admin", str(tenant_id))


def test_a_cookie_shows_who_one_is_too(web: Web) -> None:
    client = web.browser(Role.OPERATOR)

    answer = client.get("/api/v1/auth/me")

    assert answer.json()["role"] == "operator"


def test_nobody_is_told_to_log_in(web: Web) -> None:
    answer = web.client().get("/api/v1/auth/me")

    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_wrong_password_and_an_unknown_address_look_the_same(web: Web) -> None:
    email = web.user(Role.OPERATOR)
    client = web.client()

    wrong = client.post("/api/v1/auth/login", json={"email": email, "password": "not the one"})
    unknown = client.post("/api/v1/auth/login", json={"email": "no@example.test", "password": PASSWORD})

    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json() == unknown.json()


def test_it_lives_and_is_ready(web: Web) -> None:
    client = web.client()

    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {
        "status": "ready",
        "database": "ok",
        "migrations": "ok",
        "broker": "away",
    }
