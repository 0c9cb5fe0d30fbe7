"""Pages for everybody: axe-core finds nothing serious, nothing is wider than a phone, everything comes from here."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, Request

from db.repositories import readings
from tenantsync.identity.roles import Role
from tenantsync.metrics import service as metrics
from tests.support.browsing import come_in, faults
from tests.support.pages import Furnished, furnish
from tests.support.web import Web

pytest_plugins = ["tests.support.web_fixtures", "tests.support.browsing_fixtures"]

Visit = Callable[..., BrowserContext]
PHONE = {"width": 360, "height": 740}
LONG = "Donaudampfschifffahrtsgesellschaftskapitänskajütenschlüssel" * 3


@pytest.fixture
def furnished(web: Web) -> Furnished:
    """A tenant with names that break in no good place, and readings for the plots."""
    made = furnish(web, name=LONG)
    for _ in range(2):
        metrics.collect(web.database, web.database, {"sync": 1})
    with web.database.reading() as connection:
        assert readings.workers(connection)
    return made


def pages(furnished: Furnished) -> list[str]:
    operators = ["/", "/tenants", "/mirror", "/schedules"]
    return [*operators, *furnished.own_pages(), *furnished.manager_pages(), "/nothing-here", "/login"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_fault_on_any_page(
    web: Web, furnished: Furnished, visit: Visit, axe_script: Path, theme: str
) -> None:
    page = come_in(visit(color_scheme=theme), web, web.user(Role.OPERATOR))

    found = {}
    for path in pages(furnished)[:-2]:
        page.goto(f"{web.url}{path}")
        page.wait_for_load_state()
        found[path] = faults(page, axe_script)
    stranger = visit(color_scheme=theme).new_page()
    stranger.goto(f"{web.url}/login")
    found["/login"] = faults(stranger, axe_script)

    assert {path: wrong for path, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize("language", ["en", "ja"])
def test_no_page_is_wider_than_a_phone(web: Web, furnished: Furnished, visit: Visit, language: str) -> None:
    context = visit(viewport=PHONE, is_mobile=True, has_touch=True)
    context.add_cookies([{"name": "tenantsync-language", "value": language, "url": web.url}])
    page = come_in(context, web, web.user(Role.OPERATOR))

    wide = {path: wider for path in pages(furnished) if (wider := _width(page, f"{web.url}{path}")) > PHONE["width"]}

    assert wide == {}


def _width(page: Page, address: str) -> int:
    page.goto(address)
    return int(page.evaluate("() => document.documentElement.scrollWidth"))


def test_everything_that_a_page_needs_comes_from_its_own_server(web: Web, furnished: Furnished, visit: Visit) -> None:
    page = come_in(visit(), web, web.user(Role.OPERATOR))
    asked: list[Request] = []
    refused: list[str] = []
    page.on("request", lambda request: asked.append(request))  # noqa: PLW0108 — Playwright writes on it
    page.on("console", lambda message: refused.append(message.text) if message.type == "error" else None)

    for path in ("/", "/tenants", f"/processes/{furnished.running}"):
        page.goto(f"{web.url}{path}")
        page.wait_for_load_state()
        page.wait_for_timeout(200)

    assert len(asked) > 6
    assert {request.url for request in asked if not request.url.startswith((web.url, "data:"))} == set()
    assert refused == []


def test_one_can_get_about_by_keyboard(web: Web, furnished: Furnished, visit: Visit) -> None:
    page = come_in(visit(), web, web.user(Role.OPERATOR))
    page.goto(f"{web.url}/tenants")

    page.keyboard.press("Tab")
    skip = page.evaluate("() => document.activeElement.textContent")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")

    assert skip == "Skip to the content"
    assert page.evaluate("() => document.activeElement.id") == "q"
    assert page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"
