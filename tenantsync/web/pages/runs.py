"""`/runs`: what was done for calendars, and one run with its steps."""

from datetime import timedelta
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import Response

from db.repositories import browsing, tenant_lists
from db.repositories.browsing import Place
from tenantsync import clock
from tenantsync.identity.roles import Role
from tenantsync.web.api.operations_work import may_see
from tenantsync.web.pages.common import PAGE, Looking, PageRoute, uuid_or_404
from tenantsync.web.pages.rendering import page, query
from tenantsync.web.paging import before_id, encoded
from tenantsync.web.problems import not_found
from tenantsync.web.services import Parts
from tenantsync.web.viewers import Viewer

router = APIRouter(route_class=PageRoute, include_in_schema=False)
WITHIN = timedelta(days=31)
A_DAY = timedelta(days=1)


def asked_tenant(request: Request, viewer: Viewer) -> UUID | None:
    """The tenant that a list is narrowed to: the viewer's own, or the one that an operator names."""
    named = request.query_params.get("tenant")
    if named is None or viewer.role is not Role.OPERATOR:
        return viewer.scope
    return uuid_or_404(named)


@router.get("/runs")
def listed(request: Request, viewer: Looking, parts: Parts) -> Response:
    """Runs that changed something or failed, the newest first."""
    asked = request.query_params
    tenant_id, failed = asked_tenant(request, viewer), asked.get("failed") == "1"
    place = Place(tenant_id, before_id(asked.get("cursor")), viewer.workspace_ids)
    with parts.database.statement() as connection:
        rows = browsing.runs(connection, place, since=clock.now() - WITHIN, failed=failed, limit=PAGE + 1)
        names = tenant_lists.names(connection, ids={tenant_id} if tenant_id else set())
    chosen = {"tenant": asked.get("tenant"), "failed": "1" if failed else None}
    return page(
        request,
        viewer,
        "runs.html",
        rows=rows[:PAGE],
        failed=failed,
        tenant_id=tenant_id,
        tenant_name=names.get(tenant_id) if tenant_id else None,
        chosen=query(tenant=asked.get("tenant")),
        first=query(**chosen) or "?" if asked.get("cursor") else None,
        next=query(**chosen, cursor=encoded(str(rows[PAGE - 1]["id"]))) if len(rows) > PAGE else None,
    )


@router.get("/runs/{run}")
def one(run: str, request: Request, viewer: Looking, parts: Parts) -> Response:
    """A run: its steps, its calls, what it changed."""
    with parts.database.statement() as connection:
        found = browsing.run(connection, run_id=uuid_or_404(run))
        if found is None or not may_see(viewer, found["tenant_id"], found["unit_id"]):
            raise not_found("run")
        since = found["created_at"] - A_DAY
        steps = browsing.steps(connection, task_id=found["id"], tenant_id=found["tenant_id"], since=since)
    longest = sum(step["execution_time"] or 0 for step in steps) or 1
    begun = 0
    bars = []
    for step in steps:
        took = step["execution_time"] or 0
        bars.append({**step, "from": 100 * begun / longest, "share": 100 * took / longest})
        begun += took
    return page(request, viewer, "run.html", run=found, result=found["result"] or {}, steps=bars)
