"""Texts: the same keys in every language, all of them used, and what was put under static is what it says it is."""

import hashlib
import re
import string
from pathlib import Path

import pytest

from tenantsync.identity.people import LANGUAGES
from tenantsync.web.pages import assets
from tenantsync.web.pages.texts import FOLDER, load, speaker, wanted
from tests.architecture.sources import CHECKOUT

WEB = CHECKOUT / "tenantsync" / "web"
SOURCES = [*(WEB / "templates").glob("*.html"), *(WEB / "pages").glob("*.py")]
VENDORED = {
    "vendor/uPlot-1.6.32.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "vendor/uPlot-1.6.32.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
"""As npm's package uplot 1.6.32 has them."""


def everything() -> str:
    return "\n".join(path.read_text() for path in SOURCES)


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_there_is_a_file_for_every_language_and_no_other() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == set(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_the_same_keys_with_the_same_places_for_values(language: str) -> None:
    ours, english = load(language), load("en")

    assert set(ours) == set(english)
    assert {key: fields(text) for key, text in ours.items()} == {key: fields(text) for key, text in english.items()}
    assert [key for key, text in ours.items() if not text.strip()] == []


def test_no_text_is_left_unused() -> None:
    source = everything()
    named = set(re.findall(r"[\"']([a-z0-9_]+(?:\.[A-Za-z0-9_-]+)+)[\"']", source))
    begun = set(re.findall(r"[\"']([a-z]+(?:\.[a-z_]+)*[._])[\"'] ?~", source))
    begun |= {f"{group}." for group in re.findall(r"\.(?:word|group|count)\(\s*[\"']([a-z_.]+)[\"']", source)}

    unused = [key for key in load("en") if key not in named and not any(key.startswith(one) for one in begun)]

    assert [key for key in unused if not key.startswith("time.")] == []


def test_every_text_that_pages_ask_for_is_there() -> None:
    asked = set(re.findall(r"\bt\([\"']([a-z0-9_.]+)[\"'][,)]", everything()))

    assert len(asked) > 200
    assert asked - set(load("en")) == set()


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("ja", "ja"),
        ("ja-JP,en;q=0.5", "ja"),
        ("de-DE, ja;q=0.2", "ja"),
        ("en;q=0.3, ja;q=0.2", "en"),
        ("fr, de;q=0.9", "en"),
        ("ja;q=x, en", "en"),
        ("", "en"),
        (None, "en"),
        ("," * 5000, "en"),
    ],
)
def test_the_browsers_first_language_of_ours_is_taken(header: str | None, language: str) -> None:
    assert wanted(header) == language


@pytest.mark.parametrize(
    ("seconds", "said"), [(None, "never"), (-3.0, "0 s"), (59.4, "59 s"), (180.0, "3 min"), (90_000.0, "25 h")]
)
def test_a_duration_is_told_in_the_largest_unit_of_which_there_are_two(seconds: float | None, said: str) -> None:
    assert speaker("en").ago(seconds) == said


def test_a_word_that_nobody_knows_stands_for_itself() -> None:
    assert speaker("ja").word("kind", "orders.export") == "orders.export"


@pytest.mark.parametrize(("name", "digest"), VENDORED.items())
def test_what_others_wrote_is_as_they_published_it(name: str, digest: str) -> None:
    assert hashlib.sha256((assets.FOLDER / name).read_bytes()).hexdigest() == digest
    assert "Copyright" in (assets.FOLDER / "vendor" / "uPlot-LICENSE.txt").read_text()


@pytest.mark.parametrize("path", sorted((assets.FOLDER / "client").glob("*.js")), ids=lambda path: path.name)
def test_the_pages_follow_processes_with_the_client_that_others_get(path: Path) -> None:
    assert path.read_bytes() == (CHECKOUT / "clients" / "typescript" / "dist" / path.name).read_bytes()


@pytest.mark.parametrize("path", sorted((WEB / "templates").glob("*.html")), ids=lambda path: path.name)
def test_no_page_holds_a_script_a_style_or_an_address_of_somebody_else(path: Path) -> None:
    text = path.read_text()

    assert re.findall(r"\son[a-z]+=|\sstyle=|<style|javascript:", text) == []
    assert re.findall(r"<script(?![^>]*(?:src=|application/json))", text) == []
    assert re.findall(r"(?:src|href)=\"(?:https?:)?//", text) == []
    assert re.findall(r"\|\s*safe\b", text) == ([] if path.name != "macros.html" else ["| safe"])
