"""`/api/v1/tenants` and what belongs to each: who they are, how they stand, why they wait, and steering them."""

import math
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from sqlalchemy import Connection

from db.repositories import browsing, explaining, tenant_lists
from db.repositories.browsing import Place
from db.repositories.tenant_lists import Only, Sort, TenantLine
from tenantsync.accounting import service as accounting
from tenantsync.dispatching import steering
from tenantsync.dispatching.steering import SteeringRefused
from tenantsync.web.api.operations_models import (
    Account,
    Calendar,
    Due,
    Explained,
    Link,
    Paused,
    Reason,
    Share,
    Tenant,
    TenantChange,
    Unit,
)
from tenantsync.web.conditional import TAGGED, Expected, Known, check_match, tagged
from tenantsync.web.fields import Id
from tenantsync.web.once import Onced, as_answer
from tenantsync.web.paging import USUAL, Cursor, Limit, Page, before_id, decoded, page_of
from tenantsync.web.problems import Problem, not_found, responses
from tenantsync.web.services import Parts
from tenantsync.web.viewers import Manager, Operator, SignedIn, Viewer

router = APIRouter(tags=["tenants"])
MOST_UNITS = 20


def this_tenant(tenant_id: Id, viewer: SignedIn) -> UUID:
    """The tenant that a path names, if it is the viewer's to see."""
    viewer.must_see(tenant_id)
    return tenant_id


ThisTenant = Annotated[UUID, Depends(this_tenant)]
Search = Annotated[str | None, Query(max_length=200, description="A part of the name, or the id")]


@router.get("/tenants", operation_id="listTenants", responses=responses(401, 422, 503))
def list_tenants(
    viewer: SignedIn,
    parts: Parts,
    sort: Sort = "name",
    only: Only = "all",
    q: Search = None,
    limit: Limit = USUAL,
    cursor: Cursor = None,
) -> Page[Tenant]:
    """Tenants at a glance; whoever belongs to one sees that one."""
    after = position(cursor)
    with parts.database.statement() as connection:
        if viewer.scope is not None:
            own = tenant_lists.one(connection, tenant_id=viewer.scope)
            rows = [own] if own is not None else []
        else:
            rows = tenant_lists.listed(connection, sort=sort, only=only, search=q, after=after, limit=limit + 1)
    return page_of(rows, limit=limit, shown=Tenant.of, position=key_of)


def key_of(row: TenantLine) -> str:
    """Where the list goes on after this row."""
    return f"{row.sort_key!r}\n{row.tenant_id}\n{row.name}"


def position(cursor: str | None) -> tuple[float, str, UUID] | None:
    """What a cursor names. Raises a 422 for one that is not ours."""
    told = decoded(cursor)
    if told is None:
        return None
    key, _, rest = told.partition("\n")
    tenant_id, _, name = rest.partition("\n")
    try:
        number, last = float(key), UUID(tenant_id)
    except ValueError:
        raise unknown_cursor() from None
    if math.isnan(number) or "\x00" in name:
        raise unknown_cursor()
    return number, name, last


def unknown_cursor() -> Problem:
    """A cursor of another list, or of nobody's."""
    return Problem(422, "Invalid request", "The cursor is not one that this list gave out.", kind="invalid")


def _standing(connection: Connection, tenant_id: UUID) -> Tenant:
    line = tenant_lists.one(connection, tenant_id=tenant_id)
    if line is None:
        raise not_found("tenant")
    return Tenant.of(line)


@router.get(
    "/tenants/{tenant_id}",
    operation_id="getTenant",
    response_model=Tenant,
    responses={200: {"headers": TAGGED}, 304: {"description": "One has it already"}, **responses(401, 404, 422, 503)},
)
def get_tenant(tenant_id: ThisTenant, parts: Parts, known: Known) -> Response:
    """One of them."""
    with parts.database.statement() as connection:
        return tagged(_standing(connection, tenant_id), known)


@router.get(
    "/tenants/{tenant_id}/share",
    operation_id="getShare",
    response_model=Share,
    responses={200: {"headers": TAGGED}, 304: {"description": "One has it already"}, **responses(401, 404, 422, 503)},
)
def get_share(tenant_id: ThisTenant, parts: Parts, known: Known) -> Response:
    """Its part of what there is to share."""
    with parts.database.statement() as connection:
        _standing(connection, tenant_id)
        return tagged(Share(**_share(connection, tenant_id)), known)


def _share(connection: Connection, tenant_id: UUID) -> dict[str, Any]:
    found = tenant_lists.share(connection, tenant_id=tenant_id)
    return {"weight": found["weight"], "concurrency": found["cap"]}


@router.patch(
    "/tenants/{tenant_id}/share",
    operation_id="setShare",
    response_model=Share,
    responses={200: {"headers": TAGGED}, **responses(401, 403, 404, 412, 422, 503)},
)
def set_share(
    change: TenantChange, tenant_id: ThisTenant, viewer: Operator, parts: Parts, expected: Expected
) -> Response:
    """Set a tenant's weight and concurrency. The next claim goes by them."""
    with parts.database.transaction() as connection:
        _standing(connection, tenant_id)
        check_match(Share(**_share(connection, tenant_id)), expected)
        try:
            weight, concurrency = steering.set_share(
                connection,
                tenant_id=tenant_id,
                weight=change.weight,
                concurrency=change.concurrency,
                by=viewer.actor,
            )
        except SteeringRefused as error:
            raise Problem(422, "Invalid request", str(error), kind="invalid") from None
    return tagged(Share(weight=weight, concurrency=concurrency))


@router.post("/tenants/{tenant_id}/pause", operation_id="pauseTenant", responses=responses(401, 403, 404, 422, 503))
def pause(reason: Reason, tenant_id: ThisTenant, viewer: Manager, parts: Parts) -> Paused:
    """Stop a tenant: when this answers, no run of it can write any more. Doing it again changes nothing."""
    with parts.database.statement() as connection:
        _standing(connection, tenant_id)
    try:
        changed = steering.pause(
            parts.database, tenant_id=tenant_id, by=viewer.actor, reason=reason.reason, name=viewer.name or None
        )
    except SteeringRefused as error:
        raise Problem(422, "Invalid request", str(error), kind="invalid") from None
    return Paused(paused=True, changed=changed)


@router.post("/tenants/{tenant_id}/resume", operation_id="resumeTenant", responses=responses(401, 403, 404, 422, 503))
def resume(tenant_id: ThisTenant, viewer: Manager, parts: Parts) -> Paused:
    """Let it run again. Doing it again changes nothing."""
    with parts.database.statement() as connection:
        _standing(connection, tenant_id)
    return Paused(paused=False, changed=steering.resume(parts.database, tenant_id=tenant_id, by=viewer.actor))


@router.post(
    "/tenants/{tenant_id}/sync",
    operation_id="syncTenant",
    response_model=Due,
    responses=responses(401, 403, 404, 409, 422, 503),
)
def sync(
    tenant_id: ThisTenant,
    viewer: Manager,
    once: Onced,
    workspace_id: Annotated[Id | None, Query(description="Only this workspace")] = None,
) -> Response:
    """Make its calendars due now. Backoff does not hold them; what a provider closed stays closed."""
    if workspace_id is not None:
        viewer.must_see(tenant_id, workspace_id, what="workspace")

    def wanted(connection: Connection) -> Response:
        _standing(connection, tenant_id)
        due = steering.sync_now(connection, tenant_id=tenant_id, workspace_id=workspace_id, by=viewer.actor)
        return as_answer(Due(calendars=due.calendars, units=due.units))

    return once.answer(wanted)


def _place(viewer: Viewer, tenant_id: UUID, cursor: str | None) -> Place:
    return Place(tenant_id, before_id(cursor), viewer.workspace_ids)


@router.get("/tenants/{tenant_id}/accounts", operation_id="listAccounts", responses=responses(401, 404, 422, 503))
def list_accounts(
    tenant_id: ThisTenant, viewer: SignedIn, parts: Parts, limit: Limit = USUAL, cursor: Cursor = None
) -> Page[Account]:
    """Its accounts at providers, the newest first."""
    with parts.database.statement() as connection:
        rows = browsing.accounts(connection, _place(viewer, tenant_id, cursor), limit=limit + 1)
    return page_of(rows, limit=limit, shown=Account.model_validate, position=lambda row: row["account_id"])


@router.get("/tenants/{tenant_id}/calendars", operation_id="listCalendars", responses=responses(401, 404, 422, 503))
def list_calendars(
    tenant_id: ThisTenant, viewer: SignedIn, parts: Parts, limit: Limit = USUAL, cursor: Cursor = None
) -> Page[Calendar]:
    """Its calendars, the newest first."""
    with parts.database.statement() as connection:
        rows = browsing.calendars(connection, _place(viewer, tenant_id, cursor), limit=limit + 1)
    return page_of(rows, limit=limit, shown=Calendar.model_validate, position=lambda row: row["calendar_id"])


@router.get("/tenants/{tenant_id}/units", operation_id="listUnits", responses=responses(401, 404, 422, 503))
def list_units(
    tenant_id: ThisTenant, viewer: SignedIn, parts: Parts, limit: Limit = USUAL, cursor: Cursor = None
) -> Page[Unit]:
    """Its workspaces as units of work, by name."""
    with parts.database.statement() as connection:
        rows = browsing.units(
            connection,
            tenant_id=tenant_id,
            after=_after(cursor),
            workspaces=viewer.workspace_ids,
            limit=limit + 1,
        )
    place = partial("{0[unit_id]}\n{0[workspace]}".format)
    return page_of(rows, limit=limit, shown=Unit.model_validate, position=place)


def _after(cursor: str | None) -> tuple[str, UUID] | None:
    told = decoded(cursor)
    if told is None:
        return None
    unit_id, _, name = told.partition("\n")
    try:
        last = UUID(unit_id)
    except ValueError:
        raise unknown_cursor() from None
    if "\x00" in name:
        raise unknown_cursor()
    return name, last


@router.get("/tenants/{tenant_id}/why", operation_id="explainTenant", responses=responses(401, 404, 422, 503))
def why(tenant_id: ThisTenant, viewer: SignedIn, parts: Parts) -> Page[Explained]:
    """What holds its units that are due first, in order, and when they will run."""
    with parts.database.statement() as connection:
        _standing(connection, tenant_id)
        units, _ = explaining.units_of(connection, tenant_id=tenant_id, limit=MOST_UNITS)
    answers = [
        accounting.why(parts.database, parts.settings, unit_id=unit) for unit in units if viewer.sees(tenant_id, unit)
    ]
    items = [
        Explained(
            unit_id=facts.unit_id,
            workspace=facts.workspace,
            state=facts.state,
            lane=facts.lane,
            runs_at=explanation.runs_at,
            lost=explanation.lost,
            chain=[Link(kind=link.kind, text=link.text, until=link.until) for link in explanation.links],
        )
        for facts, explanation in (one for one in answers if one is not None)
    ]
    return Page(items=items)
