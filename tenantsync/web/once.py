"""Idempotency-Key: a request that comes again gets the first one's answer, and does nothing more."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request
from pydantic import BaseModel
from sqlalchemy import Connection
from starlette.responses import Response

from db.repositories import idempotency
from tenantsync.web.problems import Problem
from tenantsync.web.services import Parts, Services
from tenantsync.web.viewers import SignedIn

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern="^[!-~]+$",
        description="A key of your own, a UUID for instance. For a day the same request with it does nothing more "
        "and gets the first answer again.",
    ),
]
REPLAYED = {"Idempotency-Replayed": "true"}


@dataclass(frozen=True)
class Once:
    """Does what a request asks, in one transaction with what is kept of its answer."""

    _services: Services
    _viewer: str
    _key: str | None
    _fingerprint: str

    def answer(self, work: Callable[[Connection], Response]) -> Response:
        """The answer of `work`, or the one that was given before. Problems are not kept: they may pass."""
        with self._services.database.transaction() as connection:
            if self._key is None:
                return work(connection)
            kept = self._kept(connection, self._key)
            if kept is not None:
                return kept
            given = work(connection)
            idempotency.keep(
                connection,
                viewer=self._viewer,
                key=self._key,
                fingerprint=self._fingerprint,
                status=given.status_code,
                headers={name: value for name, value in given.headers.items() if name in ("content-type", "location")},
                body=bytes(given.body),
            )
            return given

    def _kept(self, connection: Connection, key: str) -> Response | None:
        if not idempotency.hold(connection, viewer=self._viewer, key=key):
            raise Problem(
                409,
                detail="A request with this Idempotency-Key is at work. Ask again in a moment.",
                kind="in-flight",
                headers={"Retry-After": "1"},
            )
        kept = idempotency.find(connection, viewer=self._viewer, key=key)
        if kept is None:
            return None
        if kept.fingerprint != self._fingerprint:
            raise Problem(
                422, detail="This Idempotency-Key belongs to another request. Choose a new one.", kind="key-reused"
            )
        return Response(kept.body, status_code=kept.status, headers={**kept.headers, **REPLAYED})


async def _body(request: Request) -> bytes:
    return await request.body()


def _once(
    request: Request, viewer: SignedIn, parts: Parts, body: Annotated[bytes, Depends(_body)], key: Key = None
) -> Once:
    # somebody whom Supabase has moved to another tenant or workspace since gets nothing of what was theirs before
    scope = f"{viewer.role} {viewer.tenant_id} {viewer.workspace_ids and sorted(viewer.workspace_ids)}"
    told = f"{request.method} {request.url.path}?{request.url.query}\n{scope}\n".encode() + body
    return Once(parts, viewer.actor, key, parts.tokens.fingerprint(told))


Onced = Annotated[Once, Depends(_once)]
"""For an endpoint's signature: `once: Onced`, and then `return once.answer(lambda connection: …)`."""


def as_answer(shown: BaseModel, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A model as the answer."""
    return Response(
        shown.model_dump_json().encode(), status_code=status, headers=headers, media_type="application/json"
    )
