"""`/`: the fleet at a glance for operators; others begin at their own tenant."""

from typing import get_args

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from db.repositories import browsing
from db.repositories.browsing import Place
from tenantsync.identity.roles import Role
from tenantsync.web import fleet
from tenantsync.web.fleet import Overview, Span
from tenantsync.web.pages import plots
from tenantsync.web.pages.common import Looking, PageRoute
from tenantsync.web.pages.rendering import page
from tenantsync.web.services import Parts

router = APIRouter(route_class=PageRoute, include_in_schema=False)
USUAL: Span = "1h"
SENT_WITHIN = 10.0  # seconds; rows that wait longer for Supabase have a reason
SENT_AT_LAST = 300.0  # seconds; rows that wait longer are in trouble
MOST_QUESTIONS = 5


@router.get("/")
def overview(request: Request, viewer: Looking, parts: Parts) -> Response:
    """How all of it stands."""
    if viewer.role is not Role.OPERATOR:
        return RedirectResponse(f"/tenants/{viewer.tenant_id}", status_code=303)
    asked = request.query_params.get("span")
    span: Span = asked if asked in get_args(Span) else USUAL  # type: ignore[assignment]
    interval = parts.settings.sync_interval
    seen = fleet.read(parts.database, interval=interval)
    history = fleet.history(parts.database, span=span, interval=interval)
    with parts.database.statement() as connection:
        questions = browsing.open_questions(connection, Place(None), limit=MOST_QUESTIONS)
    return page(
        request,
        viewer,
        "overview.html",
        seen=seen,
        r=seen.reading,
        hops=hops(seen),
        questions=questions,
        history=history,
        span=span,
        spans=get_args(Span),
        drawings=[plots.draw(plan, history) for plan in plots.PLANS],
        times=plots.times(history),
    )


def hops(seen: Overview) -> tuple[str, str]:
    """How the two ways, from the providers to Postgres and from there to Supabase, look: ok, wait, bad or off."""
    if seen.stale:
        return "off", "off"
    share = seen.fresh_share
    first = "ok" if share is None or share >= 99 else "wait" if share >= 90 else "bad"
    unsent = float(seen.reading.get("oldest_unsent") or 0)
    held = bool(seen.reading.get("parked_rows")) or unsent > SENT_WITHIN
    second = "bad" if unsent > SENT_AT_LAST else "wait" if held else "ok"
    return first, second
