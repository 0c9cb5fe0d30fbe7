"""`/tenants`: all of them, for operators; and one, for whoever belongs to it."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, get_args
from uuid import UUID

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from db.repositories import browsing, explaining, tenant_lists
from db.repositories.browsing import Place
from db.repositories.tenant_lists import Only, Sort
from tenantsync import clock
from tenantsync.accounting import service as accounting
from tenantsync.dispatching import steering
from tenantsync.dispatching.steering import SteeringRefused
from tenantsync.identity.roles import Role
from tenantsync.web.api.operations import key_of, position
from tenantsync.web.pages.common import PAGE, Looking, ManagerLooking, Next, OperatorLooking, PageRoute, uuid_or_404
from tenantsync.web.pages.rendering import back, bad, good, page, query
from tenantsync.web.paging import encoded
from tenantsync.web.problems import not_found
from tenantsync.web.services import Parts
from tenantsync.web.viewers import Viewer

router = APIRouter(route_class=PageRoute, include_in_schema=False)
RUNS_WITHIN = timedelta(days=14)
FEW = 8
MOST_UNITS = 20
MOST_CALENDARS = 100
LONGEST_SEARCH = 200


@router.get("/tenants")
def listed(request: Request, viewer: OperatorLooking, parts: Parts) -> Response:
    """Search, sort, and a page of what is found."""
    asked = request.query_params
    sort: Sort = asked.get("sort") if asked.get("sort") in get_args(Sort) else "name"  # type: ignore[assignment]
    only: Only = asked.get("only") if asked.get("only") in get_args(Only) else "all"  # type: ignore[assignment]
    search = asked.get("q", "")[:LONGEST_SEARCH]
    with parts.database.statement() as connection:
        rows = tenant_lists.listed(
            connection, sort=sort, only=only, search=search, after=position(asked.get("cursor")), limit=PAGE + 1
        )
    chosen = {"q": search, "sort": sort if sort != "name" else None, "only": only if only != "all" else None}
    return page(
        request,
        viewer,
        "tenants.html",
        rows=rows[:PAGE],
        sort=sort,
        sorts=get_args(Sort),
        only=only,
        onlys=get_args(Only),
        search=search,
        first=query(**chosen) or "?" if asked.get("cursor") else None,
        next=query(**chosen, cursor=encoded(key_of(rows[PAGE - 1]))) if len(rows) > PAGE else None,
    )


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a unit does not run, or when it does."""

    unit_id: UUID
    workspace: str
    links: Any
    runs_in: float | None


def this_tenant(viewer: Viewer, tenant: str) -> UUID:
    """The tenant of an address, if it is the viewer's to see."""
    tenant_id = uuid_or_404(tenant)
    viewer.must_see(tenant_id)
    return tenant_id


@router.get("/tenants/{tenant}")
def one(tenant: str, request: Request, viewer: Looking, parts: Parts) -> Response:
    """A tenant: what it has, what was done, and why not more."""
    tenant_id = this_tenant(viewer, tenant)
    place = Place(tenant_id, workspaces=viewer.workspace_ids)
    with parts.database.statement() as connection:
        line = tenant_lists.one(connection, tenant_id=tenant_id)
        if line is None:
            raise not_found("tenant")
        seen: dict[str, Any] = {
            "tenant": line,
            "share": tenant_lists.share(connection, tenant_id=tenant_id),
            "units": browsing.units(
                connection, tenant_id=tenant_id, workspaces=viewer.workspace_ids, limit=MOST_UNITS + 1
            ),
            "accounts": browsing.accounts(connection, place, limit=MOST_CALENDARS),
            "calendars": browsing.calendars(connection, place, limit=MOST_CALENDARS + 1),
            "runs": browsing.runs(connection, place, since=clock.now() - RUNS_WITHIN, limit=FEW),
            "questions": browsing.open_questions(connection, place, limit=FEW),
            "processes": browsing.processes(connection, place, limit=FEW),
        }
    return page(request, viewer, "tenant.html", **seen, may_steer=viewer.role is not Role.MEMBER)


@router.get("/tenants/{tenant}/why")
def why(tenant: str, request: Request, viewer: Looking, parts: Parts) -> Response:
    """Why the tenant's units are not running, those first that are due first."""
    tenant_id = this_tenant(viewer, tenant)
    with parts.database.statement() as connection:
        line = tenant_lists.one(connection, tenant_id=tenant_id)
        if line is None:
            raise not_found("tenant")
        units, there_are = explaining.units_of(connection, tenant_id=tenant_id, limit=MOST_UNITS)
    wanted = request.query_params.get("unit")
    chosen = [unit for unit in units if wanted is None or str(unit) == wanted] or units
    visible = [unit for unit in chosen if viewer.sees(tenant_id, unit)]
    answers = [accounting.why(parts.database, parts.settings, unit_id=unit) for unit in visible[:FEW]]
    reasons = [
        Reason(
            facts.unit_id,
            facts.workspace,
            explanation.links,
            None if explanation.runs_at is None else (explanation.runs_at - facts.now).total_seconds(),
        )
        for facts, explanation in (found for found in answers if found is not None)
    ]
    return page(request, viewer, "why.html", tenant=line, reasons=reasons, there_are=there_are)


@router.post("/tenants/{tenant}/pause")
def pause(
    tenant: str,
    request: Request,
    viewer: ManagerLooking,
    parts: Parts,
    onward: Next,
    reason: Annotated[str, Form(max_length=2000)] = "",
) -> Response:
    """Stop a tenant."""
    tenant_id = this_tenant(viewer, tenant)
    try:
        changed = steering.pause(
            parts.database, tenant_id=tenant_id, by=viewer.actor, reason=reason, name=viewer.name or None
        )
    except SteeringRefused:
        return back(request, onward, bad("flash.bad_reason", most=steering.LONGEST_REASON))
    return back(request, onward, good("flash.paused" if changed else "flash.was_paused"))


@router.post("/tenants/{tenant}/resume")
def resume(tenant: str, request: Request, viewer: ManagerLooking, parts: Parts, onward: Next) -> Response:
    """Let it go on."""
    tenant_id = this_tenant(viewer, tenant)
    changed = steering.resume(parts.database, tenant_id=tenant_id, by=viewer.actor)
    return back(request, onward, good("flash.resumed" if changed else "flash.was_running"))


@router.post("/tenants/{tenant}/sync")
def sync(
    tenant: str,
    request: Request,
    viewer: ManagerLooking,
    parts: Parts,
    onward: Next,
    workspace: Annotated[str | None, Form(max_length=40)] = None,
) -> Response:
    """Make its calendars due now."""
    tenant_id = this_tenant(viewer, tenant)
    workspace_id = uuid_or_404(workspace) if workspace else None
    with parts.database.transaction() as connection:
        wanted = steering.sync_now(connection, tenant_id=tenant_id, workspace_id=workspace_id, by=viewer.actor)
    return back(request, onward, good("flash.synced", n=wanted.calendars))


@router.post("/tenants/{tenant}/share")
def share(
    tenant: str,
    request: Request,
    viewer: OperatorLooking,
    parts: Parts,
    onward: Next,
    weight: Annotated[str, Form(max_length=20)] = "",
    concurrency: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    """Set its weight and concurrency."""
    tenant_id = this_tenant(viewer, tenant)
    try:
        with parts.database.transaction() as connection:
            steering.set_share(
                connection,
                tenant_id=tenant_id,
                weight=float(weight) if weight.strip() else None,
                concurrency=int(concurrency) if concurrency.strip() else None,
                by=viewer.actor,
            )
    except (SteeringRefused, ValueError, OverflowError):
        return back(request, onward, bad("flash.bad_share", heaviest=steering.HEAVIEST, widest=steering.WIDEST))
    except LookupError:
        raise not_found("tenant") from None
    return back(request, onward, good("flash.shared"))
