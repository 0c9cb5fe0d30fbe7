"""The HTTP API below /api/v1, and the health checks beside it."""

from fastapi import APIRouter, Depends

from tenantsync.web.api import (
    auth,
    health,
    metrics,
    operations,
    operations_fleet,
    operations_work,
    processes,
    tasks,
    users,
)
from tenantsync.web.strict import known_query

PREFIX = "/api/v1"


def router() -> APIRouter:
    """Everything but the pages."""
    whole = APIRouter(dependencies=[Depends(known_query)])
    whole.include_router(health.router)
    whole.include_router(metrics.router)
    for part in (auth, users, processes, tasks, operations, operations_work, operations_fleet):
        whole.include_router(part.router, prefix=PREFIX)
    return whole
