"""`/parked`: what was put aside and waits for a person: units that kill workers, rows that Supabase refuses."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from db.repositories import browsing
from db.repositories.browsing import ROW_ENTITIES, Place
from tenantsync.dispatching import steering
from tenantsync.identity.roles import Role
from tenantsync.web.pages.common import PAGE, ManagerLooking, Next, OperatorLooking, PageRoute, uuid_or_404
from tenantsync.web.pages.rendering import back, bad, good, page, query
from tenantsync.web.paging import before_id, encoded
from tenantsync.web.problems import not_found
from tenantsync.web.services import Parts
from tenantsync.web.viewers import Viewer

router = APIRouter(route_class=PageRoute, include_in_schema=False)
UNITS = 50


@router.get("/parked")
def parked(request: Request, viewer: ManagerLooking, parts: Parts) -> Response:
    """Both lists; the rows in pages."""
    asked = request.query_params
    entity = asked.get("entity") if asked.get("entity") in ROW_ENTITIES else None
    with parts.database.statement() as connection:
        units = browsing.parked_units(connection, Place(viewer.scope), limit=UNITS)
        rows = browsing.parked_rows(
            connection, Place(viewer.scope, before_id(asked.get("cursor"))), entity=entity, limit=PAGE + 1
        )
    last = rows[PAGE - 1] if len(rows) > PAGE else None
    return page(
        request,
        viewer,
        "parked.html",
        units=units,
        rows=rows[:PAGE],
        first="?" if asked.get("cursor") else None,
        next=query(cursor=encoded(str(last["row_id"])), entity=last["entity"]) if last is not None else None,
    )


@router.post("/parked/units/{unit}/{wish}")
def steer_unit(unit: str, wish: str, request: Request, viewer: ManagerLooking, parts: Parts, onward: Next) -> Response:
    """Let a unit run again, or leave it where it is."""
    unit_id = uuid_or_404(unit)
    work = {"retry": steering.retry_unit, "drop": steering.drop_unit}.get(wish)
    with parts.database.transaction() as connection:
        tenant_id = browsing.tenant_of_unit(connection, unit_id=unit_id)
        if work is None or tenant_id is None or not viewer.sees(tenant_id, unit_id):
            raise not_found("unit")
        done = work(connection, unit_id=unit_id, tenant_id=tenant_id, by=viewer.actor)
    if not done:
        return back(request, onward, bad("flash.not_parked"))
    return back(request, onward, good("flash.unit_retried" if wish == "retry" else "flash.unit_dropped"))


@router.post("/parked/rows/{wish}")
def steer_row(
    wish: str,
    request: Request,
    viewer: ManagerLooking,
    parts: Parts,
    onward: Next,
    tenant: Annotated[str, Form(max_length=40)],
    entity: Annotated[str, Form(max_length=40)],
    row: Annotated[str, Form(max_length=40)],
) -> Response:
    """Send a row once more, or forget that it was refused."""
    tenant_id = uuid_or_404(tenant)
    viewer.must_see(tenant_id)
    return _rows(wish, request, viewer, parts, onward, tenant_id, entity, uuid_or_404(row))


@router.post("/parked/all-rows/{wish}")
def steer_rows(wish: str, request: Request, viewer: OperatorLooking, parts: Parts, onward: Next) -> Response:
    """All of them at once."""
    return _rows(wish, request, viewer, parts, onward, None, None, None)


def _rows(
    wish: str,
    request: Request,
    viewer: Viewer,
    parts: Parts,
    onward: str,
    tenant_id: UUID | None,
    entity: str | None,
    row_id: UUID | None,
) -> Response:
    work = {"retry": steering.retry_rows, "drop": steering.drop_rows}.get(wish)
    if work is None or (tenant_id is None and viewer.role is not Role.OPERATOR):
        raise not_found("page")
    with parts.database.transaction() as connection:
        count = work(connection, tenant_id=tenant_id, entity=entity, row_id=row_id, by=viewer.actor)
    return back(request, onward, good("flash.rows_retried" if wish == "retry" else "flash.rows_dropped", n=count))
