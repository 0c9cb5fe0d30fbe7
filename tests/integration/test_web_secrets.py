"""What a log at DEBUG says of log-ins, answers and the doorbell: nothing that opens a door, and nobody's content."""

import logging

import jwt
import pytest

from db.session import Database
from tenantsync.identity.roles import Role
from tenantsync.work.doorbell import Doorbell
from tests.support import process_world
from tests.support.fleet import make_settings
from tests.support.logs import captured_logs
from tests.support.sse import listen
from tests.support.waiting import wait_until
from tests.support.web import PASSWORD, Web

pytest_plugins = ["tests.support.web_fixtures"]

CONTENT = "Kanarienvogel"
OLD_KEY = jwt.encode({"role": "service_role"}, "x" * 40, algorithm="HS256")
"""As projects had them before they had secret keys."""


def test_a_log_at_debug_opens_no_door(web: Web, database: Database) -> None:
    tenant_id, _ = web.tenant()
    email = web.user(Role.ADMIN, tenant_id=tenant_id)
    given = {"email": email, "password": PASSWORD}
    client, browser = web.client(), web.browser(tenant_id=tenant_id)

    with captured_logs(web.settings.model_copy(update={"log_level": "DEBUG"})) as log:
        pair = client.post("/api/v1/auth/login", json=given).json()
        client.headers["Authorization"] = f"Bearer {pair['access_token']}"
        client.post("/api/v1/auth/refresh", json={"refresh_token": pair["refresh_token"]})
        client.post("/api/v1/auth/login", json=given | {"password": "Zwergohreule"})
        client.post("/api/v1/tasks", json={"kind": CONTENT, "payload": {"words": CONTENT}})
        with database.transaction() as connection:
            asked = process_world.waiting(connection, tenant_id, title=CONTENT)
        path = f"/api/v1/processes/{asked.process_id}/questions/{asked.question_id}/answer"
        browser.post(path, json={"answer": {"x": CONTENT}})
        with listen(browser, asked.process_id) as heard:
            wait_until(lambda: heard, about="an event")
        logging.getLogger("careless").warning("cookie %s", browser.cookies["tenantsync"])
        logging.getLogger("careless").warning("refresh %s apikey=%s", pair["refresh_token"], OLD_KEY)
        told = log.getvalue()

    secrets = [PASSWORD, "Zwergohreule", CONTENT, pair["refresh_token"], browser.headers["X-CSRF-Token"], OLD_KEY]
    secrets += [one.rpartition(".")[2] for one in (pair["access_token"], browser.cookies["tenantsync"])]
    assert [one for one in secrets if one in told] == []
    assert "careless" in told


@pytest.mark.parametrize("key", ["sb_secret_Rotkehlchen-Rotkehlchen", OLD_KEY])
def test_the_doorbell_says_its_key_in_no_log(database_url: str, web: Web, key: str) -> None:
    settings = make_settings(database_url, supabase_url=web.url, supabase_secret_key=key, log_level="DEBUG")

    with captured_logs(settings) as log:
        with Doorbell(settings, lambda: None):
            wait_until(lambda: "doorbell_away" in log.getvalue(), about="a doorbell that is refused")
        told = log.getvalue()

    assert key not in told
    assert key.rpartition("_")[2] not in told
