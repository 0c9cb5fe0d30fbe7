"""`make chaos`: strike the whole product for ten minutes, and prove that nothing was lost and nothing doubled.

    make chaos                              all scenarios, then everything at once
    make chaos ONLY=worker_kill,redis_flush some of them
    make chaos SEED=7                       another storm
    make chaos SOAK=90                      so many minutes; SOAK=1 goes on until Ctrl-C, then judges

The last line is one JSON object; the exit code is 0 only if every bar was held.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import sys
import time
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from sandbox.chaos import checker, judging, report
from sandbox.chaos.field import Field
from sandbox.chaos.life import Life
from sandbox.chaos.population import SMALL, Size, plant
from sandbox.chaos.recorder import Recorder
from sandbox.chaos.report import COLUMNS, Row, Summary
from sandbox.chaos.storm import MIXED, NAMES, Storm
from sandbox.chaos.world import INTERVAL, StormWorld
from sandbox.signals import Stopped, raise_on_signals
from sandbox.telling import Teller

FULL_SECONDS = 600.0
AFTERWARDS = 70.0  # seconds of a full run for the audit and fairness
LEAST_MIXED = 90.0
BASELINE = 15.0
UNTIL_STOPPED = 1  # minutes asked for that mean: until Ctrl-C
ROUND = 300.0  # seconds of `mixed` in a soak, between two looks at the whole
FIRST_SYNC = 120.0


def main() -> int:
    given = _arguments()
    raise_on_signals()
    tell = Teller()
    try:
        return Chaos(given, tell).run()
    except Stopped as stopped:
        tell.say("interrupted; everything has been stopped", style="yellow")
        return stopped.code


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help=f"some of: {', '.join(NAMES)}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="1: until Ctrl-C")
    parser.add_argument("--short", action="store_true", help="a small world, to see that it works; no result")
    parser.add_argument("--write", action="store_true", help="write a full run to benchmarks/results/chaos.json")
    given = parser.parse_args()
    given.names = [name for name in given.only.split(",") if name] or list(NAMES)
    unknown = set(given.names) - set(NAMES)
    if unknown:
        parser.error(f"no scenario is called {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return given


class Chaos:
    """One storm, from an empty folder to the verdict."""

    def __init__(self, given: argparse.Namespace, tell: Teller) -> None:
        self._given = given
        self._tell = tell
        self._began = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        self._load = os.getloadavg()[0]
        self._size = SMALL if given.short else Size()
        self._full = not given.only and not given.short

    def run(self) -> int:
        tell, given = self._tell, self._given
        tell.chapter("Starting Postgres, Valkey, Supabase, a CalDAV server, a Google stand-in and the fault proxy")
        interval = 1.5 if given.short else INTERVAL
        with StormWorld(seed=given.seed, interval=interval) as world:
            population = plant(world, self._size, seed=given.seed)
            tell.say(f"{self._size.tenants} tenants with {self._size.units} units are planted; seed {given.seed}")
            with Recorder(world) as recorder:
                world.start_fleet()
                tell.say(f"{', '.join(world.processes)} are up")
                field = Field(world, random.Random(given.seed), pace=0.5 if given.short else 1.0)
                storm = Storm(world, recorder, field, tell.say)
                if not storm.first_sync(timeout=FIRST_SYNC):
                    tell.say("the first sync is not done; the storm begins all the same", style="red")
                with Life(world, population, seed=given.seed) as life:
                    self._rage(storm)
                    excused = life.excused()
                tell.chapter("Calm: audit, ledger, budgets, fairness")
                verdict = judging.judge(world, recorder)
                summary = self._summarise(storm, recorder, verdict, excused)
                summary.edits, summary.changes = life.edits, life.changes
                if self._full:
                    world.stop_fleet()
                    judging.fairness(world, verdict)
        summary.seconds = tell.seconds
        return self._conclude(summary)

    def _rage(self, storm: Storm) -> None:
        tell, given = self._tell, self._given
        tell.chapter("A quiet baseline")
        per_unit = storm.measure_baseline(BASELINE * storm.field.pace)
        tell.say(f"{per_unit * self._size.units:.0f} unit runs a second")
        tell.chapter("The storm")
        if given.soak is not None:
            self._soak(storm)
            return
        before = [name for name in given.names if name != MIXED]
        storm.run(before, mixed_seconds=0)
        if MIXED in given.names:
            left = FULL_SECONDS - AFTERWARDS - tell.seconds
            seconds = 15.0 if given.short else max(LEAST_MIXED, left if self._full else LEAST_MIXED)
            storm.run([MIXED], mixed_seconds=seconds)

    def _soak(self, storm: Storm) -> None:
        """Scenarios and everything at once in turns, until the time is over or Ctrl-C says so."""
        minutes = self._given.soak
        ends = float("inf") if minutes == UNTIL_STOPPED else time.monotonic() + 60 * minutes

        def enough(_: int, __: FrameType | None) -> None:
            raise_on_signals()
            storm.field.stopping.set()

        signal.signal(signal.SIGINT, enough)
        singles = [name for name in self._given.names if name != MIXED]
        while time.monotonic() < ends and not storm.field.stopping.is_set():
            storm.run([MIXED], mixed_seconds=min(ROUND, ends - time.monotonic()))
            if time.monotonic() < ends and singles:
                storm.run([storm.field.rng.choice(singles)], mixed_seconds=0)
        storm.field.stopping.clear()

    def _summarise(
        self, storm: Storm, recorder: Recorder, verdict: judging.Verdict, excused: frozenset[str]
    ) -> Summary:
        history = recorder.history()
        affected = checker.affected(history, storm.field.strikes, excused=excused)
        rows: list[Row] = []
        for outcome in storm.outcomes:
            until = outcome.began + outcome.seconds + 0.001
            mine = [one for one in affected if outcome.began <= one.struck <= until]
            rows.append(Row(outcome, mine, storm.baseline * self._size.units, timed=not self._given.short))
        return Summary(
            rows=rows,
            findings=checker.check(history),
            verdict=verdict,
            runs=history.runs(0, float("inf")),
            edits=0,
            changes=0,
            seed=self._given.seed,
            seconds=self._tell.seconds,
            full=self._full,
            machine=self._machine(),
        )

    def _machine(self) -> dict[str, Any]:
        return {"cores": os.cpu_count(), "python": platform.python_version(), "load_before": round(self._load, 2)}

    def _conclude(self, summary: Summary) -> int:
        self._tell.chapter("The storm in figures")
        for line in report.aligned([COLUMNS, *(row.cells for row in summary.rows)]):
            print(line)
        print()
        for line in summary.afterwards():
            print(line)
        for line in summary.missed:
            print(f"MISSED: {line}")
        if self._given.write and self._full:
            report.write(summary, began=self._began)
        print(json.dumps(summary.as_json(), ensure_ascii=False), flush=True)
        return 1 if summary.missed else 0


if __name__ == "__main__":
    sys.exit(main())
