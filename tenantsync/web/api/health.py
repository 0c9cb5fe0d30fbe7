"""`/healthz`: this process lives. `/readyz`: it can do its work."""

from typing import Literal

from fastapi import APIRouter, Response
from sqlalchemy.exc import SQLAlchemyError

from db import schema
from tenantsync.web.fields import Shown
from tenantsync.web.services import Parts

router = APIRouter(tags=["health"])


class Health(Shown):
    """It answers."""

    status: Literal["ok"] = "ok"


class Readiness(Shown):
    """What of it works."""

    status: Literal["ready", "not ready"]
    database: Literal["ok", "away"]
    migrations: Literal["ok", "outdated", "unknown"]


@router.get("/healthz", operation_id="getHealth")
async def healthz() -> Health:
    """Whether the process lives."""
    return Health()


@router.get("/readyz", operation_id="getReadiness", responses={503: {"model": Readiness, "description": "Not ready"}})
def readyz(parts: Parts, response: Response) -> Readiness:
    """Whether the process can do its work."""
    try:
        current, head = schema.revisions(parts.database)
    except SQLAlchemyError:
        response.status_code = 503
        return Readiness(status="not ready", database="away", migrations="unknown")
    if current != head:
        response.status_code = 503
        return Readiness(status="not ready", database="ok", migrations="outdated")
    return Readiness(status="ready", database="ok", migrations="ok")
