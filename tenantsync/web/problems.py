"""What goes wrong, as problem documents (RFC 9457). None quotes what was sent: it may be a secret or an appointment."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from db.session import PoolExhausted, is_connection_loss

MEDIA_TYPE = "application/problem+json"
SHOWN_ERRORS = 20
log = structlog.get_logger(__name__)


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    loc: list[str | int] = Field(description="Where it is: body, query, path or header, then names and positions")
    msg: str = Field(description="What is wrong with it")
    type: str = Field(description="The same as a constant")


class ProblemDocument(BaseModel):
    """The body of every answer from 400 on."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "There is no such process, or it is not yours to see.",
                }
            ]
        }
    )

    type: str = Field(description="about:blank, or a constant that names this kind of problem")
    title: str = Field(description="What kind of problem it is")
    status: int = Field(description="The HTTP status")
    detail: str | None = Field(None, description="What is wrong here, and what to do")
    errors: list[FieldError] | None = Field(None, description="Every field at fault")


class Problem(Exception):
    """Raise it anywhere below an endpoint. `kind` is a constant for programs: `urn:tenantsync:<kind>`."""

    def __init__(
        self,
        status: int,
        title: str | None = None,
        detail: str | None = None,
        *,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
        errors: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(detail or title or str(status))
        self.status = status
        self.title = title or HTTPStatus(status).phrase
        self.detail = detail
        self.kind = f"urn:tenantsync:{kind}" if kind else "about:blank"
        self.headers = dict(headers or {})
        self.errors = errors

    def answer(self) -> Response:
        body: dict[str, Any] = {"type": self.kind, "title": self.title, "status": self.status}
        if self.detail is not None:
            body["detail"] = self.detail
        if self.errors is not None:
            body["errors"] = self.errors
        return Response(
            orjson.dumps(body),
            status_code=self.status,
            headers={"Cache-Control": "no-store", **self.headers},
            media_type=MEDIA_TYPE,
        )


def not_found(what: str) -> Problem:
    """There is none, or it is somebody else's: both look the same."""
    return Problem(404, detail=f"There is no such {what}, or it is not yours to see.")


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: these statuses answer with problems."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Answer every failure with a problem."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(DBAPIError, _database)
    app.add_exception_handler(PoolExhausted, _database)
    app.add_exception_handler(Exception, _unexpected)


async def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101
    return error.answer()


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    found = [
        {"loc": list(one["loc"]), "msg": str(one["msg"]).removeprefix("Value error, "), "type": one["type"]}
        for one in error.errors()[:SHOWN_ERRORS]
    ]
    return Problem(422, "Invalid request", "See errors for each field.", kind="invalid", errors=found).answer()


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return _shown(request, Problem(error.status_code, headers=headers))


def _shown(request: Request, problem: Problem) -> Response:
    """As a page to people who look for pages, as a document to everybody else."""
    show = getattr(request.app.state, "show_failure", None)
    people = "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")
    if show is None or not people:
        return problem.answer()
    page: Response = show(request, problem.status, problem.headers)
    return page


def _methods(request: Request) -> set[str]:
    """What may be done at an address: each method is a route of its own, and one alone does not know the others."""
    return {
        method
        for route in request.app.routes
        if route.matches(request.scope)[0] is not Match.NONE
        for method in getattr(route, "methods", None) or ()
    }


async def _database(request: Request, error: Exception) -> Response:
    if is_connection_loss(error):
        log.warning("web_database_away", kind=type(error).__name__)
        return Problem(
            503, detail="The database does not answer just now. Try again.", headers={"Retry-After": "2"}
        ).answer()
    return await _unexpected(request, error)


async def _unexpected(request: Request, error: Exception) -> Response:
    route = getattr(request.scope.get("route"), "path", "")
    log.error("web_request_failed", method=request.method, route=route, exc_info=error)
    return _shown(request, Problem(500, detail="This is a fault of ours. It was written down."))
