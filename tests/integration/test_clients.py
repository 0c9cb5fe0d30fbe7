"""The clients against what they are made for: the HTTP API, and Supabase with Realtime."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from db.ids import new_id
from db.session import Database
from sandbox.servers.node import find_node
from sandbox.servers.realtime import SupabaseGateway
from tests.support import process_world, typescript
from tests.support.fleet import TenantHandle
from tests.support.mirror import MirrorSide, plant_tenant
from tests.support.process_rows import plant_process, plant_process_events
from tests.support.shared_database import database_url, shared_database  # noqa: F401 — fixtures
from tests.support.typescript import CLIENT, Follower, following
from tests.support.waiting import wait_until
from tests.support.web import Web

pytest_plugins = ["tests.support.realtime_fixtures", "tests.support.web_fixtures"]

# A first run on a machine installs from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

PYTHON_CLIENT = CLIENT.parent / "python"
Following = Callable[..., AbstractContextManager[Follower]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return typescript.installed(tmp_path_factory.mktemp("typescript"))


@pytest.fixture(params=["typescript", "python"])
def follow(request: pytest.FixtureRequest, built: Path) -> Following:
    """Follows a process with one of the clients, in an operating-system process of its own."""
    if request.param == "python":
        return partial(following, [sys.executable, PYTHON_CLIENT / "tests" / "follow.py"], PYTHON_CLIENT)
    return partial(following, [find_node().executable, "test/follow.mjs"], built)


# The TypeScript client by itself


def test_what_is_built_is_what_stands_in_the_sources(built: Path, tmp_path: Path) -> None:
    compiled = typescript.run(built, "node_modules/typescript/bin/tsc", "-p", ".", "--outDir", tmp_path)

    assert compiled.returncode == 0, compiled.stdout
    fresh = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert fresh == {path.name: path.read_text() for path in (CLIENT / "dist").iterdir()}


def test_its_own_tests_pass(built: Path) -> None:
    done = typescript.run(built, "--test", "test/sse.test.mjs", "test/stream.test.mjs")

    assert done.returncode == 0, done.stdout[-4000:]
    assert "# fail 0" in done.stdout or "ℹ fail 0" in done.stdout


def test_it_depends_on_nothing_and_its_lock_names_no_host() -> None:
    assert '"dependencies"' not in (CLIENT / "package.json").read_text()
    assert "http" not in (CLIENT / "package-lock.json").read_text().replace("https://github.com/sponsors", "")


# Over the HTTP API


@pytest.fixture
def held(web: Web, database: Database) -> Any:
    """A running process of a new tenant."""
    tenant_id, _ = web.tenant()
    with database.transaction() as connection:
        return process_world.running(connection, tenant_id)


def last(database: Database, held: Any) -> int:
    query = text("select last_sequence from process.processes where process_id = :p")
    with database.reading() as connection:
        return int(connection.execute(query, {"p": held.process_id}).scalar_one())


def member_token(web: Web, held: Any) -> str:
    return web.token(web.user(tenant_id=held.tenant_id))


def test_a_process_is_followed_over_http(web: Web, database: Database, held: Any, follow: Following) -> None:
    process_world.steps(database, held, 3)
    known = last(database, held)

    with follow(url=web.url, processId=str(held.process_id), token=member_token(web, held)) as follower:
        follower.wait_for(known)
        follower.wait_for_state("live")
        process_world.steps(database, held, 5)
        follower.wait_for(last(database, held))

    assert follower.numbers() == list(range(1, last(database, held) + 1))
    assert follower.all("gap") == []


def test_a_reader_comes_back_when_the_server_lets_go(
    make_web: Callable[..., Web], database: Database, follow: Following
) -> None:
    web = make_web()
    tenant_id, _ = web.tenant()
    with database.transaction() as connection:
        held = process_world.running(connection, tenant_id)

    with follow(url=web.url, processId=str(held.process_id), token=member_token(web, held)) as follower:
        follower.wait_for_state("live")
        for stream in list(web.server.config.app.state.hub._all):  # type: ignore[union-attr]
            stream.task.get_loop().call_soon_threadsafe(stream.end, "restart")
        follower.wait_for_state("waiting")
        process_world.steps(database, held, 5)
        follower.wait_for(last(database, held))

    assert follower.numbers() == list(range(1, last(database, held) + 1))


def test_what_one_has_read_is_acknowledged_over_http(
    web: Web, database: Database, held: Any, follow: Following
) -> None:
    process_world.steps(database, held, 2)
    email = web.user(tenant_id=held.tenant_id)
    token = web.token(email)
    client = web.client()
    client.headers["Authorization"] = f"Bearer {token}"
    path = f"/api/v1/processes/{held.process_id}/undelivered"
    before = client.get(path).json()["items"]

    with follow(url=web.url, processId=str(held.process_id), token=token) as follower:
        follower.wait_for(last(database, held))
        follower.say("acknowledge")
        follower.wait_for(1, "acknowledged")

    assert len(before) == last(database, held)
    assert client.get(path).json()["items"] == []


def test_another_tenants_process_is_not_followed(web: Web, held: Any, follow: Following) -> None:
    stranger = web.token(web.user(tenant_id=web.tenant()[0]))

    with follow(url=web.url, processId=str(held.process_id), token=stranger) as follower:
        follower.wait_for_state("closed")

    assert follower.all("event") == []
    assert "404" in follower.all("error")[-1]


# Over Supabase


@pytest.fixture
def acme(database: Database, mirror: MirrorSide) -> TenantHandle:
    return plant_tenant(database, "acme")


@pytest.fixture
def on_supabase(
    mirror: MirrorSide, supabase_gateway: SupabaseGateway, acme: TenantHandle
) -> Callable[..., dict[str, Any]]:
    """Options for following one of acme's processes there."""

    def options(process_id: object, **more: object) -> dict[str, Any]:
        return {
            "url": supabase_gateway.url,
            "apikey": mirror.lite.publishable_key,
            "token": mirror.lite.user_token(acme.tenant_id),
            "tenantId": str(acme.tenant_id),
            "processId": str(process_id),
            **more,
        }

    return options


def test_a_process_is_followed_over_supabase(
    database: Database, mirror: MirrorSide, acme: TenantHandle, follow: Following, on_supabase: Any
) -> None:
    process = plant_process(database, acme)
    plant_process_events(database, process, 3)
    mirror.drain(database)

    with follow(**on_supabase(process)) as follower:
        follower.wait_for(3)
        follower.wait_for_state("live")
        for number in (4, 5, 6):
            plant_process_events(database, process, 1)
            mirror.drain(database)
            follower.wait_for(number)

    assert follower.numbers() == [1, 2, 3, 4, 5, 6]
    assert follower.all("event")[0] | {"created_at": "", "id": ""} == {
        "id": "",
        "process_id": str(process),
        "event_type": "step_update",
        "event_sequence": 1,
        "event_category": "process",
        "event_priority": 3,
        "event_source": "worker",
        "created_at": "",
        "event_data": {"step": "a"},
    }


def test_realtime_that_goes_away_and_comes_back_costs_no_event(
    database: Database,
    mirror: MirrorSide,
    acme: TenantHandle,
    follow: Following,
    on_supabase: Any,
    supabase_gateway: SupabaseGateway,
) -> None:
    process = plant_process(database, acme)
    plant_process_events(database, process, 2)
    mirror.drain(database)

    with follow(**on_supabase(process)) as follower:
        follower.wait_for_state("live")
        supabase_gateway.kill()
        follower.wait_for_state("waiting")
        plant_process_events(database, process, 3)
        mirror.drain(database)
        supabase_gateway.start()
        follower.wait_for(5)
        follower.wait_for_state("live")
        plant_process_events(database, process, 1)
        mirror.drain(database)
        follower.wait_for(6)

    assert follower.numbers() == [1, 2, 3, 4, 5, 6]


def test_another_tenants_process_is_not_seen_over_supabase(
    database: Database, mirror: MirrorSide, acme: TenantHandle, follow: Following, on_supabase: Any
) -> None:
    other = plant_tenant(database, "other")
    process = plant_process(database, other)
    plant_process_events(database, process, 3)
    mirror.drain(database)

    with follow(**on_supabase(process, tenantId=str(other.tenant_id))) as follower:
        wait_until(lambda: follower.all("state").count("waiting") >= 2, about="two refusals")

    assert follower.all("event") == []
    assert any("Unauthorized" in (one or "") for one in follower.all("error"))


def test_a_page_with_supabase_js_shares_its_connection(
    database: Database, mirror: MirrorSide, acme: TenantHandle, built: Path, on_supabase: Any
) -> None:
    process = plant_process(database, acme)
    plant_process_events(database, process, 2)
    mirror.drain(database)
    node = find_node().executable

    with following([node, "test/follow.mjs"], built, **on_supabase(process, js=True)) as follower:
        follower.wait_for_state("live")
        for number in (3, 4):
            plant_process_events(database, process, 1)
            mirror.drain(database)
            follower.wait_for(number)
            follower.wait_for(number, "other")

    assert follower.numbers() == follower.numbers("other") == [1, 2, 3, 4]


@pytest.mark.parametrize("case", ["expired", "nobody"])
def test_supabase_js_is_refused_what_is_not_its_users(
    mirror: MirrorSide, acme: TenantHandle, built: Path, on_supabase: Any, case: str
) -> None:
    token = {
        "expired": mirror.lite.user_token(acme.tenant_id, lifetime=timedelta(seconds=-5)),
        "nobody": mirror.lite.publishable_key,
    }[case]

    with following(
        [find_node().executable, "test/follow.mjs"], built, **on_supabase(new_id(), js=True, token=token)
    ) as follower:
        follower.wait_for(1, "error")
        assert follower.all("state")[-1] in ("waiting", "connecting", "closed")

    assert "live" not in follower.all("state")
