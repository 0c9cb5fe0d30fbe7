"""Every state that a model can reach, breadth first, so that a counterexample is as short as it can be."""

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

S = TypeVar("S", bound=Hashable)

Step = tuple[str, S, bool, str | None]
"""(what happens, the state after it, whether it comes from outside, the rule that it breaks).

From outside come faults and new work: the good end has to be in reach without any more of either.
"""


@dataclass(frozen=True, slots=True)
class Counterexample:
    rule: str
    trace: tuple[str, ...]

    def __str__(self) -> str:
        steps = (f"{number:3}. {label}" for number, label in enumerate(self.trace, 1))
        return "\n".join([f"broken: {self.rule}", *steps])


@dataclass(frozen=True, slots=True)
class Report:
    states: int
    steps: int
    counterexample: Counterexample | None


@dataclass(slots=True)
class _Graph:
    """What is known: numbers for states, how each was reached first, and who leads to whom from within."""

    numbers: dict[Hashable, int]
    reached: list[tuple[int, str]]
    leading: list[list[int]]

    def trace(self, number: int, *last: str) -> tuple[str, ...]:
        labels = list(reversed(last))
        while number:
            number, label = self.reached[number]
            labels.append(label)
        return tuple(reversed(labels))


def explore(
    initial: S, steps: Callable[[S], Iterable[Step[S]]], good: Callable[[S], bool], alike: Callable[[S], Hashable]
) -> Report:
    """Walk through everything. Broken is a step that breaks a rule, and a state with no way to a good one.

    Whatever happened, the system gets to the good end by itself, with nothing more from outside. States that
    are alike, because they differ in the names of things alone, are walked through once.
    """
    graph = _Graph({alike(initial): 0}, [(0, "")], [[]])
    waiting, ends, count = deque([(0, initial)]), [], 0
    while waiting:
        number, state = waiting.popleft()
        if good(state):
            ends.append(number)
        for label, after, outside, broken in steps(state):
            count += 1
            if broken is not None:
                found = Counterexample(broken, graph.trace(number, label))
                return Report(len(graph.numbers), count, found)
            key = alike(after)
            known = graph.numbers.get(key)
            if known is None:
                known = graph.numbers[key] = len(graph.reached)
                graph.reached.append((number, label))
                graph.leading.append([])
                waiting.append((known, after))
            if not outside:
                graph.leading[known].append(number)
    return Report(len(graph.numbers), count, _stuck(graph, ends))


def _stuck(graph: _Graph, ends: list[int]) -> Counterexample | None:
    saved, waiting = set(ends), deque(ends)
    while waiting:
        for before in graph.leading[waiting.popleft()]:
            if before not in saved:
                saved.add(before)
                waiting.append(before)
    lost = next((number for number in range(len(graph.reached)) if number not in saved), None)
    if lost is None:
        return None
    return Counterexample("nothing is lost: from here the good end is out of reach", graph.trace(lost))
