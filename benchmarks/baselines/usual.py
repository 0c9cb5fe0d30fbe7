"""The usual design: a Celery app with one task per unit, on a pool of threads.

celery -A benchmarks.baselines.usual worker -P threads -c 32
"""

import os
from functools import lru_cache

import urllib3
from celery import Celery
from sqlalchemy import Engine

from benchmarks.baselines import unit

THREADS = 32

app = Celery("usual", broker=os.environ["REDIS_URL"])
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=4,
    broker_transport_options={"global_keyprefix": "usual:", "max_connections": 300},
    broker_connection_retry_on_startup=True,
)


@lru_cache(maxsize=1)
def tools() -> tuple[Engine, urllib3.PoolManager]:
    return unit.open_engine(os.environ["DATABASE_URL"], connections=THREADS), unit.open_http(connections=THREADS)


@app.task(name="usual.sync_unit")
def sync_unit(unit_id: str, tenant_id: str) -> None:
    """Sync one unit."""
    engine, http = tools()
    unit.sync_unit(engine, http, os.environ["GOOGLE_API_ENDPOINT"], unit=unit_id, tenant=tenant_id)
