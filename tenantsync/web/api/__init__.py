"""The HTTP API below /api/v1, and the health checks beside it."""

from fastapi import APIRouter

from tenantsync.web.api import auth, health

PREFIX = "/api/v1"


def router() -> APIRouter:
    """Everything but the pages."""
    whole = APIRouter()
    whole.include_router(health.router)
    for part in (auth,):
        whole.include_router(part.router, prefix=PREFIX)
    return whole
