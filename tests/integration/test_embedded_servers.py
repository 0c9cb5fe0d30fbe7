"""The embedded servers: they answer, keep their data, refuse strangers and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socketserver
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import psycopg2
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from sandbox.servers.lite import SupabaseLite
from sandbox.servers.ports import HOST, free_port, is_free
from sandbox.servers.postgres import Postgres
from sandbox.servers.process import ManagedProcess, PortTaken, ServerFailed, wait_until
from sandbox.servers.radicale import Radicale
from sandbox.servers.valkey import Valkey

if TYPE_CHECKING:
    from sandbox.servers.server import Server

# A first run on a machine installs lite from npm, which takes as long as the network does.
pytestmark = pytest.mark.timeout(600)

ONCE = Retry(NoBackoff(), 0)

EVENT = """\
BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//test//EN
BEGIN:VEVENT
UID:{uid}
DTSTAMP:20261120T000000Z
DTSTART:20261120T100000Z
DTEND:20261120T110000Z
SUMMARY:Stand-up
END:VEVENT
END:VCALENDAR
"""
LIST_EVERYTHING = """\
<d:sync-collection xmlns:d="DAV:">
<d:sync-token/><d:sync-level>1</d:sync-level><d:prop><d:getetag/></d:prop>
</d:sync-collection>
"""


# --- every server alike


@dataclass(frozen=True)
class Kind:
    """How one kind of server is made, given something to keep, and asked whether it has kept it."""

    make: Callable[[Path, Postgres], Any]
    write: Callable[[Any], object]
    has_it: Callable[[Any], bool]


def write_radicale(server: Radicale) -> None:
    server.add_user("ada")
    server.create_calendar("ada", "work")


def write_supabase(server: SupabaseLite) -> None:
    server.postgres.execute(server.database, "CREATE TABLE notes (id int); GRANT SELECT ON notes TO service_role")
    wait_until(lambda: supabase_has_it(server), what="the new table")


def supabase_has_it(server: SupabaseLite) -> bool:
    return httpx.get(f"{server.url}/rest/v1/notes", headers={"apikey": server.secret_key}).is_success


def postgres_has_it(server: Postgres) -> bool:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('kept') IS NOT NULL")
        return cursor.fetchone() == (True,)


def valkey_has_it(server: Valkey) -> bool:
    with redis.Redis.from_url(server.url()) as client:
        return bool(client.get("kept") == b"1")


def write_valkey(server: Valkey) -> None:
    with redis.Redis.from_url(server.url()) as client:
        client.set("kept", "1")


def radicale_has_it(server: Radicale) -> bool:
    server.add_user("ada")
    with server.client("ada") as client:
        answer = client.request("PROPFIND", server.calendar_url("ada", "work"), headers={"Depth": "0"})
    return answer.status_code == httpx.codes.MULTI_STATUS


KINDS = {
    "postgres": Kind(
        make=lambda folder, _: Postgres(folder=folder),
        write=lambda server: server.execute("postgres", "CREATE TABLE kept ()"),
        has_it=postgres_has_it,
    ),
    "valkey": Kind(
        make=lambda folder, _: Valkey(folder=folder, appendonly=True),
        write=write_valkey,
        has_it=valkey_has_it,
    ),
    "radicale": Kind(make=lambda folder, _: Radicale(folder=folder), write=write_radicale, has_it=radicale_has_it),
    "supabase": Kind(
        make=lambda folder, postgres: SupabaseLite(postgres, folder=folder, database=f"lite_{folder.name}"),
        write=write_supabase,
        has_it=supabase_has_it,
    ),
}


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture
def make_server(kind: Kind, postgres: Postgres, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """Each call makes another server, not yet started, in a folder that is closed to other users."""
    with contextlib.ExitStack() as stack:

        def make() -> Any:
            server = kind.make(tmp_path / uuid.uuid4().hex, postgres)
            stack.callback(server.close)
            return server

        yield make


@pytest.fixture
def taken_port() -> Iterator[int]:
    """Its owner hangs up on everyone."""
    with socketserver.TCPServer((HOST, free_port()), socketserver.BaseRequestHandler) as owner:
        thread = threading.Thread(target=owner.serve_forever, args=(0.01,))
        thread.start()
        yield owner.server_address[1]
        owner.shutdown()
        thread.join()


@pytest.fixture
def family_of() -> Callable[[Server], list[psutil.Process]]:
    return lambda server: [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]


@pytest.fixture
def is_gone() -> Callable[[psutil.Process], bool]:
    """An orphan may stay a zombie for a while where the init process is lazy."""
    return lambda process: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_restart_and_a_crash_keep_port_and_data(kind: Kind, make_server: Callable[[], Any]) -> None:
    server = make_server()
    server.start()
    kind.write(server)
    port = server.port

    server.restart()
    after_restart = (server.port, kind.has_it(server))
    server.kill()
    server.start()
    after_crash = (server.port, kind.has_it(server))

    assert (after_restart, after_crash) == ((port, True), (port, True))


def test_two_at_once_do_not_collide(kind: Kind, make_server: Callable[[], Any]) -> None:
    first, second = make_server(), make_server()

    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda server: server.start(), [first, second]))
    kind.write(first)

    assert kind.has_it(first)
    assert not kind.has_it(second)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_nothing_of_it_runs_after_its_end(
    make_server: Callable[[], Any],
    family_of: Callable[[Server], list[psutil.Process]],
    is_gone: Callable[[psutil.Process], bool],
    end: str,
) -> None:
    server = make_server()
    server.start()
    family = family_of(server)

    getattr(server, end)()

    assert all(is_gone(process) for process in family)
    assert is_free(server.port)
    assert not server.alive


def test_a_remembered_port_that_is_taken_gives_way_to_another(
    kind: Kind, make_server: Callable[[], Any], taken_port: int
) -> None:
    server = make_server()
    (server.folder / "port").write_text(str(taken_port))

    server.start()
    kind.write(server)

    assert server.port != taken_port
    assert kind.has_it(server)


def test_a_given_port_that_is_taken_is_an_error(tmp_path: Path, taken_port: int) -> None:
    server = Valkey(folder=tmp_path, port=taken_port)

    with pytest.raises(PortTaken, match=r"valkey ended while it was starting[\s\S]*in use"):
        server.start()

    assert not server.alive


def test_a_folder_of_its_own_is_removed_in_the_end() -> None:
    with Valkey() as server:
        folder = server.folder

    assert not folder.exists()


# --- processes


@pytest.fixture
def make_process(tmp_path: Path) -> Iterator[Callable[[str], ManagedProcess]]:
    """Runs a Python text."""
    with contextlib.ExitStack() as stack:

        def make(text: str) -> ManagedProcess:
            process = ManagedProcess(
                name="sample",
                command=[sys.executable, "-c", text],
                log_path=tmp_path / "log",
                hint="Try again.",
            )
            stack.callback(process.kill)
            return process

        yield make


def test_a_process_that_ends_while_starting_is_reported_with_its_log(
    make_process: Callable[[str], ManagedProcess],
) -> None:
    process = make_process("print('no such disk'); raise SystemExit(3)")

    with pytest.raises(ServerFailed, match=r"sample ended while it was starting[\s\S]*no such disk\nTry again."):
        process.start(lambda: False)


def test_a_process_that_never_gets_ready_is_not_left_running(
    make_process: Callable[[str], ManagedProcess], tmp_path: Path
) -> None:
    process = make_process("import os, time; print(os.getpid(), flush=True); time.sleep(60)")

    with pytest.raises(ServerFailed, match=r"was not ready within 0\.5 s"):
        process.start(lambda: False, timeout=0.5)

    assert not psutil.pid_exists(int((tmp_path / "log").read_text()))


def test_stop_kills_what_does_not_listen_and_what_left_the_session(
    make_process: Callable[[str], ManagedProcess], tmp_path: Path, is_gone: Callable[[psutil.Process], bool]
) -> None:
    process = make_process(
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = [sys.executable, '-c', 'import time; time.sleep(60)'];"
        "print(subprocess.Popen(child, start_new_session=True).pid, flush=True); time.sleep(60)"
    )
    process.start(lambda: (tmp_path / "log").read_text().endswith("\n"))
    family = [psutil.Process(process.pid), psutil.Process(int((tmp_path / "log").read_text()))]

    process.stop(grace=0.2)

    assert all(is_gone(member) for member in family)


def test_a_process_outlives_the_thread_that_started_it(make_process: Callable[[str], ManagedProcess]) -> None:
    process = make_process("import time; time.sleep(60)")
    thread = threading.Thread(target=lambda: process.start(lambda: True))

    thread.start()
    thread.join()

    with pytest.raises(TimeoutError):
        wait_until(lambda: not process.alive, timeout=0.3)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
@pytest.mark.parametrize("server_class", [Postgres, Valkey])
def test_a_server_dies_with_a_supervisor_that_is_killed(
    tmp_path: Path, is_gone: Callable[[psutil.Process], bool], server_class: type[Server]
) -> None:
    supervisor = (
        "import importlib, sys, time; from pathlib import Path; module, name, folder = sys.argv[1:];"
        "server = getattr(importlib.import_module(module), name)(folder=Path(folder)); server.start();"
        "print(server.pid, flush=True); time.sleep(60)"
    )
    command = [
        sys.executable,
        "-c",
        supervisor,
        server_class.__module__,
        server_class.__name__,
        str(tmp_path),
    ]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as running:
        assert running.stdout is not None
        server = psutil.Process(int(running.stdout.readline()))

        os.kill(running.pid, signal.SIGKILL)

    wait_until(lambda: is_gone(server), timeout=5)


# --- PostgreSQL


def test_postgres_refuses_a_wrong_password(postgres: Postgres) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(postgres.url(password="wrong"))


def test_postgres_never_runs_as_root(postgres: Postgres) -> None:
    assert psutil.Process(postgres.pid).uids().real != 0


def test_postgres_flushes_to_disk_only_when_it_is_durable(tmp_path: Path, postgres: Postgres) -> None:
    found = []

    with Postgres(folder=tmp_path, durable=True) as durable:
        for server in (durable, postgres):
            with server.connect() as connection, connection.cursor() as cursor:
                cursor.execute("SELECT current_setting('fsync'), current_setting('wal_level')")
                found.append(cursor.fetchone())

    assert found == [("on", "logical"), ("off", "logical")]


def test_a_database_is_copied_from_its_template(postgres: Postgres) -> None:
    postgres.create_database("master")
    postgres.execute("master", "CREATE TABLE kept ()")

    postgres.create_database("copy", template="master")

    postgres.execute("copy", "SELECT FROM kept")


def test_a_database_is_dropped_under_its_users(postgres: Postgres) -> None:
    postgres.create_database("short-lived")

    with postgres.connect("short-lived"):
        postgres.drop_database("short-lived")

    assert not postgres.has_database("short-lived")


# --- Valkey


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


def test_valkey_refuses_a_wrong_password(valkey: Valkey) -> None:
    with (
        redis.Redis(host=HOST, port=valkey.port, password="wrong", retry=ONCE) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_a_frozen_valkey_hangs_until_it_is_thawed(valkey: Valkey) -> None:
    with redis.Redis.from_url(valkey.url(3), socket_timeout=0.2, retry=ONCE) as client:
        client.ping()

        valkey.freeze()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        valkey.thaw()

        wait_until(client.ping)


def test_a_frozen_valkey_can_be_stopped(tmp_path: Path) -> None:
    with Valkey(folder=tmp_path) as server:
        server.freeze()

        server.stop()

        assert is_free(server.port)


def test_a_full_valkey_refuses_rather_than_forgets(tmp_path: Path) -> None:
    with (
        Valkey(folder=tmp_path, maxmemory="1mb") as server,
        redis.Redis.from_url(server.url()) as client,
        pytest.raises(redis.OutOfMemoryError),
    ):
        client.set("big", "x" * 2_000_000)
        client.set("next", "x")


# --- Radicale


@pytest.fixture(scope="module")
def radicale() -> Iterator[Radicale]:
    with Radicale() as server:
        server.add_user("ada")
        server.add_user("bob")
        server.create_calendar("ada", "work", display_name="Work & play")
        yield server


def test_radicale_keeps_users_out_of_each_others_calendars(radicale: Radicale) -> None:
    with radicale.client("bob") as client:
        answer = client.request("PROPFIND", radicale.calendar_url("ada", "work"))

    assert answer.status_code == httpx.codes.FORBIDDEN


@pytest.mark.parametrize("access", [("ada", "wrong"), ("nobody", "x"), None])
def test_radicale_refuses_whoever_it_does_not_know(radicale: Radicale, access: tuple[str, str] | None) -> None:
    answer = httpx.request("PROPFIND", radicale.calendar_url("ada", "work"), auth=access)

    assert answer.status_code == httpx.codes.UNAUTHORIZED


def test_radicale_takes_and_loses_users_while_it_runs(radicale: Radicale) -> None:
    password = radicale.add_user("carol")
    statuses = []

    statuses.append(httpx.request("PROPFIND", f"{radicale.url}carol/", auth=("carol", password)).status_code)
    radicale.remove_user("carol")
    statuses.append(httpx.request("PROPFIND", f"{radicale.url}carol/", auth=("carol", password)).status_code)

    assert statuses == [httpx.codes.MULTI_STATUS, httpx.codes.UNAUTHORIZED]


def test_a_calendar_is_filled_at_once(radicale: Radicale) -> None:
    url = radicale.fill_calendar("ada", "full", [EVENT.format(uid=f"event-{n}") for n in range(500)])

    with radicale.client("ada") as client:
        listing = client.request("REPORT", url, content=LIST_EVERYTHING)
        event = client.get(f"{url}event-7.ics")

    assert listing.text.count("<response>") == 500
    assert "SUMMARY:Stand-up" in event.text
