"""Handing a batch to a broker that hangs, is gone or is full: refused in time, and the next is taken."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from config.celery_settings import BROKER_TIMEOUT
from sandbox.servers.valkey import Valkey
from tests.support.fleet import KEY

CHECKOUT = Path(__file__).resolve().parent.parent.parent
SLOW = 3.0  # seconds that a loaded machine may add
PUBLISHER = """
import sys, time
from uuid import uuid4
from config.queues import Lane
from db.repositories.units import ClaimedUnit
from tasks.sync import publish
from tenantsync.errors import PublishFailed

for _ in sys.stdin:
    began, refused = time.monotonic(), 0
    try:
        publish(Lane.SYNC, uuid4(), [ClaimedUnit(uuid4(), uuid4(), 1)])
    except PublishFailed:
        refused = 1
    print([time.monotonic() - began, refused], flush=True)
"""

Publish = Callable[[], tuple[float, bool]]


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server
        server.thaw()


@pytest.fixture
def publish(valkey: Valkey) -> Iterator[Publish]:
    """Publishes a batch from a process of the product; (seconds, whether it was refused)."""
    environment = {
        "DATABASE_URL": "postgresql://u:p@127.0.0.1:1/d",
        "REDIS_URL": valkey.url(0),
        "SUPABASE_URL": "http://127.0.0.1:1",
        "SUPABASE_SECRET_KEY": "sb_secret_test",
        "ENCRYPTION_KEYS": f"1:{KEY}",
        "PATH": os.environ["PATH"],
    }
    with subprocess.Popen(
        [sys.executable, "-c", PUBLISHER],
        cwd=CHECKOUT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asking, answering = process.stdin, process.stdout

        def one() -> tuple[float, bool]:
            asking.write("\n")
            asking.flush()
            seconds, refused = json.loads(answering.readline())
            return seconds, bool(refused)

        assert one()[1] is False
        yield one
        asking.close()


def test_a_broker_that_hangs_refuses_within_its_timeout_and_takes_the_next_when_it_is_back(
    valkey: Valkey, publish: Publish
) -> None:
    valkey.freeze()
    seconds, refused = publish()
    valkey.thaw()

    assert refused
    assert seconds < BROKER_TIMEOUT + SLOW
    assert publish()[1] is False


def test_a_broker_that_is_gone_refuses_at_once_and_takes_the_next_when_it_is_back(
    valkey: Valkey, publish: Publish
) -> None:
    valkey.kill()
    seconds, refused = publish()
    valkey.start()

    assert refused
    assert seconds < SLOW
    assert publish()[1] is False


def test_a_broker_without_memory_refuses_at_once_and_takes_the_next_when_it_has_some(
    valkey: Valkey, publish: Publish
) -> None:
    with redis.Redis.from_url(valkey.url(0)) as client:
        client.set("of somebody else", b"x" * 4_000_000)
        client.config_set("maxmemory", "1mb")
        seconds, refused = publish()
        client.config_set("maxmemory", "0")

    assert refused
    assert seconds < SLOW
    assert publish()[1] is False
