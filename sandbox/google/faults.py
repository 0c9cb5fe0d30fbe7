"""The script of misbehaviour: which faults a request meets, and in which order they are used up."""

from collections.abc import Iterable
from dataclasses import dataclass

from sandbox.google.specs import QUIRKS, WIRE, Fault

# Answers that never reach the calendar; quirks of the page that would have come are not used up by them.
PREEMPTING = frozenset(
    {"status", "always_410", "html_200", "not_json", "hang", "endless_body", "huge_body", "redirect"}
)


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault can be aimed at."""

    endpoint: str
    account: str | None
    calendar: str | None
    list_kind: str | None = None
    page: str | None = None


@dataclass(slots=True)
class _Entry:
    number: int
    fault: Fault
    to_skip: int
    left: int | None


@dataclass(frozen=True, slots=True)
class Verdict:
    wire: Fault | None
    quirks: frozenset[str]
    slow_s: float
    expires_tokens: bool
    names: tuple[str, ...]


NOTHING = Verdict(None, frozenset(), 0.0, expires_tokens=False, names=())


class FaultScript:
    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._last_number = 0

    def add(self, fault: Fault) -> int:
        self._last_number += 1
        self._entries.append(_Entry(self._last_number, fault, fault.skip, fault.times))
        return self._last_number

    def clear(self, *, number: int | None = None, account: str | None = None) -> int:
        def dropped(entry: _Entry) -> bool:
            by_number = number is None or entry.number == number
            return by_number and (account is None or entry.fault.account == account)

        before = len(self._entries)
        self._entries = [entry for entry in self._entries if not dropped(entry)]
        return before - len(self._entries)

    def pending(self) -> list[tuple[int, Fault, int | None]]:
        return [(entry.number, entry.fault, entry.left) for entry in self._entries]

    def judge(self, scene: Scene) -> Verdict:
        """The first matching wire fault, and every matching quirk and delay."""
        if not self._entries:
            return NOTHING
        matching = [entry for entry in self._entries if _matches(entry.fault, scene)]
        wire = self._use_first(entry for entry in matching if entry.fault.kind in WIRE)
        rest: list[Fault] = []
        if wire is None or wire.kind not in PREEMPTING:
            rest = [entry.fault for entry in matching if entry.fault.kind not in WIRE and _use(entry)]
        self._entries = [entry for entry in self._entries if entry.left != 0]
        hit = [fault for fault in (wire, *rest) if fault is not None]
        return Verdict(
            wire,
            frozenset(fault.kind for fault in rest if fault.kind in QUIRKS),
            sum(fault.seconds for fault in rest if fault.kind == "slow"),
            expires_tokens=any(fault.kind == "expire_tokens" for fault in rest),
            names=tuple(fault.kind for fault in hit),
        )

    def _use_first(self, entries: Iterable[_Entry]) -> Fault | None:
        return next((entry.fault for entry in entries if _use(entry)), None)


def _use(entry: _Entry) -> bool:
    if entry.to_skip > 0:
        entry.to_skip -= 1
        return False
    if entry.left is not None:
        entry.left -= 1
    return True


def _matches(fault: Fault, scene: Scene) -> bool:
    return (
        _at(fault.endpoint, scene.endpoint)
        and fault.account in (None, scene.account)
        and fault.calendar in (None, scene.calendar)
        and fault.list_kind in (None, scene.list_kind)
        and fault.page in (None, scene.page)
    )


def _at(wanted: str | None, endpoint: str) -> bool:
    """Without an endpoint a fault meets every Calendar request, but never the token endpoint."""
    if wanted is None:
        return endpoint not in {"token", "other"}
    return endpoint == ("events.list" if wanted == "list" else wanted)
