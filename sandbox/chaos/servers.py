"""Scenarios that strike what the product stands on: Redis, Postgres, Supabase, and the network between."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import psycopg2
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from sandbox.chaos import commands
from sandbox.chaos.field import Field
from sandbox.chaos.proxy import PASS, Mode
from sandbox.chaos.world import process_of

OURS = """
select pid, usename from pg_stat_activity
 where datname = 'tenantsync' and usename like 'chaos\\_%%' order by (state = 'active') desc, random() limit %s
"""
HELD = (
    "select count(*) from sync.units",
    "select unit_id from sync.units order by random() limit 20 for update",
    """select tenant_id from sync.turns
        where tenant_id in (select tenant_id from sync.tenants order by random() limit 5) for update""",
)
OUTBOX = "select count(*) from mirror.outbox where queued_at < to_timestamp(%s)"
REOPEN = """
delete from sync.cooldowns where (scope, scope_id) = ('provider', 'supabase');
update mirror.turns t set ready_at = least(ready_at, now())
 where exists (select 1 from mirror.outbox o where o.tenant_id = t.tenant_id);
"""
HEARD = 3.0  # seconds that an answer is given, unless somebody hears it earlier
HTML = "<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"
SUPABASE_ANSWERS = (
    Mode("answer", status=401, body='{"message": "Invalid API key"}'),
    Mode("cut"),
    Mode("answer", status=413, body='{"message": "request entity too large"}'),
    Mode("answer", status=429, body='{"message": "too many requests"}', retry_after=1),
    Mode("answer", status=500, body='{"code": "XX000", "message": "internal error"}'),
    Mode("answer", status=502, body=HTML, content_type="text/html"),
    Mode("answer", status=200, body=HTML, content_type="text/html"),
    Mode("answer", status=503, body='{"message": "upstream connect error"}'),
)
MIRROR_PATIENCE = 60.0  # seconds; a refused key closes the mirror for 30
ACTIVE = 6.0  # seconds that most outages last


def redis_restart(field: Field) -> None:
    """Redis dies and is started again two seconds later; then it is restarted in order."""
    for stop in (field.world.valkey.kill, field.world.valkey.stop):
        field.when_under_way()
        with field.lasting(outage=True):
            stop()
            field.wait(2)
            field.world.valkey.start()
        field.wait(3)


def redis_flush(field: Field) -> None:
    """FLUSHALL, in three bursts: every message and every binding is gone."""
    for _ in range(3):
        field.when_under_way()
        for _ in range(5):
            flush(field)
        field.wait(2)


def flush(field: Field) -> None:
    """FLUSHALL, if Redis can be reached."""
    before = time.time()
    with _redis(field) as client, suppress(redis.RedisError):
        client.flushall()
        field.strike(at=before)


def redis_freeze(field: Field) -> None:
    """Redis hangs with its connections open; meanwhile the command line is asked how things stand."""
    plain = commands.seconds(field.world)
    field.when_under_way()
    with field.lasting(outage=True):
        field.world.valkey.freeze()
        try:
            began = time.monotonic()
            field.notes["commands"] = commands.compare(plain, commands.seconds(field.world))
            field.wait(max(0.0, ACTIVE - (time.monotonic() - began)))
        finally:
            field.world.valkey.thaw()


def redis_oom(field: Field) -> None:
    """Redis has no memory left: it reads, and refuses to write."""
    field.when_busy()
    with _redis(field) as client, field.lasting(outage=True):
        client.config_set("maxmemory", "1")
        try:
            field.wait(ACTIVE)
        finally:
            client.config_set("maxmemory", "0")


@contextmanager
def _redis(field: Field) -> Iterator[redis.Redis]:
    once = Retry(NoBackoff(), 0)
    client = redis.Redis.from_url(field.world.valkey.url(0), socket_timeout=2, retry=once)
    try:
        yield client
    finally:
        client.close()


def postgres_restart(field: Field) -> None:
    """Postgres crashes and recovers; later it is restarted in order. Supabase stands on the same server."""
    for crash in (True, False):
        field.when_busy()
        restart_postgres(field, crash=crash)
        field.wait(4)


def restart_postgres(field: Field, *, crash: bool) -> None:
    with field.lasting(outage=True):
        if crash:
            field.world.postgres.kill()
        else:
            field.world.postgres.stop()
        field.wait(1)
        field.world.postgres.start()


def backend_kill(field: Field) -> None:
    """pg_terminate_backend for the product's connections, four a second, those at work first."""
    for _ in range(round(24 * field.pace)):
        kill_backends(field, 1)
        field.stopping.wait(0.25)


def kill_backends(field: Field, most: int) -> None:
    """Terminate up to so many of the product's backends."""
    with (
        suppress(psycopg2.Error),
        field.world.postgres.connect("tenantsync") as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(OURS, (most,))
        for pid, role in cursor.fetchall():
            field.strike(process_of(role))
            cursor.execute("select pg_terminate_backend(%s)", (pid,))


def pool_exhaustion(field: Field) -> None:
    """Others take every connection that Postgres gives; the product loses its own and finds none left."""
    with field.lasting(outage=True), ExitStack() as held:
        full = threading.Event()
        ends = time.monotonic() + ACTIVE * field.pace
        killer = held.enter_context(field.world.postgres.connect("tenantsync"))
        while time.monotonic() < ends and not field.stopping.is_set():
            try:
                held.enter_context(field.world.postgres.connect("postgres"))
            except psycopg2.OperationalError:
                if not full.is_set():
                    full.set()
                    _terminate_all(field, killer)
                time.sleep(0.02)
    field.notes["connections_taken"] = full.is_set()


def _terminate_all(field: Field, connection: psycopg2.extensions.connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute(OURS, (200,))
        backends = cursor.fetchall()
        cursor.execute("select pg_terminate_backend(pid) from unnest(%s) pid", ([pid for pid, _ in backends],))
    field.count(len(backends))


def idle_in_transaction(field: Field) -> None:
    """Somebody holds a snapshot and the locks of hot rows: twenty units, the turns of five tenants."""
    field.when_busy()
    with field.lasting(outage=True, faults=2), ExitStack() as held:
        for statement in HELD:
            connection = held.enter_context(field.world.postgres.connect("tenantsync"))
            connection.set_session(isolation_level="REPEATABLE READ", autocommit=False)
            with connection.cursor() as cursor, suppress(psycopg2.Error):
                cursor.execute("set local statement_timeout = '3s'")
                cursor.execute(statement)
        field.wait(ACTIVE)


def supabase_outage(field: Field) -> None:
    """Supabase refuses the key, is down, takes nothing, asks for patience, talks HTML and fails, one by one.

    The mirror asks again after 5 or 30 seconds; all but the last of these pauses are cut short here.
    """
    answered = []
    for answer in SUPABASE_ANSWERS:
        with suppress(psycopg2.Error):
            field.world.postgres.execute("tenantsync", REOPEN)
        before, ends = field.world.network.swallowed("*/supabase"), time.monotonic() + HEARD
        with field.lasting("supabase", outage=False), mode(field, "*/supabase", answer):
            while time.monotonic() < ends and not field.stopping.is_set():
                time.sleep(0.1)
                if field.world.network.swallowed("*/supabase") > before:
                    answered.append(answer.status)
                    break
    field.notes["answered"] = answered
    field.notes["mirror_s"] = _mirror_back(field)


def _mirror_back(field: Field) -> float | None:
    """Seconds until everything has reached Supabase that was waiting when it came back; None if it did not."""
    began = time.time()
    while time.time() - began < MIRROR_PATIENCE and not field.stopping.is_set():
        with suppress(psycopg2.Error):
            if field.world.ask(OUTBOX, began)[0][0] == 0:
                return round(time.time() - began, 1)
        time.sleep(0.25)
    return None


def timeout_after_commit(field: Field) -> None:
    """Postgres and Supabase do what they are asked, and the answer never arrives."""
    with mode(field, "*/supabase", Mode("swallow", share=0.5)), mode(field, "*/postgres", Mode("swallow", share=0.08)):
        count_swallowed(field, ACTIVE * field.pace)


def count_swallowed(field: Field, seconds: float) -> None:
    """For so long, note a strike whenever answers have been swallowed."""
    before, ends = field.world.network.swallowed(), time.monotonic() + seconds
    while time.monotonic() < ends and not field.stopping.is_set():
        time.sleep(0.2)
        now = field.world.network.swallowed()
        if now > before:
            field.strike(faults=now - before)
            before = now


def network_cut(field: Field) -> None:
    """One worker is cut off from everything, for longer than a lease; then everybody is, for four seconds."""
    field.when_busy("sync-b")
    with field.lasting("sync-b", outage=False, faults=0), mode(field, "sync-b/*", Mode("cut")):
        field.stopping.wait(8)
    field.wait(3)
    field.when_busy()
    with field.lasting(outage=True, faults=0), mode(field, "*", Mode("cut")):
        field.wait(4)


def slow_network(field: Field) -> None:
    """150 ms more for every piece of every connection, and 100 kB a second."""
    with field.lasting(outage=True), mode(field, "*", Mode("slow", latency=0.15, bandwidth=100_000)):
        field.wait(ACTIVE)


@contextmanager
def mode(field: Field, names: str, how: Mode) -> Iterator[None]:
    """Connections behave like this as long as the block lasts; each that is reset by it counts as a fault."""
    resets = field.world.network.set(names, how)
    if resets:
        field.count(resets)
    try:
        yield
    finally:
        field.world.network.set(names, PASS)


SCENARIOS = (
    redis_restart,
    redis_flush,
    redis_freeze,
    redis_oom,
    postgres_restart,
    backend_kill,
    pool_exhaustion,
    idle_in_transaction,
    supabase_outage,
    timeout_after_commit,
    network_cut,
    slow_network,
)
