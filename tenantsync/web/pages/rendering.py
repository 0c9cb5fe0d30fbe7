"""Pages from templates: language, theme, messages that survive one redirect, and compression."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jinja2
from fastapi import Request
from markupsafe import Markup
from starlette.responses import RedirectResponse, Response

from tenantsync import clock
from tenantsync.identity.people import LANGUAGES
from tenantsync.web.cookies import same_site_path
from tenantsync.web.pages import assets
from tenantsync.web.pages.texts import NAMES, Speaker, load, speaker, wanted
from tenantsync.web.services import Services
from tenantsync.web.viewers import SECURE_COOKIE, Viewer, cookie_name, csrf_token

TEMPLATES = Path(__file__).parents[1] / "templates"
LANGUAGE_COOKIE = "tenantsync-language"
THEME_COOKIE = "tenantsync-theme"
FLASH_COOKIE = "tenantsync-flash"
THEMES = ("auto", "light", "dark")
A_YEAR = 365 * 24 * 3600
FLASH_FOR = 60  # seconds
COMPRESSED_FROM = 1000  # bytes
LEVEL = 4  # of gzip: a page of 100 kB takes a millisecond or two
LONGEST_FLASH = 300


@dataclass(frozen=True, slots=True)
class Flash:
    """A message about what was done just now. `key` is a text's, `kind` good or bad; `values` go into the text."""

    kind: str
    key: str
    values: Mapping[str, str | int | float]


@cache
def environment() -> jinja2.Environment:
    """Autoescaped, and strict: a name that a page forgot is an error, not an empty place."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "n": number,
        "si": short,
        "utc": utc,
        "iso": iso,
        "ms": milliseconds,
        "bytes": size,
        "pretty": pretty,
        "json_data": json_data,
    }
    made.globals |= {"asset": assets.url, "query": query, "m": made.get_template("macros.html").module}
    return made


def number(value: float | None) -> str:
    """1,234,567"""
    return "–" if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """12.3 k"""
    if value is None:
        return "–"
    for size_, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= size_:
            scaled = value / (1e3 if unit == " k" else size_)
            return f"{scaled:.1f}{unit}" if scaled < 100 else f"{scaled:.0f}{unit}"
    return f"{value:,.0f}"


def size(value: float | None) -> str:
    """12.3 kB"""
    if value is None:
        return "–"
    for size_, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size_:
            return f"{value / size_:.1f} {unit}"
    return f"{value:.0f} B"


def milliseconds(value: float | None) -> str:
    """A duration in milliseconds, as people read it."""
    if value is None:
        return "–"
    if value < 1000:
        return f"{value:.0f} ms"
    if value < 120_000:
        return f"{value / 1000:.1f} s"
    minutes, seconds = divmod(int(value / 1000), 60)
    return f"{minutes} min {seconds:02d} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def utc(moment: datetime | None) -> str:
    return "–" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def iso(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def pretty(value: object) -> str:
    """JSON for people."""
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)


def json_data(value: object) -> Markup:
    """JSON inside a `<script type="application/json">`, which nothing in it can end."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(safe)  # noqa: S704 — nothing that is markup is left in it


def query(**values: object) -> str:
    """The end of an address: ?a=b, without what is empty."""
    given = {name: str(value) for name, value in values.items() if value not in (None, "")}
    return f"?{urlencode(given)}" if given else ""


def language_of(request: Request, viewer: Viewer | None) -> str:
    """What was chosen with the switch, else the person's own, else the browser's."""
    chosen = request.cookies.get(LANGUAGE_COOKIE)
    if chosen in LANGUAGES:
        return chosen
    if viewer is not None and viewer.language in LANGUAGES:
        return viewer.language
    return wanted(request.headers.get("accept-language"))


def _theme(request: Request) -> str:
    chosen = request.cookies.get(THEME_COOKIE, "auto")
    return chosen if chosen in THEMES else "auto"


def _moment_filter(speak: Speaker, now: datetime) -> Any:
    def ago(moment: datetime | None) -> str:
        return speak.ago(None if moment is None else abs((now - moment).total_seconds()))

    return ago


def page(
    request: Request,
    viewer: Viewer | None,
    template: str,
    *,
    status: int = 200,
    fresh: Flash | None = None,
    **values: Any,
) -> Response:
    """A page. `fresh`: a message about this very request, shown before any that a redirect brought along."""
    language = language_of(request, viewer)
    speak, now = speaker(language), clock.now()
    services: Services = request.app.state.services
    flash = fresh or _flashed(request)
    context = {
        "t": speak,
        "lang": language,
        "languages": NAMES,
        "theme": _theme(request),
        "themes": THEMES,
        "viewer": viewer,
        "csrf": csrf_token(request, viewer) if viewer is not None else "",
        "here": request.url.path,
        "here_with_query": f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path,
        "flash": flash,
        "now": now,
        "ago": _moment_filter(speak, now),
        "flower_url": services.settings.flower_url,
        **values,
    }
    body = environment().get_template(template).render(context).encode()
    response = Response(body, status_code=status, media_type="text/html; charset=utf-8")
    if FLASH_COOKIE in request.cookies:
        response.delete_cookie(FLASH_COOKIE, path="/")
    return compressed(request, response)


def compressed(request: Request, response: Response) -> Response:
    """The answer in gzip, for those who take it and where it is worth it."""
    response.headers["Vary"] = "Accept-Encoding, Cookie, Accept-Language"
    body = bytes(response.body)
    if len(body) >= COMPRESSED_FROM and "gzip" in request.headers.get("accept-encoding", ""):
        response.body = gzip.compress(body, LEVEL, mtime=0)
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Content-Length"] = str(len(response.body))
    return response


def back(request: Request, target: str, flash: Flash | None = None) -> Response:
    """To another page after a form: it is not sent twice, and says there what came of it."""
    response = RedirectResponse(same_site_path(target), status_code=303)
    if flash is not None:
        kept = json.dumps([flash.kind, flash.key, dict(flash.values)])[: LONGEST_FLASH * 4]
        set_cookie(request, response, FLASH_COOKIE, kept.encode().hex(), FLASH_FOR)
    return response


def good(key: str, **values: str | int | float) -> Flash:
    """Something was done."""
    return Flash("good", key, values)


def bad(key: str, **values: str | int | float) -> Flash:
    """Something could not be done."""
    return Flash("bad", key, values)


def _flashed(request: Request) -> Flash | None:
    kept = request.cookies.get(FLASH_COOKIE)
    if kept is None:
        return None
    try:
        kind, key, values = json.loads(bytes.fromhex(kept))
        flash = Flash("good" if kind == "good" else "bad", str(key), {str(name): one for name, one in values.items()})
        load("en")[flash.key].format(**flash.values)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        return None  # not one of ours, whatever it is
    return flash


def set_cookie(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    """A cookie of ours beside the session's."""
    secure = cookie_name(request.app.state.services) == SECURE_COOKIE
    response.set_cookie(name, value, max_age=seconds, path="/", httponly=True, samesite="lax", secure=secure)
