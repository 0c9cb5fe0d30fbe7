"""The web application: API, live streams and pages, over one pool of connections."""

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from config.settings import Settings
from db.session import Database
from tenantsync.web import openapi, problems
from tenantsync.web.api.health import Watch
from tenantsync.web.gate import Gate
from tenantsync.web.live import Hub
from tenantsync.web.services import open_services
from tenantsync.work import handlers

DESCRIPTION = """
Tasks, live processes and the state of syncing, for a tenant's own web app and for operators.

Errors are problem documents (RFC 9457). Lists come in pages: follow `next_cursor`. `POST`s take an
`Idempotency-Key`: the same key with the same request gets the first answer again. Single resources bear an `ETag`.
Times are ISO 8601 in UTC.
"""
NO_TELEMETRY = {"tracing": False, "metrics": False, "logs": False}
REQUEST_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID")
ROUTERS = ("tenantsync.web.api", "tenantsync.web.pages")
"""Packages with a function `router() -> APIRouter`; the last one has a `failure` for people besides."""


@asynccontextmanager
async def _life(app: FastAPI) -> AsyncIterator[None]:
    hub = Hub(app.state.services.database)
    app.state.hub = hub
    hub.start()
    try:
        yield
    finally:
        await hub.stop()


def create_app(settings: Settings, database: Database) -> FastAPI:
    """The application over an open pool. Raises SecretKeyMissing or HandlersBroken."""
    app = FastAPI(
        title="Tenantsync",
        version="1",
        description=DESCRIPTION,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_life,
        telemetry=NO_TELEMETRY,  # type: ignore[arg-type]
    )
    app.state.services = open_services(settings, database)
    app.state.handlers = handlers.load(settings.task_handlers)
    app.state.watch = Watch()
    app.state.hub = None  # made in the event loop that it lives in
    problems.install(app)
    openapi.install(app)
    for package in ROUTERS:
        if find_spec(package) is not None:
            part = importlib.import_module(package)
            app.include_router(part.router())
            app.state.show_failure = getattr(part, "failure", None)
    app.add_middleware(Gate, settings=settings)
    if settings.web_allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.web_allowed_origins,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=REQUEST_HEADERS,
            expose_headers=["ETag", "Retry-After", "Location", "Idempotency-Replayed"],
            allow_credentials=False,
            max_age=600,
        )
    return app
