"""From the lines of a trace to the steps of each row: what happened to it, at some moment between two lines."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

Line = dict[str, Any]

TIME_PASSED = "time.passed"
"""A line that a test writes when it has set leases back: none of those before it says anything any more."""
FOREVER = 2**62
ANSWERS = {
    "claim.committed": "claim.asked",
    "start.committed": "start.asked",
    "fence.answered": "fence.asked",
    "changed.committed": "changed.written",
    "quiet.committed": "quiet.asked",
    "renew.committed": "renew.asked",
    "back.committed": "back.asked",
    "outbox.leased": "outbox.asked",
    "outbox.renewed": "outbox.renewing",
    "outbox.released": "outbox.releasing",
    "occurrence.begun": "occurrence.asked",
    "occurrence.ended": "occurrence.ending",
}
"""Which point answers which."""


class Step(NamedTuple):
    kind: str
    number: int
    """The fence, or the attempt."""
    mark: str = ""
    """Of a sender's lease: what tells it from the next."""
    new: str = ""
    """The mark after a renewal."""
    asked: int = 0
    """The line before it."""
    answered: int = FOREVER
    """The line after it; FOREVER when nobody knows whether it happened."""
    began: float = 0.0
    """Seconds, at the line before."""
    ended: float = float("inf")
    lease: float = 0.0

    @property
    def certain(self) -> bool:
        return self.answered < FOREVER


Named = Iterator[tuple[str, str, Step]]
"""(table, row, what happened to it)."""


def read(paths: Iterable[Path]) -> list[Line]:
    """The lines of traces in order. A line that a kill cut off is left out: it was an answer nobody got."""
    files = [list(_parsed(path)) for path in paths]
    if len(files) == 1:
        return files[0]
    return sorted((line for lines in files for line in lines), key=lambda line: float(line["t"]))


def _parsed(path: Path) -> Iterator[Line]:
    for text in path.read_bytes().splitlines():
        try:
            line = orjson.loads(text) if text else None
        except orjson.JSONDecodeError:
            continue
        if isinstance(line, dict) and "point" in line:
            yield line


def steps(lines: Sequence[Line]) -> dict[str, dict[str, list[Step]]]:
    """By table and row, in the order in which they were asked for.

    Refusals are not among them: a run may be stopped at any step, and changes nothing by it.
    """
    found: dict[str, dict[str, list[Step]]] = {"unit": {}, "turn": {}, "occurrence": {}}
    for place, answered, question, answer in _exchanges(lines):
        told = _TOLD[question["point"]](question, answer)
        end = float("inf") if answer is None else answer["t"]
        for table, row, step in told:
            whole = step._replace(
                asked=place, answered=answered, began=question["t"], ended=end, lease=question.get("lease") or 0.0
            )
            found[table].setdefault(row, []).append(whole)
    for rows in found.values():
        for mine in rows.values():
            mine.sort(key=lambda step: (step.asked, step.answered))
    return found


def _exchanges(lines: Sequence[Line]) -> Iterator[tuple[int, int, Line, Line | None]]:
    """Questions with their places and answers; no answer where the process died or its connection was lost."""
    questions = set(ANSWERS.values())
    open_ones: dict[tuple[int, int], dict[str, tuple[int, Line]]] = defaultdict(dict)
    for place, line in enumerate(lines):
        point, mine = line["point"], open_ones[line.get("pid", 0), line.get("thread", 0)]
        if point in questions:
            if point in mine:
                before = mine.pop(point)
                yield before[0], FOREVER, before[1], None
            mine[point] = (place, line)
        elif point in ANSWERS and ANSWERS[point] in mine:
            asked, question = mine.pop(ANSWERS[point])
            yield asked, place, question, line
    for mine in open_ones.values():
        for asked, question in mine.values():
            yield asked, FOREVER, question, None


def _claim(_: Line, answer: Line | None) -> Named:
    # a claim that was never told is not followed by anything under its fence, and hinders nobody
    for one in answer["units"] if answer else ():
        yield "unit", one["unit_id"], Step("claim", one["fence"])


def _start(question: Line, answer: Line | None) -> Named:
    started = None if answer is None else {one["unit_id"] for one in answer["started"]}
    for unit, fence in question["units"]:
        if started is None or unit in started:
            yield "unit", unit, Step("start", fence)


def _fence(question: Line, answer: Line | None) -> Named:
    if answer is None or answer["taken"]:
        yield "unit", question["unit"], Step("hold", question["fence"])


def _changed(question: Line, _: Line | None) -> Named:
    yield "unit", question["unit"], Step("end", question["fence"])


def _quiet(question: Line, answer: Line | None) -> Named:
    for one in question["units"]:
        if answer is None or one["unit_id"] in answer["ended"]:
            yield "unit", one["unit_id"], Step("end", one["fence"])


def _renew(question: Line, answer: Line | None) -> Named:
    for unit, fence in question["units"]:
        if answer is None or unit not in answer["lost"]:
            yield "unit", unit, Step("renew", fence)


def _back(question: Line, answer: Line | None) -> Named:
    for unit, fence in question["units"]:
        if answer is None or unit in answer["returned"]:
            yield "unit", unit, Step("back", fence)


def _leased(_: Line, answer: Line | None) -> Named:
    for one in answer["held"] if answer else ():
        yield "turn", one["tenant_id"], Step("lease", 0, one["lease_until"])


def _renewed(question: Line, answer: Line | None) -> Named:
    marks = {one["tenant_id"]: one["lease_until"] for one in question["held"]}
    for one in answer["renewed"] if answer else ():
        if one["lease_until"] is not None and not one.get("lost"):
            yield "turn", one["tenant_id"], Step("renew", 0, marks[one["tenant_id"]], one["lease_until"])


def _released(question: Line, _: Line | None) -> Named:
    for one in question["held"]:
        yield "turn", one["tenant_id"], Step("release", 0, one["lease_until"])


def _begun(question: Line, answer: Line | None) -> Named:
    if answer is None or answer["won"]:
        yield "occurrence", question["task"], Step("begin", answer["attempt"] if answer else 0)


def _ended(question: Line, answer: Line | None) -> Named:
    if answer is None or answer["won"]:
        yield "occurrence", question["task"], Step("end", question["attempt"])


_TOLD: dict[str, Callable[[Line, Line | None], Named]] = {
    "claim.asked": _claim,
    "start.asked": _start,
    "fence.asked": _fence,
    "changed.written": _changed,
    "quiet.asked": _quiet,
    "renew.asked": _renew,
    "back.asked": _back,
    "outbox.asked": _leased,
    "outbox.renewing": _renewed,
    "outbox.releasing": _released,
    "occurrence.asked": _begun,
    "occurrence.ending": _ended,
}
"""What a question and its answer say about rows; None for an answer that nobody got."""
