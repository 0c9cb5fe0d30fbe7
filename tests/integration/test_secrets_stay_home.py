"""P67: whatever goes wrong, no token, no password and no appointment leaves the tables that are made for them."""

import json
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal

import pytest
import structlog

from config.settings import Settings
from sandbox.google.control import GoogleControl
from sandbox.google.specs import Fault
from sandbox.servers.radicale import Radicale
from tenantsync.calendars import connecting
from tenantsync.mirror import service as mirror
from tenantsync.mirror.supabase import Supabase
from tests.support.logs import captured_logs
from tests.support.raw_server import RawServer, answer
from tests.support.scene import ANN, CONTENT, ICS, PASSWORD, USER, scene
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures

FAULTS = [
    Fault(kind="status", status=500),
    Fault(kind="status", status=503, html=True),
    Fault(kind="status", status=400, reason="timeRangeEmpty"),
    Fault(kind="status", status=403, reason="forbidden"),
    Fault(kind="status", status=404, reason="notFound"),
    Fault(kind="status", status=418, reason="teapot"),
    Fault(kind="status", status=429, reason="rateLimitExceeded"),
    Fault(kind="status", status=403, reason="quotaExceeded"),
    Fault(kind="status", status=403, reason="accessNotConfigured"),
    Fault(kind="status", status=410, reason="fullSyncRequired"),
    Fault(kind="status", status=401, reason="authError"),
    Fault(kind="html_200"),
    Fault(kind="not_json"),
    Fault(kind="truncated_json"),
    Fault(kind="cut_gzip"),
    Fault(kind="reset"),
    Fault(kind="hang"),
    Fault(kind="redirect"),
    Fault(kind="page_without_tokens"),
    Fault(kind="status", endpoint="token", status=503),
    Fault(kind="status", endpoint="token", status=401, reason="invalid_client"),
    Fault(kind="html_200", endpoint="token"),
    Fault(kind="reset", endpoint="token"),
]
REFUSALS = [  # what Postgres says then quotes the row
    "sync.staged_events add constraint refused check (title <> 'Kanarienvogel' or title is null) not valid",
    "sync.events add constraint refused check (title <> 'Kanarienvogel') not valid",
    "sync.calendars add constraint refused check (runs < 2) not valid",
    "sync.accounts add constraint refused check (access_expires_at <= now()) not valid",
    "worker.tasks add constraint refused check (kind <> 'sync.unit') not valid",
]
FORGIVE = """
update sync.accounts set state = 'connected', access_token = case when :token then null else access_token end
"""
ATTEMPTS = "select count(*) as n from worker.tasks where kind = 'sync.unit' and status = 'failed'"


def test_p67_a_secret_that_got_out_would_be_found(settings: Settings, google: GoogleControl) -> None:
    """Guards the tests below: a search that finds nothing anywhere would let them pass."""
    with scene(settings, google) as opened:
        logging.getLogger("careless").warning("the title is %s", CONTENT["summary"])
        opened.fleet.execute("update sync.calendars set last_error = cursor")
        opened.raised.append("Zwergohreule")

        told = opened.told()

    assert {place for place, _ in told} == {"log", "sentences", "raised"}


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_p67_failures_of_google_tell_nobody_anything(
    settings: Settings, google: GoogleControl, log_format: str
) -> None:
    with scene(settings, google, log_format=log_format, sync_unit_deadline=timedelta(milliseconds=300)) as opened:
        for number, fault in enumerate(FAULTS, 1):
            google.insert(ANN, ANN, {"id": f"bird{number}", **CONTENT})
            opened.fleet.execute(FORGIVE, token=fault.endpoint == "token")
            google.clear_faults()
            google.add_fault(fault.model_copy(update={"times": None}))
            opened.sync()
        failed = opened.fleet.one(ATTEMPTS)["n"]
        told = opened.told()

    assert failed == len(FAULTS)
    assert told == set()


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.partition(" ")[0])
def test_p67_a_row_that_postgres_refuses_and_quotes_is_not_repeated(
    settings: Settings, google: GoogleControl, refusal: str
) -> None:
    with scene(settings, google) as opened:
        google.insert(ANN, ANN, {"id": "bird1", **CONTENT})
        opened.fleet.execute(f"alter table {refusal}")
        opened.fleet.execute("update sync.accounts set access_expires_at = now()")
        try:
            opened.sync()
            opened.sync()
        finally:
            opened.fleet.execute(f"alter table {refusal.partition(' ')[0]} drop constraint refused")
        heard, told = opened.log.getvalue() + "".join(opened.raised), opened.told()

    assert "CheckViolation" in heard
    assert told == set()


@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_p67_no_log_level_is_talkative_enough(settings: Settings, google: GoogleControl, level: str) -> None:
    with scene(settings, google, log_level=level) as opened:
        google.insert(ANN, ANN, {"id": "bird1", **CONTENT})
        opened.fleet.execute("update sync.accounts set access_token = null")
        opened.sync()
        with RawServer(answer(b"{}")) as server:
            supabase = Supabase(server.base_url, "sb_secret_test")
            mirror.drain(opened.fleet.database, supabase, batch_size=100, budget=1.0)
            supabase.close()
        told = opened.told()

    assert told == set()


@pytest.mark.parametrize(
    ("endpoint", "status"),
    [("list", 400), ("list", 401), ("list", 403), ("list", 404), ("list", 410), ("list", 418), ("list", 429),
     ("list", 500), ("token", 400), ("token", 401), ("token", 429), ("token", 500)],
)  # fmt: skip
def test_p67_what_a_provider_says_is_not_repeated(
    settings: Settings, google: GoogleControl, endpoint: Literal["list", "token"], status: int
) -> None:
    with scene(settings, google) as opened:
        echo = f"{opened.fleet.calendar(opened.tenant)['cursor']} Kanarienvogel"
        fault = Fault(kind="status", endpoint=endpoint, status=status, reason=echo, message=echo, times=None)
        google.add_fault(fault)
        opened.fleet.execute(FORGIVE, token=endpoint == "token")
        opened.sync()
        failed, told = opened.fleet.one(ATTEMPTS)["n"], opened.told()

    assert failed == 1
    assert told == set()


def test_p67_a_caldav_login_that_fails_in_every_way_tells_nobody(
    settings: Settings, google: GoogleControl, radicale: Radicale
) -> None:
    radicale.add_user(USER, PASSWORD)
    url = radicale.fill_calendar(USER, "work", [ICS])
    with scene(settings, google) as opened:
        fleet, tenant = opened.fleet, opened.fleet.tenant()
        about = {"tenant_id": tenant.tenant_id, "workspace_id": tenant.workspace_id, "provider": "caldav"}
        login = json.dumps({"username": USER, "password": PASSWORD})
        with RawServer(answer(b"<html>no</html>")) as page:
            for address, credentials in (
                (f"http://{USER}:{PASSWORD}@127.0.0.1/", login),
                (page.base_url, login),
                ("http://127.0.0.1:1/", login),
                ("http://10.0.0.1/", login),
                (url, login[:-2]),
                (url, json.dumps({"username": f"{USER}:{PASSWORD}", "password": PASSWORD})),
                (url, json.dumps({"username": "somebody", "password": PASSWORD})),
            ):
                opened.attempt(
                    lambda address=address, credentials=credentials: connecting.connect(
                        fleet.database, fleet.settings, **about, address=address, credentials=credentials
                    )
                )
        connecting.connect(fleet.database, fleet.settings, **about, address=url, credentials=login)
        opened.sync()
        radicale.add_user(USER, "another")
        opened.sync()
        told, refused = opened.told(), fleet.account(tenant)["state"]

    assert len(opened.raised) > 7
    assert refused == "needs_reauth"
    assert told == set()


@pytest.mark.parametrize(
    "said",
    [
        answer(b'{"code":"23505","message":"Kanarienvogel","details":"Eisvogelweg","hint":"sb_secret_test"}',
               "Content-Type: application/json", status="409 Conflict"),
        answer(b"<html>Kanarienvogel sb_secret_test</html>", status="502 Bad Gateway"),
        answer(b"Kanarienvogel"),
        answer(b'{"message":"Invalid API key sb_secret_test"}', "Content-Type: application/json", status="401 No"),
        b"",
    ],
    ids=["conflict", "html", "text", "key", "nothing"],
)  # fmt: skip
def test_p67_a_mirror_that_fails_tells_nobody(settings: Settings, google: GoogleControl, said: bytes) -> None:
    with scene(settings, google) as opened, RawServer(said) as server:
        supabase = Supabase(server.base_url, "sb_secret_test")
        drained = opened.attempt(lambda: mirror.drain(opened.fleet.database, supabase, batch_size=100, budget=1.0))
        supabase.close()
        told = opened.told()

    assert "failure=None" not in drained
    assert told == set()


@pytest.mark.parametrize(
    "write",
    [
        lambda log, secret: log.warning("sent", token=secret),
        lambda log, secret: log.warning("sent", headers={"Authorization": f"Bearer {secret}"}),
        lambda log, secret: log.warning("sent", header=f"Bearer {secret}"),
        lambda log, secret: log.warning("asked", url=f"https://ann:{secret}@host/dav"),
        lambda log, secret: log.warning("asked", body=f"grant_type=refresh_token&refresh_token={secret}&x=y"),
        lambda _, secret: logging.getLogger("library").warning("sent %s", {"Authorization": f"Bearer {secret}"}),
        lambda _, secret: logging.getLogger("library").warning("Authorization: Basic %s", secret),
        lambda log, secret: log.warning("failed", exc_info=ValueError(f"Bearer {secret}")),
        lambda log, secret: log.warning("failed", exc_info=ValueError(f"{{'access_token': '{secret}'}}")),
    ],
    ids=["field", "headers", "header", "address", "form", "library", "basic", "exception", "dictionary"],
)
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_p67_the_log_blots_out_what_is_logged_by_mistake(
    settings: Settings, log_format: str, write: Callable[[Any, str], None]
) -> None:
    with captured_logs(settings.model_copy(update={"log_format": log_format})) as log:
        write(structlog.get_logger("careless"), "c2VjcmV0LXZhbHVl")

    assert len(log.getvalue()) > 0
    assert "c2VjcmV0LXZhbHVl" not in log.getvalue()
