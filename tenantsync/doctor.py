"""What has to be right for everything else to work, looked at one by one."""

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy.exc import SQLAlchemyError

from config.queues import Queue
from config.settings import Settings
from db import partitions, schema
from db.repositories import readings, tenants
from db.session import Database, DatabaseUnreachable
from tenantsync import clock
from tenantsync.mirror.supabase import MirrorError, Supabase

OLDEST_POSTGRES = 150_000
SKEW = 2.0  # seconds between this machine's clock, the workers' and Postgres'
SILENCE = 5.0  # seconds
REDIS_PATIENCE = 0.7  # seconds; a frozen Redis must not keep anybody waiting (tests/chaos measures it)
REDIS_PATIENCE = 0.5  # seconds; a frozen Redis takes connections and says nothing
METADATA = ipaddress.ip_address("169.254.169.254")


@dataclass(frozen=True, slots=True)
class Finding:
    """`level`: ok, warn (works, but will hurt) or fail."""

    level: Literal["ok", "warn", "fail"]
    about: str
    text: str


def examine(settings: Settings) -> list[Finding]:
    """All findings. Nothing hangs: every question has a time limit of a few seconds."""
    findings: list[Finding] = []
    database = Database(settings.database_url, pool_size=1, name="tenantsync doctor")
    try:
        for look in (_postgres, _schema, _clock, _partitions, _workers):
            findings += _safely(look, database)
    finally:
        database.close()
    findings += _direct(settings)
    findings += _redis(settings)
    findings += _supabase(settings)
    findings += _outbound(settings)
    return findings


def _safely(look: Callable[[Database], Iterator[Finding]], database: Database) -> list[Finding]:
    try:
        return list(look(database))
    except (DatabaseUnreachable, SQLAlchemyError) as error:
        return [Finding("fail", look.__name__.strip("_"), str(error))]


def _postgres(database: Database) -> Iterator[Finding]:
    database.wait_until_reachable(attempts=2)
    with database.statement() as connection:
        number = readings.server_version(connection)
    if number < OLDEST_POSTGRES:
        yield Finding("fail", "postgres", f"version {number // 10_000}; 15 or newer is needed")
    else:
        yield Finding("ok", "postgres", f"version {number // 10_000} answers")


def _schema(database: Database) -> Iterator[Finding]:
    there, head = schema.revisions(database)
    if there == head:
        yield Finding("ok", "schema", f"at {head}")
    else:
        yield Finding("fail", "schema", f"at {there or 'nothing'}, this code needs {head}: tenantsync db upgrade")


def _clock(database: Database) -> Iterator[Finding]:
    before = clock.now()
    with database.statement() as connection:
        theirs = tenants.moment(connection)
        skews = {one["worker_id"]: one["clock_skew_ms"] / 1000 for one in readings.workers(connection)}
    ours = before + (clock.now() - before) / 2
    skews["this machine"] = (theirs - ours).total_seconds()
    far = {name: skew for name, skew in skews.items() if abs(skew) > SKEW}
    for name, skew in far.items():
        yield Finding(
            "warn", "clock", f"{name} is {skew:+.1f} s off Postgres; ids, log times and tokens go by it: run NTP"
        )
    if not far:
        yield Finding("ok", "clock", "all clocks agree")


def _partitions(database: Database) -> Iterator[Finding]:
    with database.statement() as connection:
        strays = partitions.strays(connection)
    if strays:
        yield Finding(
            "warn", "partitions", f"{strays} rows of history are in no month's partition: is cleanup running?"
        )
    else:
        yield Finding("ok", "partitions", "every row of history is in its month")


def _workers(database: Database) -> Iterator[Finding]:
    with database.statement() as connection:
        known = readings.workers(connection)
        fleet = readings.fleet(connection)
    alive = [one for one in known if one["silent_for"] < SILENCE]
    for one in known:
        if one["silent_for"] >= SILENCE:  # whoever stops in order takes itself off the list
            yield Finding(
                "warn",
                "workers",
                f"{one['worker_id']} has been silent for {one['silent_for']:.0f} s: it was killed, hangs, or does not "
                "reach Postgres. It gets no work; if Flower still lists it, restart it",
            )
    served = {queue for one in alive for queue in one["queues"]}
    unserved = [queue.value for queue in Queue if queue.value not in served]
    if unserved:
        yield Finding("fail", "workers", f"no live worker serves {', '.join(unserved)}: celery -A tasks worker")
    else:
        yield Finding("ok", "workers", f"{len(alive)} alive, every queue is served")
    if fleet["oldest_due"] > 60 and not unserved:
        yield Finding(
            "warn", "dispatch", f"units have been due for {fleet['oldest_due']:.0f} s: is beat running, are slots free?"
        )


def _direct(settings: Settings) -> list[Finding]:
    database = Database(settings.migration_url, pool_size=1, name="tenantsync doctor")
    name = "DATABASE_URL" if settings.direct_url is None else "DIRECT_URL"
    try:
        database.wait_until_reachable(attempts=2)
        if database.is_pooled():
            text = f"{name} leads to a pooler: migrations need DIRECT_URL to be the address of Postgres itself"
            return [Finding("fail", "direct", text)]
    except (DatabaseUnreachable, SQLAlchemyError) as error:
        return [Finding("fail", "direct", str(error).replace("DATABASE_URL", name))]
    finally:
        database.close()
    if settings.direct_url is None:
        return [Finding("ok", "direct", "DIRECT_URL is not set; migrations use DATABASE_URL, which is no pooler")]
    return [Finding("ok", "direct", "DIRECT_URL answers")]


def _redis(settings: Settings) -> list[Finding]:
    client = redis.Redis.from_url(
        settings.redis_url,
        socket_timeout=REDIS_PATIENCE,
        socket_connect_timeout=REDIS_PATIENCE,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        info = client.info()
    except redis.RedisError as error:
        return [Finding("fail", "redis", f"does not answer ({type(error).__name__}): check REDIS_URL")]
    finally:
        client.close()
    findings = [Finding("ok", "redis", f"version {info['redis_version']} answers")]
    if info.get("maxmemory_policy") != "noeviction":
        findings.append(
            Finding("warn", "redis", "maxmemory-policy should be noeviction, or queues may vanish when memory is short")
        )
    return findings


def _supabase(settings: Settings) -> list[Finding]:
    supabase = Supabase(settings.supabase_url, settings.supabase_secret_key.get_secret_value())
    try:
        supabase.check()
    except MirrorError as error:
        return [Finding("fail", "supabase", error.detail)]
    finally:
        supabase.close()
    return [Finding("ok", "supabase", "takes the key and has the mirror's functions")]


def _outbound(settings: Settings) -> list[Finding]:
    open_to = [network for network in settings.outbound_allowed_networks if METADATA in network]
    if open_to:
        return [
            Finding(
                "warn",
                "outbound",
                f"OUTBOUND_ALLOWED_NETWORKS names {open_to[0]}, which lets tenants reach the cloud's metadata service",
            )
        ]
    return [Finding("ok", "outbound", "tenants' addresses cannot reach the metadata service")]
