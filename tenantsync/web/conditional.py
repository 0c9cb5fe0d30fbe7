"""ETags of single resources: If-None-Match spares a body, If-Match a change that was overtaken."""

import hashlib
from typing import Annotated, Any

from fastapi import Depends, Header
from pydantic import BaseModel
from starlette.responses import Response

from tenantsync.web.problems import Problem

IfNoneMatch = Annotated[
    str | None, Header(alias="If-None-Match", max_length=1000, description="ETags that one has already")
]
IfMatch = Annotated[
    str | None, Header(alias="If-Match", max_length=1000, description="The ETag of what one thinks to change")
]
TAGGED: dict[str, Any] = {"ETag": {"description": "Names this state of the resource", "schema": {"type": "string"}}}


def _none_match(tags: IfNoneMatch = None) -> str | None:
    return tags


def _match(tags: IfMatch = None) -> str | None:
    return tags


Known = Annotated[str | None, Depends(_none_match)]
Expected = Annotated[str | None, Depends(_match)]


def tag(body: bytes) -> str:
    """The ETag of a representation."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _among(own: str, tags: str) -> bool:
    return any(one.strip().removeprefix("W/") in (own, "*") for one in tags.split(","))


def tagged(shown: BaseModel, known: str | None = None, *, status: int = 200) -> Response:
    """A resource with its ETag, or 304 where the reader has it."""
    body = shown.model_dump_json().encode()
    own = tag(body)
    headers = {"ETag": own, "Cache-Control": "private, no-cache"}
    if known is not None and _among(own, known):
        return Response(status_code=304, headers=headers)
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def check_match(shown: BaseModel, expected: str | None) -> None:
    """Raise a 412 if the resource is no longer what the request thinks it is."""
    if expected is not None and not _among(tag(shown.model_dump_json().encode()), expected):
        raise Problem(412, detail="It was changed meanwhile. Read it again.", kind="changed")
