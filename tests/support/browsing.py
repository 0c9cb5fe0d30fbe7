"""What tests do in a browser; fixtures: browsing_fixtures.py."""

from pathlib import Path

from playwright.sync_api import BrowserContext, Page

from tests.support.web import PASSWORD, Web

SERIOUS = ("serious", "critical")


def come_in(context: BrowserContext, web: Web, email: str) -> Page:
    """A page of somebody whose session is open already."""
    cookie, _ = web.session(email)
    context.add_cookies([{"name": "tenantsync", "value": cookie, "url": web.url}])
    return context.new_page()


def log_in(page: Page, web: Web, email: str) -> None:
    """As people do."""
    page.goto(f"{web.url}/login")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(lambda address: "/login" not in address)


def numbers(page: Page) -> list[int]:
    """Of the events that a page shows, the first first."""
    shown = page.locator("#events > li").evaluate_all("items => items.map(item => Number(item.dataset.sequence))")
    return list(reversed(shown))


def faults(page: Page, script: Path) -> list[str]:
    """What axe-core finds serious or critical."""
    page.evaluate(script.read_text())  # not a script of the page's, so no policy of the page's is in its way
    found = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{one['id']} ({one['impact']}): {node['html'][:160]} {node['failureSummary'][:300]}"
        for one in found["violations"]
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]
