"""The storm's figures against their bars: a row for each scenario, one JSON object for the whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.chaos import commands
from sandbox.chaos.checker import Affected, Findings, percentile
from sandbox.chaos.judging import Verdict
from sandbox.chaos.storm import ENOUGH, WITHIN, Outcome

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
RECOVERY_BAR = 10.0  # seconds at the 99th percentile
JAIN_BAR = 0.99
WAIT_BAR = 2.0  # times the wait in an empty house
RUNS_BAR, FAULTS_BAR = 10_000, 200
COLUMNS = ("scenario", "faults", "affected", "p50 s", "p99 s", "max s", "before /s", "during", "after", "verdict")
CLOCKS = (
    "Recovery is counted over the units in flight when a fault struck that did not come through it, from the strike "
    "until the unit runs again; after an outage of a server or of the network, from the moment at which it is back."
)


@dataclass(slots=True)
class Row:
    """One scenario's line."""

    outcome: Outcome
    affected: list[Affected]
    before: float
    """Runs a second in the quiet baseline."""
    timed: bool
    """Whether the bars apply that are about time; a small world on a busy machine says nothing of it."""

    @property
    def waits(self) -> list[float]:
        return [one.waited for one in self.affected if one.waited is not None]

    @property
    def missed(self) -> list[str]:
        """The bars that this scenario missed."""
        name, found = self.outcome.name, []
        if self.outcome.not_run is not None:
            return []
        late = percentile(self.waits, 0.99)
        if self.timed and late is not None and late > RECOVERY_BAR:
            found.append(f"{name}: recovery p99 {late:.1f} s, at most {RECOVERY_BAR:g} s allowed")
        lost = [one.unit for one in self.affected if one.again is None]
        if lost:
            found.append(f"{name}: {len(lost)} units never ran again, such as {lost[0]}")
        if not self.timed or self.outcome.cut_short:
            return found
        if self.outcome.back_s is None or self.outcome.back_s > WITHIN:
            found.append(
                f"{name}: throughput was {self.outcome.after_pct} % of the baseline {WITHIN:g} s after the fault, "
                f"{100 * ENOUGH:g} % wanted"
            )
        for command, took in self.outcome.notes.get("commands", {}).items():
            if took["above_s"] > commands.ALLOWED:
                found.append(f"{name}: `{command}` took {took['above_s']} s more than a plain start")
        return found

    @property
    def cells(self) -> tuple[str, ...]:
        verdict = f"not run: {self.outcome.not_run}" if self.outcome.not_run else ("missed" if self.missed else "held")
        waits = [percentile(self.waits, share) for share in (0.5, 0.99, 1.0)]
        shares = (self.outcome.during_pct, self.outcome.after_pct)
        return (
            self.outcome.name,
            str(self.outcome.faults),
            str(len(self.affected)),
            *("–" if wait is None else f"{wait:.1f}" for wait in waits),
            f"{self.before:.0f}",
            *("–" if share is None else f"{share:.0f} %" for share in shares),
            verdict,
        )

    def as_json(self) -> dict[str, Any]:
        p50, p99, most = (percentile(self.waits, share) for share in (0.5, 0.99, 1.0))
        return {
            "faults": self.outcome.faults,
            "affected": len(self.affected),
            "recovery_p50_s": _rounded(p50),
            "recovery_p99_s": _rounded(p99),
            "recovery_max_s": _rounded(most),
            "throughput_during_pct": self.outcome.during_pct,
            "throughput_after_pct": self.outcome.after_pct,
            "back_after_s": self.outcome.back_s,
            "calm_after_s": self.outcome.calm_s,
            "seconds": self.outcome.seconds,
            "not_run": self.outcome.not_run,
            "missed": self.missed,
            "notes": self.outcome.notes,
            "log_events": self.outcome.log_events,
        }


@dataclass(slots=True)
class Summary:
    """Everything that is said at the end."""

    rows: list[Row]
    findings: Findings
    verdict: Verdict
    runs: int
    edits: int
    changes: int
    seed: int
    seconds: float
    full: bool
    """Whether the bars that only a full run can reach apply."""
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def faults(self) -> int:
        return sum(row.outcome.faults for row in self.rows)

    @property
    def waits(self) -> list[float]:
        return [wait for row in self.rows for wait in row.waits]

    @property
    def never(self) -> list[str]:
        return [one.unit for row in self.rows for one in row.affected if one.again is None]

    @property
    def lost(self) -> int:
        """Units not run again, rows that differ, occurrences that are missing, units stuck, rows not mirrored."""
        verdict = self.verdict
        return (
            len(self.never)
            + verdict.drift
            + len(verdict.stuck)
            + sum(verdict.parked_rows.values())
            + verdict.occurrences_missing
        )

    @property
    def doubled(self) -> int:
        return self.findings.count + sum(self.verdict.doubled.values())

    @property
    def missed(self) -> list[str]:
        """Every bar that was missed, in words."""
        return [*self._losses(), *(line for row in self.rows for line in row.missed), *self._bars()]

    def _losses(self) -> Iterator[str]:
        verdict = self.verdict
        if verdict.drift:
            yield f"drift {verdict.drift}: provider, Postgres and Supabase differ"
        yield from (f"not in step: {line}" for line in verdict.unproven[:10])
        yield from (f"stuck: {line}" for line in verdict.stuck[:10])
        if verdict.parked_rows:
            yield f"rows that Supabase lacks, parked by SQLSTATE or status: {verdict.parked_rows}"
        if verdict.settled_s is None:
            yield "after the storm not every calendar was synced and sent once more"
        if verdict.occurrences_missing:
            yield f"the ledger does not close: {verdict.accounting}"
        yield from self.findings.sentences[:10]
        yield from (f"doubled: {count} {what}" for what, count in verdict.doubled.items() if count)
        if verdict.budgets.get("over"):
            yield f"over budget: {', '.join(verdict.budgets['over'][:5])} ({verdict.budgets})"

    def _bars(self) -> Iterator[str]:
        late = percentile(self.waits, 0.99)
        if any(row.timed for row in self.rows) and late is not None and late > RECOVERY_BAR:
            yield f"recovery p99 over all scenarios {late:.1f} s, at most {RECOVERY_BAR:g} s allowed"
        if not self.full:
            return
        if self.runs < RUNS_BAR:
            yield f"only {self.runs} unit runs, {RUNS_BAR} wanted"
        if self.faults < FAULTS_BAR:
            yield f"only {self.faults} faults, {FAULTS_BAR} wanted"
        fairness = self.verdict.fairness
        if fairness is not None and fairness["jain"] < JAIN_BAR:
            yield f"Jain's index {fairness['jain']}, {JAIN_BAR} wanted"
        if fairness is not None and fairness["ratio"] > WAIT_BAR:
            yield f"a quiet tenant waits {fairness['ratio']} times as long beside a flood, {WAIT_BAR:g} allowed"

    def as_json(self) -> dict[str, Any]:
        p99 = percentile(self.waits, 0.99)
        return {
            "ok": not self.missed,
            "lost": self.lost,
            "doubled": self.doubled,
            "faults": self.faults,
            "runs": self.runs,
            "recovery_p50_s": _rounded(percentile(self.waits, 0.5)),
            "recovery_p99_s": _rounded(p99),
            "affected": sum(len(row.affected) for row in self.rows),
            "jain": (self.verdict.fairness or {}).get("jain"),
            "drift": self.verdict.drift,
            "edits": self.edits,
            "comings_and_goings": self.changes,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "missed": self.missed,
            "scenarios": {row.outcome.name: row.as_json() for row in self.rows},
            "after": self.verdict.as_json(),
            "machine": self.machine,
        }

    def table(self) -> Iterator[str]:
        """The scenarios as a Markdown table."""
        yield "| " + " | ".join(COLUMNS) + " |"
        yield "|" + "---|" * len(COLUMNS)
        for row in self.rows:
            yield "| " + " | ".join(row.cells) + " |"

    def afterwards(self) -> Iterator[str]:
        """What was found after the storm, line by line."""
        verdict = self.verdict
        yield CLOCKS
        yield (
            f"{self.runs} unit runs, {self.faults} faults, {self.edits} edits, {self.changes} comings and goings in "
            f"{self.seconds:.0f} s with seed {self.seed}; lost {self.lost}, doubled {self.doubled}"
        )
        yield f"audit: drift {verdict.drift}; {_said(verdict.audit)}"
        yield f"ledger: {verdict.accounting}"
        yield f"budgets, fullest minute: {_said(verdict.budgets)}"
        yield f"fairness: {_said(verdict.fairness) if verdict.fairness else verdict.fairness_note or 'not measured'}"


def write(summary: Summary, *, began: str) -> None:
    """Put the results beside those of the benchmarks."""
    RESULTS.mkdir(exist_ok=True)
    document = {"began": began, **summary.as_json()}
    (RESULTS / "chaos.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    lines = ["# Results of the last `make chaos`", "", f"{began}: {_said(summary.machine)}", "", *summary.table(), ""]
    lines += [f"- {line}" for line in (*summary.afterwards(), *(f"MISSED: {one}" for one in summary.missed))]
    (RESULTS / "chaos.md").write_text("\n".join(lines) + "\n")


def _said(facts: Mapping[str, Any]) -> str:
    """Facts in a line."""
    return ", ".join(f"{name.replace('_', ' ')} {value if value != [] else 'none'}" for name, value in facts.items())


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows with their columns under each other."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
