"""Style sheets, scripts and icons: small files of the checkout, named with their hash so that browsers keep them."""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

FOLDER = Path(__file__).parents[1] / "static"
CLIENT = Path(__file__).parents[3] / "clients" / "typescript" / "dist"
"""The TypeScript client as it is built: the page of a process follows it as any web app would."""
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
}
FOR_EVER = "public, max-age=31536000, immutable"
A_WHILE = "public, max-age=300"

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent."""

    plain: bytes
    packed: bytes
    kind: str
    tag: str


@cache
def known() -> dict[str, Asset]:
    """Every file by its path below `static`; the client's stand below `client/`."""
    return {
        prefix + path.relative_to(folder).as_posix(): _read(path)
        for folder, prefix in ((FOLDER, ""), (CLIENT, "client/"))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in KINDS
    }


def _read(path: Path) -> Asset:
    plain = path.read_bytes()
    return Asset(plain, gzip.compress(plain, 9, mtime=0), KINDS[path.suffix], hashlib.sha256(plain).hexdigest()[:16])


def url(name: str) -> str:
    """The address of a file, which changes with it."""
    return f"/static/{name}?v={known()[name].tag}"


@router.get("/static/{name:path}")
def static(name: str, request: Request) -> Response:
    """A file."""
    found = known().get(name)
    if found is None:
        return Response(status_code=404)
    named = request.query_params.get("v") == found.tag
    headers = {"Cache-Control": FOR_EVER if named else A_WHILE, "ETag": f'"{found.tag}"', "Vary": "Accept-Encoding"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.packed, headers={**headers, "Content-Encoding": "gzip"}, media_type=found.kind)
    return Response(found.plain, headers=headers, media_type=found.kind)
