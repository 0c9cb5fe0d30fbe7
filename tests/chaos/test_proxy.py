"""The fault proxy does to a connection what it was told, and nothing to the others."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg2
import pytest

from sandbox.chaos.network import Network, ProxyFailed
from sandbox.chaos.proxy import Mode
from sandbox.servers.postgres import Postgres
from sandbox.servers.process import wait_until

Connect = Callable[[str], psycopg2.extensions.connection]


@pytest.fixture
def network() -> Iterator[Network]:
    with Network(seed=1) as opened:
        yield opened


@pytest.fixture
def connect(network: Network, postgres: Postgres) -> Iterator[Connect]:
    """Connects to Postgres through a listener of the given name."""
    ports: dict[str, int] = {}
    opened: list[psycopg2.extensions.connection] = []

    def connect(name: str) -> psycopg2.extensions.connection:
        if name not in ports:
            ports[name] = network.open(name, postgres.port, "postgres")
        url = postgres.url().replace(f":{postgres.port}/", f":{ports[name]}/")
        opened.append(psycopg2.connect(url, connect_timeout=5))
        opened[-1].autocommit = True
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


def answer(connection: psycopg2.extensions.connection, query: str = "select 7") -> object:
    with connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
    return row[0] if row else None


def test_it_passes_what_is_larger_than_any_buffer(connect: Connect) -> None:
    assert answer(connect("a/postgres"), "select length(repeat('x', 20000000))") == 20_000_000
    assert len(str(answer(connect("a/postgres"), "select repeat('x', 5000000)"))) == 5_000_000


def test_a_cut_resets_what_is_open_refuses_what_comes_and_leaves_others_alone(
    network: Network, connect: Connect
) -> None:
    struck, spared = connect("a/postgres"), connect("b/postgres")

    assert network.set("a/*", Mode("cut")) == 1

    with pytest.raises(psycopg2.OperationalError):
        answer(struck)
    with pytest.raises(psycopg2.OperationalError):
        connect("a/postgres")
    assert answer(spared) == 7
    network.mend()
    assert answer(connect("a/postgres")) == 7


def test_a_frozen_connection_goes_on_where_it_stood(network: Network, connect: Connect) -> None:
    connection = connect("a/postgres")
    network.set("*", Mode("freeze"))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(answer, connection)

        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        network.mend()

        assert waiting.result(5) == 7


def test_a_slow_connection_takes_its_latency_both_ways(network: Network, connect: Connect) -> None:
    connection = connect("a/postgres")
    network.set("*", Mode("slow", latency=0.1))

    began = time.monotonic()
    answer(connection)

    assert time.monotonic() - began >= 0.2


def test_a_swallowed_answer_was_carried_out(network: Network, connect: Connect, database_url: str) -> None:
    connection = connect("a/postgres")
    answer(connection, "create table if not exists swallowed (n int); select 1")
    network.set("*", Mode("swallow"))

    assert answer(connection) == 7  # a question is no write
    with pytest.raises(psycopg2.OperationalError):
        answer(connection, "insert into swallowed values (1)")

    network.mend()
    again = connect("a/postgres")
    assert network.swallowed() == 1
    assert answer(again, "select count(*) from swallowed") == 1
    answer(again, "drop table swallowed; select 1")


def test_the_commit_of_a_transaction_is_swallowed_not_what_is_in_it(network: Network, connect: Connect) -> None:
    connection = connect("a/postgres")
    answer(connection, "create table if not exists committed (n int); select 1")
    connection.autocommit = False
    network.set("*", Mode("swallow"))

    with connection.cursor() as cursor:
        cursor.execute("insert into committed values (1)")
    with pytest.raises(psycopg2.OperationalError):
        connection.commit()

    network.mend()
    again = connect("a/postgres")
    assert answer(again, "select count(*) from committed") == 1
    answer(again, "drop table committed; select 1")


@pytest.mark.parametrize(
    "mode",
    [
        Mode("answer", status=429, body="{}", retry_after=3),
        Mode("answer", status=200, body="<html></html>", content_type="text/html"),
    ],
    ids=["429", "HTML"],
)
def test_it_answers_in_the_servers_place(network: Network, postgres: Postgres, mode: Mode) -> None:
    port = network.open("a/supabase", postgres.port, "http")
    network.set("a/supabase", mode)

    given = httpx.post(f"http://127.0.0.1:{port}/rest/v1/rpc/mirror_apply", content=b"x" * 400_000, trust_env=False)

    assert (given.status_code, given.text) == (mode.status, mode.body)
    assert given.headers.get("retry-after") == (None if mode.retry_after is None else str(mode.retry_after))


def test_resetting_takes_so_many_and_no_more(network: Network, connect: Connect) -> None:
    for _ in range(3):
        connect("a/postgres")
    wait_until(lambda: network.links() == 3, what="three links")

    assert network.reset("a/postgres", most=2) == 2
    wait_until(lambda: network.links() == 1, what="one link")


def test_a_proxy_that_has_ended_says_so() -> None:
    with Network() as network:
        network.mend()

    with pytest.raises(ProxyFailed, match="does not run"):
        network.mend()
