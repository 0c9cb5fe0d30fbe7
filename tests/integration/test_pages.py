"""Pages over a real server: who sees which, what a form does, and that nothing a tenant wrote is ever markup."""

import re
from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import text

from tenantsync.identity.roles import Role
from tests.support.pages import HOSTILE, Furnished, furnish
from tests.support.web import PASSWORD, Web

pytest_plugins = ["tests.support.web_fixtures"]

Find = Callable[..., list[dict[str, object]]]


@pytest.fixture
def furnished(web: Web) -> Furnished:
    return furnish(web)


@pytest.fixture
def browser_of(web: Web, furnished: Furnished) -> Callable[[Role], httpx.Client]:
    """A browser of somebody with a role, of the furnished tenant."""

    def make(role: Role) -> httpx.Client:
        return web.browser(role, tenant_id=None if role is Role.OPERATOR else furnished.tenant_id)

    return make


@pytest.fixture
def audited(web: Web) -> Find:
    """Rows of the audit log with an action."""

    def find(action: str) -> list[dict[str, object]]:
        with web.database.reading() as connection:
            query = text("select * from worker.audit_logs where action = :action order by id")
            return [dict(row) for row in connection.execute(query, {"action": action}).mappings()]

    return find


Browser = Callable[[Role], httpx.Client]


def test_each_role_has_its_pages_and_the_others_are_not_there(browser_of: Browser, furnished: Furnished) -> None:
    own, managers, operators = furnished.own_pages(), furnished.manager_pages(), furnished.operator_pages()
    pages = [*own, *managers, *operators[1:]]
    seen = {
        role: {path: client.get(path).status_code for path in pages}
        for role, client in ((role, browser_of(role)) for role in Role)
    }

    assert {path for path, code in seen[Role.OPERATOR].items() if code != 200} == set()
    fleet = {path for path in operators if not path.startswith("/?")}
    assert {path for path, code in seen[Role.ADMIN].items() if code == 404} == fleet - {"/"}
    assert {path for path, code in seen[Role.MEMBER].items() if code == 404} == (fleet | set(managers)) - {"/"}
    assert {code for codes in seen.values() for code in codes.values()} <= {200, 303, 404}


def test_whoever_belongs_to_a_tenant_begins_there(browser_of: Browser, furnished: Furnished) -> None:
    assert browser_of(Role.MEMBER).get("/").headers["location"] == f"/tenants/{furnished.tenant_id}"


def test_nothing_of_another_tenant_is_to_be_seen_or_done(web: Web, furnished: Furnished) -> None:
    other, _ = web.tenant()
    admin = web.browser(Role.ADMIN, tenant_id=other)
    aims = [
        f"/tenants/{furnished.tenant_id}/pause", f"/tenants/{furnished.tenant_id}/sync",
        f"/processes/{furnished.running}/cancel", f"/processes/{furnished.asking}/questions/{furnished.question}",
        f"/parked/units/{furnished.parked_unit}/retry",
    ]  # fmt: skip
    looks = [path for path in furnished.own_pages() if str(furnished.tenant_id) in path or len(path) > 30]

    assert {admin.get(path).status_code for path in looks} == {404}
    assert {admin.post(path, data={"next": "/", "choice": "0"}).status_code for path in aims} == {404}
    row = {"next": "/", "tenant": str(furnished.tenant_id), "entity": "events", "row": str(furnished.refused_row)}
    assert admin.post("/parked/rows/drop", data=row).status_code == 404
    for path in ("/runs", "/processes", "/parked", "/people", "/audit", f"/runs?tenant={furnished.tenant_id}"):
        assert "hacked" not in admin.get(path).text


@pytest.mark.parametrize("language", ["en", "ja"])
def test_what_a_tenant_wrote_is_never_markup(browser_of: Browser, furnished: Furnished, language: str) -> None:
    operator = browser_of(Role.OPERATOR)
    operator.cookies.set("tenantsync-language", language)
    pages = [*furnished.own_pages(), *furnished.manager_pages(), *furnished.operator_pages()]

    for path in pages:
        page = operator.get(path).text
        assert "<script>window" not in page, path
        assert "<img" not in page, path
        assert "49" not in re.findall(r"\"'(\d+)", page), path
        assert f'lang="{language}"' in page
    shown = [path for path in pages if "&lt;script&gt;window" in operator.get(path).text]
    assert len(shown) >= len(pages) - 6


def test_strangers_are_sent_to_the_log_in_and_back(web: Web, furnished: Furnished) -> None:
    client = web.client()
    email = web.user(Role.MEMBER, tenant_id=furnished.tenant_id)

    sent = client.get(f"/processes/{furnished.asking}?x=1")
    form = client.get(sent.headers["location"])
    done = client.post(
        "/login",
        data={"email": email, "password": PASSWORD, "next": re.findall(r'name="next" value="(.+?)"', form.text)[0]},
    )

    assert sent.headers["location"] == f"/login?next=/processes/{furnished.asking}%3Fx%3D1"
    assert done.status_code == 303
    assert done.headers["location"] == f"/processes/{furnished.asking}?x=1"
    assert client.get(done.headers["location"]).status_code == 200


@pytest.mark.parametrize(
    "target", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "evil", "/\tx"]
)
def test_nobody_is_sent_to_another_site(web: Web, target: str) -> None:
    email = web.user(Role.OPERATOR)

    done = web.client().post("/login", data={"email": email, "password": PASSWORD, "next": target})

    assert (done.status_code, done.headers["location"]) == (303, "/")


def test_a_wrong_password_is_said_and_the_address_kept(web: Web) -> None:
    email = web.user(Role.OPERATOR)

    refused = web.client().post("/login", data={"email": email, "password": "wrong"})

    assert refused.status_code == 401
    assert 'role="alert"' in refused.text
    assert f'value="{email}"' in refused.text
    assert "wrong" not in refused.text


def test_a_session_ends_when_somebody_logs_out(browser_of: Browser) -> None:
    browser = browser_of(Role.OPERATOR)

    browser.post("/logout")
    browser.cookies.clear()

    assert browser.get("/").headers["location"] == "/login"


def test_a_form_without_its_token_or_from_elsewhere_changes_nothing(
    browser_of: Browser, furnished: Furnished, audited: Find
) -> None:
    operator = browser_of(Role.OPERATOR)
    path, data = f"/tenants/{furnished.tenant_id}/pause", {"next": "/"}

    elsewhere = operator.post(path, data=data, headers={"Origin": "https://evil.example"})
    token = operator.headers.pop("X-CSRF-Token")
    without = operator.post(path, data=data)
    forged = operator.post(path, data={**data, "csrf_token": token[::-1]})

    assert {elsewhere.status_code, without.status_code, forged.status_code} == {403}
    assert audited("tenant.pause") == []


def test_a_tenant_is_paused_with_a_reason_and_resumed(browser_of: Browser, furnished: Furnished, audited: Find) -> None:
    admin, path = browser_of(Role.ADMIN), f"/tenants/{furnished.tenant_id}"

    paused = admin.post(f"{path}/pause", data={"next": path, "reason": "moving house"})
    page = admin.get(path).text
    again = admin.get(path).text
    admin.post(f"{path}/resume", data={"next": path})

    assert (paused.status_code, paused.headers["location"]) == (303, path)
    assert "The tenant is paused" in page
    assert "moving house" in page
    assert "No run of it writes any more" not in again
    assert [row["details"] for row in audited("tenant.pause")] == [{"reason": "moving house"}]
    assert str(audited("tenant.resume")[0]["actor"]).startswith("user:")


def test_a_member_looks_and_answers_and_steers_no_tenant(browser_of: Browser, furnished: Furnished) -> None:
    member = browser_of(Role.MEMBER)

    assert member.post(f"/tenants/{furnished.tenant_id}/pause", data={"next": "/"}).status_code == 404
    assert "/pause" not in member.get(f"/tenants/{furnished.tenant_id}").text


def test_a_share_is_set_by_operators_alone_and_refused_out_of_range(
    browser_of: Browser, furnished: Furnished, audited: Find
) -> None:
    path = f"/tenants/{furnished.tenant_id}/share"
    operator = browser_of(Role.OPERATOR)
    given = [("2.5", "7"), ("nan", "7"), ("101", ""), ("", ""), ("x", "1"), ("1", "1e3"), ("1e-300", "")]

    answers = [operator.post(path, data={"next": "/", "weight": w, "concurrency": c}) for w, c in given]

    assert {answer.status_code for answer in answers} == {303}
    assert [row["details"] for row in audited("tenant.set")] == [{"weight": 2.5, "concurrency": 7}]
    assert browser_of(Role.ADMIN).post(path, data={"next": "/", "weight": "9"}).status_code == 404


def test_a_sync_can_be_wanted(browser_of: Browser, furnished: Furnished) -> None:
    admin, path = browser_of(Role.ADMIN), f"/tenants/{furnished.tenant_id}"

    admin.post(f"{path}/sync", data={"next": path})

    assert "1 calendars are due now" in admin.get(path).text


def test_a_question_is_answered_once(browser_of: Browser, furnished: Furnished, audited: Find) -> None:
    member = browser_of(Role.MEMBER)
    path = f"/processes/{furnished.asking}/questions/{furnished.question}"

    nothing = member.post(path, data={})
    wrong = member.post(path, data={"choice": "99"})
    right = member.post(path, data={"choice": "0"})
    late = member.post(path, data={"choice": "1"})

    assert (nothing.status_code, wrong.status_code) == (422, 422)
    assert "choose" in wrong.text
    assert right.headers["location"] == late.headers["location"] == f"/processes/{furnished.asking}"
    assert "Somebody answered before you" in member.get(f"/processes/{furnished.asking}").text
    assert len(audited("process.answer")) == 1


def test_a_process_is_paused_resumed_and_cancelled(browser_of: Browser, furnished: Furnished) -> None:
    member, path = browser_of(Role.MEMBER), f"/processes/{furnished.asking}"

    told = []
    for wish in ("pause", "resume", "cancel", "cancel"):
        member.post(f"{path}/{wish}", data={"next": path})
        told.append(re.findall(r'class="flash \w+".*?<span>(.*?)</span>', member.get(path).text)[0])

    assert told[:3] == ["The process pauses.", "The process goes on.", "The process ends."]
    assert "moved on meanwhile" in told[3]
    assert member.post(f"{path}/explode", data={"next": path}).status_code == 404


def test_parked_work_is_retried_and_dropped(browser_of: Browser, furnished: Furnished, audited: Find) -> None:
    admin, unit = browser_of(Role.ADMIN), f"/parked/units/{furnished.parked_unit}"
    row = {
        "next": "/parked", "tenant": str(furnished.tenant_id), "entity": "events", "row": str(furnished.refused_row),
    }  # fmt: skip

    dropped = admin.post(f"{unit}/drop", data={"next": "/parked"})
    page = admin.get("/parked").text
    admin.post(f"{unit}/retry", data={"next": "/parked"})
    twice = admin.post(f"{unit}/retry", data={"next": "/parked"})
    admin.post("/parked/rows/drop", data=row)
    empty = admin.get("/parked").text

    assert dropped.status_code == 303
    assert "by hand only" in page
    assert twice.status_code == 303
    assert "No unit is parked" in empty
    assert "Supabase has refused nothing" in empty
    assert [entry["details"]["rows"] for entry in audited("parked.drop")] == [0, 1]  # type: ignore[index]
    assert admin.post("/parked/all-rows/drop", data={"next": "/"}).status_code == 404


def test_people_are_added_kept_out_and_let_in_again(web: Web, browser_of: Browser, furnished: Furnished) -> None:
    admin = browser_of(Role.ADMIN)
    new = {"email": "new@example.test", "name": HOSTILE[:90], "role": "member", "password": "a fine long password"}

    weak = admin.post("/people", data={**new, "password": "short"})
    greedy = admin.post("/people", data={**new, "role": "operator"})
    added = admin.post("/people", data=new)
    user = re.findall(r'action="/people/([0-9a-f-]+)/disable"', admin.get("/people").text)[0]
    admin.post(f"/people/{user}/disable", data={"next": "/people"})
    kept_out = web.client().post("/login", data={"email": new["email"], "password": new["password"]})
    admin.post(f"/people/{user}/enable", data={"next": "/people"})
    let_in = web.client().post("/login", data={"email": new["email"], "password": new["password"]})

    assert (weak.status_code, greedy.status_code, added.status_code) == (422, 422, 303)
    assert new["password"] not in weak.text
    assert (kept_out.status_code, let_in.status_code) == (401, 303)


def test_language_and_theme_are_remembered(web: Web, furnished: Furnished) -> None:
    browser = web.browser(Role.MEMBER, tenant_id=furnished.tenant_id)
    path = f"/tenants/{furnished.tenant_id}"

    browser.post("/preferences", data={"next": path, "language": "ja"})
    browser.post("/preferences", data={"next": path, "theme": "dark"})
    browser.post("/preferences", data={"next": path, "theme": "plaid", "language": "tlh"})
    page = browser.get(path).text

    assert '<html lang="ja" data-theme="dark">' in page
    assert browser.get("/api/v1/auth/me").json()["language"] == "ja"


def test_a_stranger_reads_in_the_browsers_language(web: Web) -> None:
    page = web.client(headers={"Accept-Language": "ja,en;q=0.4"}).get("/login").text

    assert 'lang="ja"' in page
    assert "ログイン" in page


@pytest.mark.parametrize(
    "cursor",
    ["AA", "bm90aGluZw", "x" * 150, "bmFuCjAxYTFmZjliLTg4OWEtNzVjNy05MzM2LTA2YTBmNDViNDk1MQph", "....", "%00"],
)
def test_a_cursor_that_no_list_gave_out_is_refused_kindly(browser_of: Browser, cursor: str) -> None:
    operator = browser_of(Role.OPERATOR)

    for path in ("/tenants", "/runs", "/processes", "/parked", "/people", "/audit"):
        assert operator.get(f"{path}?cursor={cursor}").status_code in (200, 422)


def test_pages_go_on_where_the_one_before_ended(web: Web) -> None:
    names = sorted(f"pages-{number:03}" for number in range(112))
    for name in names:
        web.tenant(name)
    operator = web.browser(Role.OPERATOR)

    for sort in ("name", "newest", "trouble", "stalest"):
        found, path = [], f"/tenants?q=pages-&sort={sort}"
        while path:
            page = operator.get(path).text
            found += re.findall(r'class="main" href="/tenants/[^"]+">(pages-\d+)<', page)
            onward = re.findall(r'rel="next" href="([^"]+)"', page)
            path = onward[0].replace("&amp;", "&") if onward else ""
        assert sorted(found) == names


def test_a_search_takes_its_signs_literally(web: Web) -> None:
    web.tenant("50% off")
    web.tenant("500 off")
    operator = web.browser(Role.OPERATOR)

    page = operator.get("/tenants", params={"q": "50%"}).text

    assert "50% off" in page
    assert "500 off" not in page


def test_files_are_kept_for_ever_under_their_hash_and_pages_never(web: Web) -> None:
    client = web.client()
    page = client.get("/login")
    style = re.findall(r'href="(/static/app\.css\?v=[0-9a-f]+)"', page.text)[0]

    answer = client.get(style)

    assert "immutable" in answer.headers["cache-control"]
    assert client.get("/static/app.css").headers["cache-control"] == "public, max-age=300"
    assert client.get(style, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert page.headers["cache-control"] == "no-store"
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/texts/en.toml", "/static/"):
        assert client.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/nothing-here", "/tenants/nobody", "/static", "/healthz/x"])
def test_what_is_not_there_is_a_page_to_people_and_a_document_to_programs(web: Web, path: str) -> None:
    operator = web.browser(Role.OPERATOR)

    page = operator.get(path, headers={"Accept": "text/html,*/*"})
    document = web.client().get("/api/v1/nothing", headers={"Accept": "text/html,*/*"})

    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "There is nothing here" in page.text
    assert document.headers["content-type"] == "application/problem+json"


def test_a_page_comes_in_gzip_to_those_who_take_it(web: Web) -> None:
    client = web.client()

    packed = client.get("/login", headers={"Accept-Encoding": "gzip"})
    plain = client.get("/login", headers={"Accept-Encoding": "identity"})

    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.text == plain.text


def test_a_message_of_nobodys_is_not_shown(browser_of: Browser) -> None:
    operator = browser_of(Role.OPERATOR)

    for kept in ("zz", b'["good","flash.synced",{}]'.hex(), b"[1]".hex(), b'["good","no.such",{}]'.hex(), "ff"):
        operator.cookies.set("tenantsync-flash", kept)
        answer = operator.get("/tenants")
        assert answer.status_code == 200
        assert 'class="flash' not in answer.text
