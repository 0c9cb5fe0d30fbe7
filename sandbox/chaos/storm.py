"""The storm itself: a quiet baseline, one scenario after the other, everything at once, and calm."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg2

from sandbox.chaos import processes, servers
from sandbox.chaos.field import Field, NotRun, Scenario
from sandbox.chaos.mixed import mixed
from sandbox.chaos.recorder import Recorder
from sandbox.chaos.world import BEATS, WORKERS, StormWorld

SCENARIOS: dict[str, Scenario] = {one.__name__: one for one in (*processes.SCENARIOS, *servers.SCENARIOS)}
MIXED = "mixed"
NAMES = (*SCENARIOS, MIXED)

CALM = 40.0  # seconds within which everything has to be in order again
WITHIN = 30.0  # seconds after a fault within which throughput has to be back
SPAN = 6.0  # seconds over which throughput is measured
ENOUGH = 0.95  # of the baseline
UNEASY = """
select (select count(*) from sync.units u join sync.tenants t using (tenant_id)
         where not t.paused and u.state <> 'parked' and (
               u.state = 'idle' and u.next_due_at < now() - interval '3 s'
            or u.state <> 'idle' and u.lease_until < now() - interval '1 s'))
     + (select count(*) from sync.units where lane = 'quarantine' and state <> 'parked')
"""
UNSYNCED = "select count(*) from sync.calendars where state = 'new'"
VARIES = re.compile(
    r"\[[0-9a-f]{8}-[0-9a-f-]{27}\]|\S*127\.0\.0\.1:\d+\S*|pid:\d+|ForkPoolWorker-\d+|\S*/site-packages/"
)
LOUD = ("warning", "error", "critical", "exception")


@dataclass(slots=True)
class Outcome:
    """What one scenario did to throughput; what it did to units is read from the history later."""

    name: str
    began: float
    seconds: float = 0.0
    faults: int = 0
    not_run: str | None = None
    baseline: float = 0.0
    """Runs a second and polled unit, before anything happened."""
    during_pct: float | None = None
    after_pct: float | None = None
    back_s: float | None = None
    """Seconds after the fault at which throughput had been back for a whole span."""
    calm_s: float | None = None
    cut_short: bool = False
    """Whether the storm was told to end while this was under way."""
    log_events: dict[str, int] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


class Logs:
    """Warnings and errors that the processes have logged since the last look, by the event's name."""

    def __init__(self, world: StormWorld) -> None:
        self._files = {name: world.folder / f"{name}.log" for name in (*WORKERS, *BEATS)}
        self._read = dict.fromkeys(self._files, 0)

    def events(self) -> dict[str, int]:
        counted: Counter[str] = Counter()
        for name, path in self._files.items():
            with suppress(OSError), path.open("rb") as log:
                log.seek(self._read[name])
                for line in log:
                    self._count(line, counted)
                self._read[name] = log.tell()
        return dict(counted.most_common(12))

    @staticmethod
    def _count(line: bytes, counted: Counter[str]) -> None:
        with suppress(ValueError, AttributeError):
            entry = json.loads(line)
            if str(entry.get("level", "")).lower() in LOUD:
                counted[VARIES.sub("…", str(entry.get("event", "")).splitlines()[0])[:90]] += 1


class Storm:
    """Runs scenarios on a world with a recorder, and measures around them."""

    def __init__(self, world: StormWorld, recorder: Recorder, ground: Field, say: Callable[[str], None]) -> None:
        self._world = world
        self._recorder = recorder
        self.field = ground
        self._say = say
        self._logs = Logs(world)
        self.baseline = 0.0
        self.outcomes: list[Outcome] = []

    def first_sync(self, *, timeout: float) -> bool:
        """Wait until every calendar has been listed once."""
        return _until(lambda: self._world.ask(UNSYNCED)[0][0] == 0, timeout=timeout)

    def measure_baseline(self, seconds: float) -> float:
        """Runs a second and polled unit, over so many quiet seconds."""
        began = time.time()
        self.field.stopping.wait(seconds)
        self.baseline = self._per_unit(began, time.time())
        self._logs.events()
        return self.baseline

    def run(self, names: Sequence[str], *, mixed_seconds: float) -> None:
        """The scenarios in this order; `mixed` for so long."""
        for name in names:
            if self.field.stopping.is_set():
                return
            action = partial(mixed, seconds=mixed_seconds) if name == MIXED else SCENARIOS[name]
            self.outcomes.append(self._one(name, action))

    def _one(self, name: str, action: Callable[[Field], None]) -> Outcome:
        self.field.scenario, self.field.notes = name, {}
        outcome = Outcome(name, time.time(), baseline=self.baseline)
        before = self.field.faults.get(name, 0)
        try:
            action(self.field)
        except NotRun as reason:
            outcome.not_run = str(reason)
            self._say(f"{name}: not run: {reason}")
            return outcome
        ended = time.time()
        outcome.seconds = round(ended - outcome.began, 1)
        outcome.faults = self.field.faults.get(name, 0) - before
        outcome.notes = dict(self.field.notes)
        outcome.during_pct = self._percent(outcome.began, ended)
        self._come_back(outcome, ended)
        outcome.log_events = self._logs.events()
        outcome.cut_short = self.field.stopping.is_set()
        self._say(
            f"{name}: {outcome.faults} faults in {outcome.seconds:g} s; throughput "
            f"{_shown(outcome.during_pct)} during, {_shown(outcome.after_pct)} after, back after "
            f"{_shown(outcome.back_s, ' s')}; calm after {_shown(outcome.calm_s, ' s')}"
        )
        return outcome

    def _come_back(self, outcome: Outcome, ended: float) -> None:
        """Wait for calm, then for a whole span with enough throughput, as long as there is time for it."""
        if _until(self._calm, timeout=CALM, stopping=self.field.stopping.is_set):
            outcome.calm_s = round(time.time() - ended, 1)
        begins, span = time.time(), SPAN * self.field.pace
        while not self.field.stopping.is_set():
            now = time.time()
            if now - begins >= span:
                outcome.after_pct = self._percent(now - span, now)
                if outcome.after_pct >= 100 * ENOUGH:
                    outcome.back_s = round(now - ended, 1)
                    return
            if now - ended > WITHIN * self.field.pace and outcome.after_pct is not None:
                return
            time.sleep(0.5)

    def _calm(self) -> bool:
        with suppress(psycopg2.Error):
            return self._world.await_fleet(timeout=0.1) and int(self._world.ask(UNEASY)[0][0]) == 0
        return False

    def _percent(self, since: float, until: float) -> float:
        return round(100 * self._per_unit(since, until) / self.baseline, 1) if self.baseline else 0.0

    def _per_unit(self, since: float, until: float) -> float:
        return self._recorder.rate(since, until) / max(1, self._recorder.demand())


def _until(condition: Callable[[], bool], *, timeout: float, stopping: Callable[[], bool] = lambda: False) -> bool:
    ends = time.monotonic() + timeout
    while time.monotonic() < ends and not stopping():
        if condition():
            return True
        time.sleep(0.2)
    return False


def _shown(value: float | None, unit: str = " %") -> str:
    return "never" if value is None else f"{value:g}{unit}"
