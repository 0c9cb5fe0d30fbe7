"""Every scenario has its page in docs/operations, and every page its scenario."""

import re
from pathlib import Path

import pytest

from sandbox.chaos.storm import NAMES

PAGES = Path(__file__).resolve().parents[2] / "docs" / "operations"
PARTS = ("## What one sees", "## What it means", "## What to do")


def test_scenarios_and_pages_are_the_same() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} - {"README"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_says_what_one_sees_what_it_means_and_what_to_do(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text()

    assert [part for part in PARTS if part not in page] == []
    assert f"`make chaos ONLY={name}`" in page


def test_the_index_leads_to_every_page() -> None:
    index = (PAGES / "README.md").read_text()

    assert set(re.findall(r"\]\((\w+)\.md\)", index)) == set(NAMES)
