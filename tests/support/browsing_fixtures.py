"""Chromium before the pages: one for the module, a fresh profile for each test, and axe-core."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from sandbox.servers.chromium import FLAGS, NoChromium, axe, find_chromium


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser. Where none can be had its tests are skipped; on CI that is a failure."""
    try:
        found = find_chromium()
    except NoChromium as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found.executable, args=list(FLAGS), env=dict(found.variables())
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def axe_script() -> Path:
    return axe()


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Opens a profile of its own; options as Playwright's `new_context`. No script may fail in it."""
    opened: list[BrowserContext] = []
    wrong: list[str] = []

    def make(**options: Any) -> BrowserContext:
        context = chromium.new_context(**({"reduced_motion": "reduce", "locale": "en-GB"} | options))
        context.set_default_timeout(10_000)
        context.on("weberror", lambda error: wrong.append(str(error.error)))
        opened.append(context)
        return context

    yield make
    for context in opened:
        context.close()
    assert wrong == []
