"""Every text that people read on pages, in each language, from `texts/*.toml`."""

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tenantsync.identity.people import LANGUAGES

FOLDER = Path(__file__).parents[1] / "texts"
USUAL = "en"
NAMES = {"en": "English", "ja": "日本語"}


@cache
def load(language: str) -> Mapping[str, str]:
    """The texts of a language by their dotted keys."""
    with (FOLDER / f"{language}.toml").open("rb") as file:
        return dict(_flat(tomllib.load(file), ""))


def _flat(table: Mapping[str, Any], before: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{before}{key}.")
        else:
            found.append((f"{before}{key}", str(value)))
    return found


class Speaker:
    """Says texts in one language: `t("nav.tenants")`, `t("time.seconds", n=3)`."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._texts = load(language)

    def __call__(self, key: str, **values: object) -> str:
        said = self._texts[key]
        return said.format(**values) if values else said

    def word(self, group: str, name: object) -> str:
        """The word for a state or a kind; the name itself where we have none, as a project may add its own."""
        return self._texts.get(f"{group}.{name}", str(name))

    def group(self, name: str) -> dict[str, str]:
        """All words of a group, for scripts."""
        return {key.removeprefix(f"{name}."): said for key, said in self._texts.items() if key.startswith(f"{name}.")}

    def count(self, key: str, n: int) -> str:
        """A text for so many: `key.one` or `key.many`."""
        return self(f"{key}.one" if n == 1 else f"{key}.many", n=f"{n:,}")

    def ago(self, seconds: float | None) -> str:
        """How long ago, or how long: the largest unit of which there are two."""
        if seconds is None:
            return self("time.never")
        seconds = max(0.0, seconds)
        for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
            if seconds >= size * 2:
                return self(f"time.{unit}", n=f"{seconds / size:.0f}")
        return self("time.seconds", n=f"{seconds:.0f}")


@cache
def speaker(language: str) -> Speaker:
    """The one that speaks this language."""
    return Speaker(language)


def wanted(header: str | None, known: Sequence[str] = LANGUAGES) -> str:
    """The language of ours that a browser's Accept-Language puts first."""
    best, most = USUAL, 0.0
    for part in (header or "").split(",")[:20]:
        name, _, quality = part.strip().partition(";")
        language = name.strip().lower().partition("-")[0]
        try:
            weight = float(quality.strip().removeprefix("q=")) if quality else 1.0
        except ValueError:
            continue
        if language in known and weight > most:
            best, most = language, weight
    return best
