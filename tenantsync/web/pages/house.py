"""`/mirror`, `/schedules`, `/audit`: how the installation is doing, and who did what."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from db.repositories import browsing
from db.repositories.browsing import Place
from tenantsync import clock
from tenantsync.web.api.operations_fleet import mirror_of, schedules_of
from tenantsync.web.pages.common import PAGE, ManagerLooking, OperatorLooking, PageRoute
from tenantsync.web.pages.rendering import page, query
from tenantsync.web.pages.runs import asked_tenant
from tenantsync.web.paging import before_id, encoded
from tenantsync.web.services import Parts

router = APIRouter(route_class=PageRoute, include_in_schema=False)
LONGEST_ACTION = 60


@router.get("/mirror")
def mirror(request: Request, viewer: OperatorLooking, parts: Parts) -> Response:
    """What is on its way to Supabase, and how well it travels."""
    seen = mirror_of(parts)
    with parts.database.statement() as connection:
        refused = browsing.parked_rows(connection, Place(None), limit=10)
    return page(request, viewer, "mirror.html", seen=seen, refused=refused)


@router.get("/schedules")
def schedules(request: Request, viewer: OperatorLooking, parts: Parts) -> Response:
    """The timetable, and what became of its occurrences."""
    entries = schedules_of(parts)
    now = clock.now()
    rows = [
        {"entry": one, "late": (now - one.last_tick).total_seconds() > 2 * one.every + 60}
        for one in entries
        if not one.entry.startswith("~")
    ]
    return page(request, viewer, "schedules.html", rows=rows)


@router.get("/audit")
def audit(request: Request, viewer: ManagerLooking, parts: Parts) -> Response:
    """What people did, the newest first."""
    asked = request.query_params
    action = asked.get("action", "")[:LONGEST_ACTION].replace("%", "").replace("\\", "") or None
    tenant_id = asked_tenant(request, viewer)
    with parts.database.statement() as connection:
        rows = browsing.audit_logs(
            connection, Place(tenant_id, before_id(asked.get("cursor"))), action=action, limit=PAGE + 1
        )
    chosen = {"action": action, "tenant": asked.get("tenant")}
    return page(
        request,
        viewer,
        "audit.html",
        rows=rows[:PAGE],
        action=action or "",
        first=query(**chosen) or "?" if asked.get("cursor") else None,
        next=query(**chosen, cursor=encoded(str(rows[PAGE - 1]["id"]))) if len(rows) > PAGE else None,
    )
