"""Figures, their targets and their verdicts; the table is made from the JSON and from nothing else."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

LATEST = Path(__file__).parent / "results" / "latest.json"
CHECK = Path(__file__).parent / "results" / "check.tmp"
"""Where runs go that are quick or partial: they are no results, and git ignores them."""

Sense = Literal["at least", "at most"]


@dataclass(frozen=True, slots=True)
class Figure:
    """Something measured. With a target it has a verdict."""

    bench: str
    what: str
    value: float
    unit: str
    sense: Sense | None = None
    target: float | None = None

    @property
    def met(self) -> bool | None:
        if self.sense is None or self.target is None:
            return None
        return self.value >= self.target if self.sense == "at least" else self.value <= self.target

    @property
    def verdict(self) -> str:
        if self.met is None or self.target is None:
            return ""
        if self.met:
            return "met"
        return f"missed by {abs(self.value - self.target) / self.target:.0%}"


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write the results; a run that is cut short leaves the old ones whole."""
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_suffix(".unfinished.tmp")
    unfinished.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    unfinished.replace(path)


def publish(document: Mapping[str, Any]) -> None:
    """Write the results of a full run, and the table made from them."""
    write(LATEST, document)
    LATEST.with_suffix(".md").write_text("# Results of the last full run\n\n" + "\n".join(table(document)) + "\n")


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def as_json(figure: Figure) -> dict[str, Any]:
    return asdict(figure) | {"verdict": figure.verdict}


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """The results as Markdown."""
    machine = document["machine"]
    yield (
        f"{document['began']}, commit {machine['commit']}: {machine['cores']} cores ({machine['processor']}), "
        f"Python {machine['python']}, PostgreSQL {machine['postgres']}, load before {machine['load_before']}"
        + (" — a quick run, no result" if document["quick"] else "")
    )
    yield ""
    yield "| benchmark | figure | measured | target | verdict |"
    yield "|---|---|---|---|---|"
    for line in document["figures"]:
        goal = f"{line['sense']} {_number(line['target'])} {line['unit']}" if line["target"] is not None else ""
        measured = f"{_number(line['value'])} {line['unit']}"
        yield f"| {line['bench']} | {line['what']} | {measured} | {goal} | {line['verdict']} |"


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
