"""Replays recorded traces (TRACE_FILE) against the protocol: a trace that the model does not allow is named.

    python -m sandbox.tracecheck FILE…

What a process did lies between two lines: before it asked and after it was answered. So the lines of a unit, a
tenant or an occurrence are intervals, and the question is whether there is an order of its steps that the protocol
allows. A step that was asked for and never answered, because its process died, may have happened or not. Lines of
one file are in the order in which they were written, whoever wrote them; several files are ordered by their clock.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sandbox import protocol
from sandbox.protocol import LIVE, OVER, Occurrence, Turn, Unit
from sandbox.tracesteps import FOREVER, TIME_PASSED, Line, Step, read, steps

SLACK = 0.5
"""Seconds that a lease may seem to end early: it runs from the start of its transaction, a moment before the line."""
ORDERS = 200_000
"""Orders of one row's steps that are tried before it is called undecided."""


def check(paths: Iterable[Path]) -> list[str]:
    """What the model does not allow in these traces, a sentence each; none, if all is well."""
    return check_lines(read(paths))


def check_lines(lines: Sequence[Line]) -> list[str]:
    """The same, of lines in their order."""
    found, judge = steps(lines), _Judge(lines)
    problems = list(_unsent(lines))
    for unit, mine in sorted(found["unit"].items()):
        problems += _replay(f"unit {unit}", mine, Held(Unit()), judge.unit)
    for tenant, mine in sorted(found["turn"].items()):
        problems += _replay(f"the outbox of tenant {tenant}", mine, Held(Turn()), judge.turn)
    for task, mine in sorted(found["occurrence"].items()):
        problems += _replay(f"occurrence {task}", mine, Held(Occurrence()), judge.occurrence)
    return problems


class Held(NamedTuple):
    """A row of the protocol, and its lease: since which second and line, how long, under which mark."""

    row: Any
    since: float = 0.0
    line: int = -1
    lease: float = 0.0
    mark: str = ""


class _Judge:
    """What the protocol makes of a step: every row that may come of it, none if it is not allowed."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._passed = [place for place, line in enumerate(lines) if line["point"] == TIME_PASSED]

    def unit(self, held: Held, step: Step, alone: bool) -> list[Held]:
        unit: Unit = held.row
        if step.kind == "claim":  # fences grow
            after = protocol.claim(self._ended(held, step, protocol.lease_ends), step.number)
            after = after if step.number > unit.fence else None
        elif step.kind == "start":
            after = protocol.start(unit, step.number)
        elif step.kind == "end":
            after = protocol.finish(unit, step.number)
        elif step.kind == "back":
            after = protocol.hand_back(unit, step.number)
        else:
            after = protocol.hold(unit, step.number)
        found = [] if after is None else [_leased(after, step)]
        if step.kind == "renew" and found and not alone:
            found.append(held)  # a heartbeat passes over a row that somebody holds at that moment
        if step.kind == "hold" and found:
            found.append(held)  # the lease that it gave is gone where its transaction was rolled back
        return found

    def turn(self, held: Held, step: Step, alone: bool) -> list[Held]:
        """A mark is a lease's end, as text; a wake-up may have come at any time."""
        turn = protocol.wake(held.row)
        if step.kind == "lease":
            leased = protocol.lease_turn(self._ended(held._replace(row=turn), step, protocol.turn_ends), 0)
            return [] if leased is None else [_leased(leased, step, step.mark)]
        ours = held.mark == step.mark and turn.lease == LIVE
        if step.kind == "release":
            return [Held(Turn())] if ours else [held]
        return [_leased(turn, step, step.new)] if ours else []

    def occurrence(self, held: Held, step: Step, alone: bool) -> list[Held]:
        row: Occurrence = held.row
        if step.kind == "end":
            ended = protocol.end(row, step.number)
            return [] if ended is None else [Held(ended)]
        over = self._ended(held, step, protocol.attempt_ends)
        begun = protocol.begin(over if over.lease != OVER else over._replace(assigned=False))
        return [] if begun is None or step.number not in (0, begun.attempt) else [_leased(begun, step)]

    def _ended(self, held: Held, step: Step, ends: Callable[[Any], Any]) -> Any:
        """The row with its lease over, if that can be by the time of the step; as it is otherwise."""
        passed = any(held.line < place < step.answered for place in self._passed)
        over = passed or step.ended - held.since >= held.lease - SLACK
        return (ends(held.row) if over else None) or held.row


def _leased(row: Any, step: Step, mark: str = "") -> Held:
    return Held(row, step.began, step.asked, step.lease, mark) if row.lease == LIVE else Held(row)


def _replay(what: str, mine: list[Step], start: Held, allowed: Callable[[Held, Step, bool], list[Held]]) -> list[str]:
    """Look for an order of the steps that the protocol allows."""
    everything = sum(1 << place for place, step in enumerate(mine) if step.certain)
    stack = [(0, 0, start)]  # (the steps that are placed, the first that is not, the row after them)
    seen: set[tuple[int, Held]] = set()
    deepest = (0, start)
    while stack:
        done, first, held = stack.pop()
        if done & everything == everything:
            return []
        if (done, held) in seen:
            continue
        seen.add((done, held))
        if len(seen) > ORDERS:
            return [f"{what}: undecided after {ORDERS} orders of its {len(mine)} steps"]
        if done.bit_count() >= deepest[0].bit_count():
            deepest = (done, held)
        while done >> first & 1:
            first += 1
        next_ones = _candidates(mine, done, first)
        for place in reversed(next_ones):
            found = allowed(held, mine[place], len(next_ones) == 1)
            stack.extend((done | 1 << place, first, after) for after in found)
    return [_refused(what, mine, *deepest)]


def _candidates(mine: list[Step], done: int, first: int) -> list[int]:
    """Steps that may come next: nothing that is not placed yet was over before they began."""
    found, horizon = [], FOREVER
    for place in range(first, len(mine)):
        if done >> place & 1:
            continue
        if mine[place].asked > horizon:
            break
        found.append(place)
        horizon = min(horizon, mine[place].answered)
    return found


def _refused(what: str, mine: list[Step], done: int, held: Held) -> str:
    left = [step for place, step in enumerate(mine) if step.certain and not done >> place & 1]
    step = min(left, key=lambda one: one.answered)
    row = ", ".join(f"{name} {value}" for name, value in held.row._asdict().items())
    return (
        f"{what}: {step.kind} {step.number or step.mark} between lines {step.asked + 1} and {step.answered + 1} is "
        f"not allowed; as far as the trace tells, the row was then: {row}"
    )


def _unsent(lines: Sequence[Line]) -> Iterator[str]:
    """A sender acknowledges what it has read and sent, up to that version and no further."""
    known: dict[tuple[int, int, str], list[int]] = {}  # (version read, version sent); the outbox' where no row is
    for place, line in enumerate(lines):
        whose = (line.get("pid", 0), line.get("thread", 0))
        if line["point"] == "outbox.rows_read":
            absent = {one["row_id"]: int(one.get("version", FOREVER)) for one in line["keys"]}
            known.update({(*whose, row_id): [version, version] for row_id, version in absent.items()})
            known.update({(*whose, one["id"]): [int(one["version"]), -1] for one in line["rows"]})
        elif line["point"] == "outbox.sent":
            for one in line["rows"]:
                known.setdefault((*whose, one["id"]), [-1, -1])[1] = int(one["version"])
        elif line["point"] == "outbox.acknowledged":
            for one in line["rows"]:
                version, there = int(one["version"]), known.get((*whose, one["row_id"]), [-1, -1])
                if there != [version, version]:
                    yield (
                        f"row {one['row_id']}: version {version} is acknowledged in line {place + 1}; its sender had "
                        f"read version {there[0]} and sent version {there[1]} (-1: none)"
                    )


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        sys.stderr.write("usage: python -m sandbox.tracecheck FILE…\n")
        return 2
    lines = read(Path(name) for name in arguments)
    problems = check_lines(lines)
    if not lines:
        problems.append("the traces hold no line: was TRACE_FILE set where the workers run?")
    for problem in problems:
        print(problem)
    print(f"{len(lines)} lines, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
