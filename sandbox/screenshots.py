"""`make screenshots`: every page, light and dark, wide and phone, over a database that looks like one at work.

All of them go to .cache/screenshots; the few that the documents show go to docs/screenshots besides, in fewer colours.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from sqlalchemy import text

from config.settings import Settings, load_settings
from db import partitions, schema
from db.ids import new_id
from db.session import Database
from sandbox import showroom
from sandbox.servers.chromium import FLAGS, find_chromium, fonts
from sandbox.servers.debian import NotFetched
from sandbox.servers.ports import free_port
from sandbox.servers.postgres import Postgres
from tenantsync.identity import people
from tenantsync.identity.roles import Role
from tenantsync.web import serving

ALL = Path(__file__).parents[1] / ".cache" / "screenshots"
BEST = Path(__file__).parents[1] / "docs" / "screenshots"
PASSWORD = "correct horse battery staple"
TENANTS = 64
DAYS = 8
WIDE = {"width": 1360, "height": 860}
PHONE = {"width": 360, "height": 760}
SECRETS = {
    "secret_key": "screenshots-0123456789-abcdefghijklmnopqrstuvwxyz",
    "encryption_keys": "1:" + "a2" * 21 + "s=",
}


@dataclass(frozen=True, slots=True)
class Shot:
    """A page to be photographed. `best`: the name under which the documents show it."""

    name: str
    path: str
    theme: str = "light"
    size: str = "wide"
    language: str = "en"
    best: str | None = None
    whole: bool = True


@contextmanager
def showing() -> Iterator[tuple[str, dict[str, str]]]:
    """A web server over a filled database: its address, and paths by name."""
    with Postgres() as postgres:
        postgres.create_database("showroom")
        url = postgres.url("showroom")
        schema.upgrade(url)
        settings = _settings(url)
        database = Database(url, pool_size=2, name="showroom")
        with database.transaction() as connection:
            partitions.ensure_ahead(connection, now=datetime.now(UTC))
        showroom.fill(database, tenants=TENANTS, days=DAYS)
        paths = _people_and_processes(database)
        pool = serving.open_pool(settings)
        port = free_port()
        server = serving.server_for(settings, pool, host="127.0.0.1", port=port)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        alive = threading.Event()
        beats = threading.Thread(target=_beat, args=(database, alive), daemon=True)
        beats.start()
        try:
            while not server.started:
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}", paths
        finally:
            alive.set()
            beats.join()
            server.should_exit = True
            thread.join(15)
            pool.close()
            database.close()


def _beat(database: Database, stop: threading.Event) -> None:
    while not stop.wait(1.0):
        showroom.keep_alive(database)


def _settings(url: str) -> Settings:
    return load_settings(
        _env_file=None,
        database_url=url,
        redis_url="redis://127.0.0.1:1/0",
        supabase_url="http://127.0.0.1:1",
        supabase_secret_key="sb_secret_showroom",
        flower_url="http://127.0.0.1:5555/",
        **SECRETS,
    )


def _people_and_processes(database: Database) -> dict[str, str]:
    with database.transaction() as connection:
        tenant_id, workspace_id = connection.execute(
            text(
                "select u.tenant_id, u.unit_id from sync.units u join sync.tenants t on t.tenant_id = u.tenant_id"
                " where not t.paused and u.state = 'idle' and t.name ~ '^[A-Z][a-z]+ Clinic$' order by t.name limit 1"
            )
        ).one()
        hashed = people.hashed(PASSWORD, email="operator@example.com")
        for role, email, name, owner in (
            (Role.OPERATOR, "operator@example.com", "Operator", None),
            (Role.ADMIN, "kim@example.com", "Kim", tenant_id),
            (Role.MEMBER, "sora@example.com", "Sora", tenant_id),
        ):
            wish = people.checked(email=email, name=name, role=role, language="en")
            people.add(connection, wish, tenant_id=owner, password_hash=hashed, by="cli:operator")
        run_id = connection.execute(
            text(
                "select id from worker.tasks where kind = 'sync.unit' and status = 'completed' order by id desc limit 1"
            )
        ).scalar_one()
    made = showroom.show_processes(database, tenant_id=tenant_id, workspace_id=workspace_id)
    paths = {f"process-{name}": f"/processes/{process}" for name, process in made.items()}
    return {**paths, "tenant": f"/tenants/{tenant_id}", "why": f"/tenants/{tenant_id}/why", "run": f"/runs/{run_id}"}


def shots(paths: dict[str, str]) -> Iterator[Shot]:
    """Everything that is photographed."""
    plain = {
        "overview": "/?span=24h", "tenants": "/tenants?sort=trouble", "tenant": paths["tenant"], "why": paths["why"],
        "runs": "/runs", "run": paths["run"], "processes": "/processes", "process-asking": paths["process-asking"],
        "process-running": paths["process-running"], "process-done": paths["process-done"], "tasks": "/tasks",
        "parked": "/parked", "schedules": "/schedules", "mirror": "/mirror", "people": "/people", "audit": "/audit",
        "login": "/login", "problem": f"/tenants/{new_id()}",
    }  # fmt: skip
    for name, path in plain.items():
        for theme in ("light", "dark"):
            for size in ("wide", "phone"):
                yield Shot(name, path, theme, size)
    for name in ("overview", "tenants", "process-asking", "login"):
        yield Shot(name, plain[name], "light", "wide", "ja")
        yield Shot(name, plain[name], "dark", "phone", "ja")
    yield Shot("overview", plain["overview"], best="overview-light", whole=False)
    yield Shot("overview", plain["overview"], "dark", best="overview-dark", whole=False)
    yield Shot("process-asking", plain["process-asking"], best="process", whole=False)
    yield Shot("overview", plain["overview"], "dark", "phone", "ja", best="overview-phone-ja", whole=False)


def _context(browser: Browser, shot: Shot) -> BrowserContext:
    size = WIDE if shot.size == "wide" else PHONE
    return browser.new_context(
        viewport={"width": size["width"], "height": size["height"]},
        device_scale_factor=1 if shot.size == "wide" else 1.5 if shot.best else 2,
        color_scheme="dark" if shot.theme == "dark" else "light",
        locale="ja-JP" if shot.language == "ja" else "en-GB",
        timezone_id="UTC",
        reduced_motion="reduce",
    )


def log_in(page: Page, base: str, email: str) -> None:
    """As a person does."""
    page.goto(f"{base}/login")
    page.fill("#email", email)
    page.fill("#password", PASSWORD)
    page.click("button.primary")
    page.wait_for_url(f"{base}/**")


def take(only: str | None) -> int:
    """Take them all, or those whose name holds `only`; returns how many."""
    chromium = find_chromium()
    letters: dict[str, str] = {}
    with suppress(NotFetched):
        letters = fonts()
    ALL.mkdir(parents=True, exist_ok=True)
    BEST.mkdir(parents=True, exist_ok=True)
    taken = 0
    with showing() as (base, paths), sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.executable, args=list(FLAGS), env={**chromium.variables(), **letters}
        )
        session: list[object] = []
        for shot in shots(paths):
            if only is not None and only not in shot.name:
                continue
            context = _context(browser, shot)
            page = context.new_page()
            if shot.name != "login":
                if not session:
                    log_in(page, base, "operator@example.com")
                    session = list(context.cookies())
                context.add_cookies(session)  # type: ignore[arg-type]
            context.add_cookies([{"name": "tenantsync-language", "value": shot.language, "url": base}])
            page.goto(f"{base}{shot.path}")
            page.wait_for_timeout(350)
            name = f"{shot.name}-{shot.theme}-{shot.size}-{shot.language}.png"
            if shot.best is None:
                page.screenshot(path=ALL / name, full_page=shot.whole)
            else:
                page.screenshot(path=BEST / f"{shot.best}.png", full_page=False)
            taken += 1
            context.close()
        browser.close()
    return taken


def main() -> int:
    count = take(sys.argv[1] if len(sys.argv) > 1 else None)
    print(f"{count} pictures in {ALL}, the best in {BEST}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
