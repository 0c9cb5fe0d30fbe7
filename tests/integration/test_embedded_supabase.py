"""@supabase/lite with our repairs: strict like a hosted project where a mistake would hide otherwise."""

from __future__ import annotations

import contextlib
import json
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.servers.lite import SupabaseLite
from sandbox.servers.node import PACKAGES, Node, find_node, install
from sandbox.servers.postgres import Postgres
from sandbox.servers.process import ServerFailed, wait_until

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

NOTES_TABLE = """
CREATE TABLE notes (
  id int PRIMARY KEY, tenant_id text NOT NULL, at timestamptz NOT NULL DEFAULT now(), body jsonb
);
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON notes FOR SELECT TO authenticated
  USING (tenant_id = auth.jwt() -> 'app_metadata' ->> 'tenant_id');
GRANT ALL ON notes TO service_role;
GRANT SELECT ON notes TO authenticated;
INSERT INTO notes (id, tenant_id) VALUES (1, 'one'), (2, 'two');
CREATE FUNCTION kind_of(argument jsonb) RETURNS text LANGUAGE sql AS 'SELECT jsonb_typeof(argument)';
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture(scope="module", params=["system", "wheel"])
def supabase(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[SupabaseLite]:
    """On each Node there is, with the table `notes` of two tenants."""
    try:
        find_node(request.param)
    except ServerFailed as missing:
        pytest.skip(str(missing))
    with SupabaseLite(postgres, database=f"notes_{uuid.uuid4().hex}", node=request.param) as server:
        postgres.execute(server.database, NOTES_TABLE)
        headers = {"apikey": server.secret_key}
        wait_until(lambda: httpx.get(f"{server.url}/rest/v1/notes", headers=headers).is_success)
        yield server


@pytest.fixture
def as_service(supabase: SupabaseLite) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=supabase.url, headers={"apikey": supabase.secret_key}) as client:
        yield client


@pytest.fixture
def as_member(supabase: SupabaseLite) -> Iterator[Callable[..., httpx.Client]]:
    with contextlib.ExitStack() as stack:

        def make(tenant: str | None, **claims: Any) -> httpx.Client:
            token = supabase.user_token(tenant, **claims)
            headers = {"apikey": supabase.publishable_key, "Authorization": f"Bearer {token}"}
            return stack.enter_context(httpx.Client(base_url=supabase.url, headers=headers))

        yield make


def test_supabase_refuses_without_a_key_of_its_own(supabase: SupabaseLite) -> None:
    strangers = [
        {},
        {"apikey": "sb_secret_wrong"},
        {"apikey": supabase.jwt_secret},
        {"Authorization": f"Bearer {supabase.secret_key}"},
    ]

    answers = [httpx.get(f"{supabase.url}/rest/v1/notes", headers=headers) for headers in strangers]

    assert [answer.status_code for answer in answers] == [httpx.codes.UNAUTHORIZED] * len(strangers)


def test_supabase_shows_each_tenant_its_own_rows(as_member: Callable[..., httpx.Client]) -> None:
    seen = {
        tenant: [row["id"] for row in as_member(tenant).get("/rest/v1/notes").json()]
        for tenant in ("one", "two", "three", None)
    }

    assert seen == {"one": [1], "two": [2], "three": [], None: []}


def test_supabase_refuses_an_expired_token(as_member: Callable[..., httpx.Client]) -> None:
    answer = as_member("one", lifetime=timedelta(seconds=-60)).get("/rest/v1/notes")

    assert (answer.status_code, answer.json()["code"]) == (httpx.codes.UNAUTHORIZED, "PGRST303")


def test_supabase_refuses_a_forged_token(supabase: SupabaseLite) -> None:
    header, claims, _ = supabase.user_token("one").split(".")
    headers = {"apikey": supabase.publishable_key, "Authorization": f"Bearer {header}.{claims}.Zm9yZ2Vk"}

    answer = httpx.get(f"{supabase.url}/rest/v1/notes", headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (httpx.codes.UNAUTHORIZED, "PGRST301")


def test_supabase_sees_a_table_that_is_made_while_it_runs(supabase: SupabaseLite, as_service: httpx.Client) -> None:
    assert as_service.get("/rest/v1/latecomer").status_code == httpx.codes.NOT_FOUND

    supabase.postgres.execute(
        supabase.database, "CREATE TABLE latecomer (id int); GRANT SELECT ON latecomer TO service_role"
    )

    wait_until(lambda: as_service.get("/rest/v1/latecomer").is_success)


def test_supabase_grants_nothing_that_a_migration_did_not_grant(
    supabase: SupabaseLite, as_service: httpx.Client
) -> None:
    supabase.postgres.execute(supabase.database, "CREATE TABLE ungranted (id int)")

    wait_until(lambda: as_service.get("/rest/v1/ungranted").status_code != httpx.codes.NOT_FOUND)

    assert as_service.get("/rest/v1/ungranted").json()["code"] == "42501"


def test_supabase_heeds_row_security_that_comes_later(
    supabase: SupabaseLite, as_member: Callable[..., httpx.Client]
) -> None:
    member = as_member("one")
    supabase.postgres.execute(
        supabase.database,
        "CREATE TABLE closing AS SELECT 1 AS id; GRANT SELECT ON closing TO authenticated",
    )
    wait_until(lambda: member.get("/rest/v1/closing").is_success)

    supabase.postgres.execute(supabase.database, "ALTER TABLE closing ENABLE ROW LEVEL SECURITY")

    assert member.get("/rest/v1/closing").json() == []


@pytest.mark.parametrize(("value", "kind"), [([{"a": 1}], "array"), ({"a": [1]}, "object"), (7, "number")])
def test_supabase_passes_json_arguments_as_json(as_service: httpx.Client, value: object, kind: str) -> None:
    answer = as_service.post("/rest/v1/rpc/kind_of", json={"argument": value})

    assert answer.json() == kind


def test_supabase_stores_json_as_json(as_service: httpx.Client) -> None:
    row = {"id": 3, "tenant_id": "json", "body": {"list": [1, None, "x"]}}

    as_service.post("/rest/v1/notes", json=row).raise_for_status()

    answer = as_service.get("/rest/v1/notes", params={"id": "eq.3", "select": "body"})
    assert answer.json() == [{"body": row["body"]}]


def test_supabase_answers_timestamps_in_iso_8601(as_service: httpx.Client) -> None:
    (row,) = as_service.get("/rest/v1/notes", params={"id": "eq.1"}).json()

    assert "T" in row["at"]
    assert datetime.fromisoformat(row["at"]).utcoffset() == timedelta(0)


def test_supabase_gives_back_the_file_it_stored(as_service: httpx.Client) -> None:
    as_service.post("/storage/v1/bucket", json={"id": "exports", "name": "exports"}).raise_for_status()
    as_service.post("/storage/v1/object/exports/a.txt", content=b"hello").raise_for_status()

    assert as_service.get("/storage/v1/object/exports/a.txt").content == b"hello"


def test_supabase_is_there_again_after_its_database_crashed(supabase: SupabaseLite, as_service: httpx.Client) -> None:
    supabase.postgres.kill()
    supabase.postgres.start()
    supabase.postgres.execute(
        supabase.database, "CREATE TABLE after_crash (id int); GRANT SELECT ON after_crash TO service_role"
    )

    wait_until(lambda: as_service.get("/rest/v1/after_crash").is_success)


def test_a_broadcast_rings_for_those_whom_the_policy_lets_in(supabase: SupabaseLite) -> None:
    policy = """
        CREATE POLICY tenant_topic ON realtime.messages FOR SELECT TO authenticated
          USING (realtime.topic() = 'tenant:' || (auth.jwt() -> 'app_metadata' ->> 'tenant_id'))
    """
    claims = json.dumps({"role": "authenticated", "app_metadata": {"tenant_id": "one"}})
    visible = []
    with supabase.postgres.connect(supabase.database) as connection, connection.cursor() as cursor:
        cursor.execute(f"{policy}; LISTEN realtime_messages")

        cursor.execute("""SELECT realtime.send('{"n": 3}', 'changed', 'tenant:one', true)""")
        connection.poll()
        cursor.execute("SET ROLE authenticated; SELECT set_config('request.jwt.claims', %s, false)", (claims,))
        for topic in ("tenant:one", "tenant:two"):
            cursor.execute("SELECT set_config('realtime.topic', %s, false)", (topic,))
            cursor.execute("SELECT count(*) FROM realtime.messages")
            visible.append(cursor.fetchone())

        assert [notice.channel for notice in connection.notifies] == ["realtime_messages"]
        assert visible == [(1,), (0,)]


# --- installing lite


def test_the_lock_names_no_host_and_checks_what_it_can() -> None:
    text = (PACKAGES / "package-lock.json").read_text()
    unchecked = {name for name, entry in json.loads(text)["packages"].items() if not entry.get("integrity")}

    assert "://" not in text
    assert {name for name in unchecked if not name.startswith("node_modules/@supabase/cli-")} == {""}


@pytest.fixture
def make_node(tmp_path: Path) -> Callable[[str], Node]:
    """A Node whose npm is a Python text of ours; no network."""
    return lambda npm: Node(Path(sys.executable), (sys.executable, "-c", npm), (99,))


def test_two_installers_at_once_install_once(make_node: Callable[[str], Node], tmp_path: Path) -> None:
    node = make_node(f"import os; os.mkdir('node_modules'); open({str(tmp_path / 'runs')!r}, 'a').write('x')")

    with ThreadPoolExecutor() as pool:
        folders = set(pool.map(lambda _: install(node, cache=tmp_path / "cache"), range(2)))

    assert [(folder / "node_modules").is_dir() for folder in folders] == [True]
    assert (tmp_path / "runs").read_text() == "x"


def test_an_install_that_fails_says_so_and_leaves_nothing(make_node: Callable[[str], Node], tmp_path: Path) -> None:
    node = make_node("import os, sys; os.mkdir('node_modules'); sys.exit('no route to the registry')")

    with pytest.raises(ServerFailed, match="no route to the registry"):
        install(node, cache=tmp_path)

    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
