"""The dashboard: pages made on the server, with forms that work without scripts."""

from fastapi import APIRouter

from tenantsync.web.pages import assets, house, overview, parked, people, processes, runs, session, tenants
from tenantsync.web.pages.common import failure

__all__ = ["failure", "router"]


def router() -> APIRouter:
    """All pages."""
    whole = APIRouter()
    for part in (assets, session, overview, tenants, runs, processes, parked, house, people):
        whole.include_router(part.router)
    return whole
