"""The dashboard in a real browser: log in, watch, lose the connection, catch up, answer, pause."""

import re
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import BrowserContext, expect

from tenantsync.identity.roles import Role
from tenantsync.processes import publishing, service
from tenantsync.processes.publishing import Event
from tenantsync.processes.values import Held
from tests.support import process_world
from tests.support.browsing import come_in, log_in, numbers
from tests.support.pages import HOSTILE, Furnished, furnish
from tests.support.web import Web

pytest_plugins = ["tests.support.web_fixtures", "tests.support.browsing_fixtures"]

Visit = Callable[..., BrowserContext]


@pytest.fixture
def furnished(web: Web) -> Furnished:
    return furnish(web, name="Alder Clinic")


@pytest.fixture
def running(web: Web, furnished: Furnished) -> Held:
    """A process at work."""
    with web.database.transaction() as connection:
        return process_world.running(connection, furnished.tenant_id, title="Export")


@pytest.fixture
def writing(web: Web, running: Held) -> Iterator[Callable[[int], None]]:
    """Publishes so many events of the running process, in a thread of its own."""
    threads: list[threading.Thread] = []

    def begin(count: int) -> None:
        def write() -> None:
            for number in range(count):
                with web.database.transaction() as connection:
                    event = Event("section_completed", {"section_index": number, "content": f"part {number}"})
                    publishing.publish_in(
                        connection, process_id=running.process_id, tenant_id=running.tenant_id, events=[event]
                    )
                time.sleep(0.01)

        threads.append(threading.Thread(target=write))
        threads[-1].start()

    yield begin
    for thread in threads:
        thread.join(30)


def test_a_person_logs_in_and_pauses_a_tenant_with_a_reason(web: Web, furnished: Furnished, visit: Visit) -> None:
    page = visit().new_page()
    log_in(page, web, web.user(Role.OPERATOR))

    page.get_by_role("link", name="Tenants", exact=True).click()
    page.get_by_label("Search").fill("alder")
    page.get_by_label("Search").press("Enter")
    page.get_by_role("link", name="Alder Clinic").click()
    page.get_by_label("Reason").fill("moving house")
    page.get_by_role("button", name="Pause").click()

    expect(page.get_by_role("status").first).to_contain_text("The tenant is paused")
    expect(page.get_by_text("moving house")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("status").first).to_contain_text("runs again")


def test_events_are_seen_as_they_happen_and_none_is_missed_when_the_connection_is_lost(
    web: Web, furnished: Furnished, running: Held, writing: Callable[[int], None], visit: Visit
) -> None:
    context = visit()
    page = come_in(context, web, web.user(Role.MEMBER, tenant_id=furnished.tenant_id))
    page.goto(f"{web.url}/processes/{running.process_id}")
    expect(page.locator("#connection")).to_have_text("live")
    before = len(numbers(page))

    writing(30)
    page.wait_for_function("count => document.querySelectorAll('#events > li').length > count + 5", arg=before)
    context.set_offline(True)
    for subscription in list(web.server.config.app.state.hub._all):
        subscription.end("test")
    expect(page.locator("#connection")).to_have_text("reconnecting …")
    writing(30)
    page.wait_for_timeout(600)
    cut_off = len(numbers(page))
    context.set_offline(False)
    page.wait_for_function("count => document.querySelectorAll('#events > li').length >= count", arg=before + 60)

    seen = numbers(page)
    assert cut_off < before + 60
    assert seen == list(range(seen[0], seen[-1] + 1))
    expect(page.locator("#connection")).to_have_text("live")


def test_the_rest_of_the_page_follows_and_ends_with_the_process(
    web: Web, furnished: Furnished, running: Held, visit: Visit
) -> None:
    page = come_in(visit(), web, web.user(Role.MEMBER, tenant_id=furnished.tenant_id))
    page.goto(f"{web.url}/processes/{running.process_id}")
    expect(page.locator("#connection")).to_have_text("live")

    with web.database.transaction() as connection:
        service.start_step(connection, held=running, step="upload")
        service.finish_step(connection, held=running, step="upload")
        service.complete(connection, held=running, result={"rows": 1234})

    expect(page.locator("#state")).to_contain_text("Done")
    expect(page.locator("#steps")).to_contain_text("upload")
    expect(page.locator("#result")).to_contain_text("1234")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)


def test_a_question_appears_by_itself_is_answered_and_the_process_goes_on(
    web: Web, furnished: Furnished, running: Held, visit: Visit
) -> None:
    page = come_in(visit(), web, web.user(Role.MEMBER, tenant_id=furnished.tenant_id))
    page.goto(f"{web.url}/processes/{running.process_id}")
    expect(page.locator("#connection")).to_have_text("live")

    with web.database.transaction() as connection:
        service.ask(
            connection,
            held=running,
            question=service.NewQuestion("colour", "choose", "Which colour?", options=["red", "green"]),
        )
    page.get_by_label("green").check()
    page.get_by_role("button", name="Answer").click()

    expect(page.get_by_role("status").first).to_contain_text("Your answer was taken")
    expect(page.locator("#answered")).to_contain_text("green")
    expect(page.locator("#state")).to_contain_text("Waiting")


def test_what_somebody_is_filling_in_is_not_taken_away(web: Web, furnished: Furnished, visit: Visit) -> None:
    page = come_in(visit(), web, web.user(Role.MEMBER, tenant_id=furnished.tenant_id))
    page.goto(f"{web.url}/processes/{furnished.asking}")
    page.locator("input[type=radio]").first.check()

    with page.expect_response(lambda answer: answer.url.endswith(str(furnished.asking))):
        page.evaluate("() => document.dispatchEvent(new CustomEvent('stale'))")
    page.wait_for_timeout(200)

    expect(page.locator("input[type=radio]").first).to_be_checked()


def test_hostile_titles_do_nothing_in_a_browser(web: Web, visit: Visit) -> None:
    hostile = furnish(web, name=HOSTILE)
    page = come_in(visit(), web, web.user(Role.OPERATOR))

    for path in [*hostile.own_pages(), *hostile.manager_pages(), *hostile.operator_pages()]:
        page.goto(f"{web.url}{path}")
        assert page.evaluate("() => window.hacked") is None, path
        assert page.locator("img").count() == 0, path
    with web.database.transaction() as connection:
        event = Event("section_completed", {"section_index": 1, "content": HOSTILE})
        page.goto(f"{web.url}/processes/{hostile.running}")
        expect(page.locator("#connection")).to_have_text("live")
        publishing.publish_in(connection, process_id=hostile.running, tenant_id=hostile.tenant_id, events=[event])
    expect(page.locator("#events li").first).to_contain_text("window.hacked=1")
    assert page.evaluate("() => window.hacked") is None


def test_pages_work_without_scripts(web: Web, furnished: Furnished, visit: Visit) -> None:
    page = visit(java_script_enabled=False, viewport={"width": 360, "height": 740}).new_page()
    log_in(page, web, web.user(Role.OPERATOR))

    expect(page.locator("figure.plot")).to_have_count(6)
    page.get_by_role("link", name="Menu").click()
    page.get_by_role("button", name="Dark").click()
    assert re.search(r'data-theme="dark"', page.content())
    page.goto(f"{web.url}/processes/{furnished.asking}")
    page.locator("input[type=radio]").first.check()
    page.get_by_role("button", name="Answer").click()

    expect(page.get_by_role("status").first).to_contain_text("Your answer was taken")
