"""`/api/v1/runs` and `/api/v1/parked`: what was done for calendars, and what was put aside."""

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from sqlalchemy import Connection

from db.repositories import browsing
from db.repositories.browsing import ROW_ENTITIES, Place
from tenantsync import clock
from tenantsync.dispatching import steering
from tenantsync.identity.roles import Role
from tenantsync.web.api.operations import unknown_cursor
from tenantsync.web.api.operations_models import (
    Handled,
    ParkedRow,
    ParkedUnit,
    RowsNamed,
    Run,
    RunWithSteps,
    Step,
)
from tenantsync.web.conditional import TAGGED, Known, tagged
from tenantsync.web.fields import Id
from tenantsync.web.once import Onced, as_answer
from tenantsync.web.paging import USUAL, Cursor, Limit, Page, before_id, decoded, page_of
from tenantsync.web.problems import Problem, not_found, responses
from tenantsync.web.services import Parts
from tenantsync.web.viewers import Manager, SignedIn, Viewer

router = APIRouter()
WITHIN = timedelta(days=31)
A_DAY = timedelta(days=1)

OfTenant = Annotated[Id | None, Query(description="Of this tenant; operators see everybody's without it")]


def _scope(viewer: Viewer, tenant_id: UUID | None) -> UUID | None:
    if tenant_id is not None:
        viewer.must_see(tenant_id)
    return viewer.scope or tenant_id


@router.get("/runs", operation_id="listRuns", tags=["runs"], responses=responses(401, 404, 422, 503))
def list_runs(
    viewer: SignedIn,
    parts: Parts,
    tenant_id: OfTenant = None,
    failed: Annotated[bool, Query(description="Only those that failed, in part at least")] = False,
    limit: Limit = USUAL,
    cursor: Cursor = None,
) -> Page[Run]:
    """Runs of the last month that changed something or failed, the newest first; quiet ones are counted alone."""
    place = Place(_scope(viewer, tenant_id), before_id(cursor), viewer.workspace_ids)
    with parts.database.statement() as connection:
        rows = browsing.runs(connection, place, since=clock.now() - WITHIN, failed=failed, limit=limit + 1)
    return page_of(rows, limit=limit, shown=Run.model_validate, position=lambda row: row["id"])


@router.get(
    "/runs/{run_id}",
    operation_id="getRun",
    tags=["runs"],
    response_model=RunWithSteps,
    responses={200: {"headers": TAGGED}, 304: {"description": "One has it already"}, **responses(401, 404, 422, 503)},
)
def get_run(run_id: Id, viewer: SignedIn, parts: Parts, known: Known) -> Response:
    """A run and its steps."""
    with parts.database.statement() as connection:
        row = browsing.run(connection, run_id=run_id)
        if row is None or not may_see(viewer, row["tenant_id"], row["unit_id"]):
            raise not_found("run")
        steps = browsing.steps(
            connection, task_id=row["id"], tenant_id=row["tenant_id"], since=row["created_at"] - A_DAY
        )
    return tagged(RunWithSteps(**row, steps=[Step.model_validate(one) for one in steps]), known)


def may_see(viewer: Viewer, tenant_id: UUID | None, unit_id: UUID | None) -> bool:
    """Whether a run is the viewer's to see; what belongs to no tenant is an operator's."""
    if tenant_id is None:
        return viewer.role is Role.OPERATOR
    return viewer.sees(tenant_id, unit_id)


@router.get("/parked/units", operation_id="listParkedUnits", tags=["parked"], responses=responses(401, 403, 422, 503))
def list_parked_units(viewer: Manager, parts: Parts, limit: Limit = USUAL, cursor: Cursor = None) -> Page[ParkedUnit]:
    """Units that killed their workers."""
    with parts.database.statement() as connection:
        rows = browsing.parked_units(connection, Place(viewer.scope, before_id(cursor)), limit=limit + 1)
    return page_of(rows, limit=limit, shown=ParkedUnit.model_validate, position=lambda row: row["unit_id"])


@router.get("/parked/rows", operation_id="listParkedRows", tags=["parked"], responses=responses(401, 403, 422, 503))
def list_parked_rows(viewer: Manager, parts: Parts, limit: Limit = USUAL, cursor: Cursor = None) -> Page[ParkedRow]:
    """Rows that Supabase refused."""
    before, entity = _row_position(cursor)
    with parts.database.statement() as connection:
        rows = browsing.parked_rows(connection, Place(viewer.scope, before), entity=entity, limit=limit + 1)
    return page_of(
        rows, limit=limit, shown=ParkedRow.model_validate, position=lambda row: f"{row['row_id']}\n{row['entity']}"
    )


def _row_position(cursor: str | None) -> tuple[UUID | None, str | None]:
    told = decoded(cursor)
    if told is None:
        return None, None
    row_id, _, entity = told.partition("\n")
    if entity not in ROW_ENTITIES:
        raise unknown_cursor()
    try:
        return UUID(row_id), entity
    except ValueError:
        raise unknown_cursor() from None


UnitWork = Callable[..., bool]


def _unit(unit_id: UUID, viewer: Viewer, once: Onced, work: UnitWork) -> Response:
    def done(connection: Connection) -> Response:
        tenant_id = browsing.tenant_of_unit(connection, unit_id=unit_id)
        if tenant_id is None or not viewer.sees(tenant_id, unit_id):
            raise not_found("parked unit")
        if not work(connection, unit_id=unit_id, tenant_id=tenant_id, by=viewer.actor):
            raise not_found("parked unit")
        return Response(status_code=204)

    return once.answer(done)


@router.post(
    "/parked/units/{unit_id}/retry",
    operation_id="retryParkedUnit",
    tags=["parked"],
    status_code=204,
    response_class=Response,
    responses=responses(401, 403, 404, 409, 422, 503),
)
def retry_unit(unit_id: Id, viewer: Manager, once: Onced) -> Response:
    """Let a parked unit run again, alone."""
    return _unit(unit_id, viewer, once, steering.retry_unit)


@router.post(
    "/parked/units/{unit_id}/drop",
    operation_id="dropParkedUnit",
    tags=["parked"],
    status_code=204,
    response_class=Response,
    responses=responses(401, 403, 404, 409, 422, 503),
)
def drop_unit(unit_id: Id, viewer: Manager, once: Onced) -> Response:
    """Try a parked unit no more by itself."""
    return _unit(unit_id, viewer, once, steering.drop_unit)


def _rows(named: RowsNamed, viewer: Viewer, once: Onced, work: Callable[..., int]) -> Response:
    tenant_id = _scope(viewer, named.tenant_id)
    if tenant_id is None and (named.entity is not None or named.row_id is not None):
        raise Problem(422, "Invalid request", "Name the tenant whose rows are meant.", kind="invalid")

    def done(connection: Connection) -> Response:
        count = work(connection, tenant_id=tenant_id, entity=named.entity, row_id=named.row_id, by=viewer.actor)
        return as_answer(Handled(rows=count))

    return once.answer(done)


@router.post(
    "/parked/rows/retry",
    operation_id="retryParkedRows",
    tags=["parked"],
    response_model=Handled,
    responses=responses(401, 403, 404, 409, 422, 503),
)
def retry_rows(named: RowsNamed, viewer: Manager, once: Onced) -> Response:
    """Send refused rows once more."""
    return _rows(named, viewer, once, steering.retry_rows)


@router.post(
    "/parked/rows/drop",
    operation_id="dropParkedRows",
    tags=["parked"],
    response_model=Handled,
    responses=responses(401, 403, 404, 409, 422, 503),
)
def drop_rows(named: RowsNamed, viewer: Manager, once: Onced) -> Response:
    """Forget refused rows: they stay as Supabase has them until they change again."""
    return _rows(named, viewer, once, steering.drop_rows)
