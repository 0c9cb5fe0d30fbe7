"""The world of the protocol: an edit at the provider, and everything that may happen on its way to Supabase.

Dispatchers, workers and senders are alike, so each kind is a sorted tuple, which spares the explorer every
permutation of them. Versions at the provider are counts of edits; a row shows the edits up to its own.
"""

from collections.abc import Iterator
from typing import NamedTuple

from sandbox import protocol
from sandbox.protocol import ALL, DISPATCHED, IDLE, LIVE, NONE, RUNNING, Guards, Turn, Unit
from tests.model.explorer import Step

TWO_RUNS = "one live run per unit: two runs of it are under way"
STALE = "one live run per unit: a run whose fence is gone has committed"
BACKWARDS = "a row in Postgres went back to an older edit"
AHEAD = "cursor with rows: the cursor is ahead of the rows that it covers"
OLD_WINS = "the mirror converges: old has overwritten new at Supabase"


class Bounds(NamedTuple):
    """How large a world is explored."""

    units: int = 1
    edits: int = 2
    polls: int = 0
    """Runs that find nothing new."""
    dispatchers: int = 2
    workers: int = 2
    senders: int = 0
    faults: int = 2
    troubled: frozenset[str] = frozenset({"work", "mirror"})
    """Whom faults may strike."""


class Calendar(NamedTuple):
    """What a unit has: at the provider, in Postgres, and at Supabase."""

    edits: int = 0
    cursor: int = 0
    row: int = 0
    version: int = 0
    waiting: int = 0
    """The outbox entry's version; 0 where there is none."""
    mirrored: tuple[int, int] = (0, 0)
    """Version and row at Supabase."""


class Run(NamedTuple):
    """A worker's run. `live`: its lease has not ended since it started."""

    unit: int
    fence: int
    phase: str
    cursor: int
    seen: int = 0
    stopped: bool = False
    live: bool = True


class Sender(NamedTuple):
    unit: int
    mark: int
    phase: str
    version: int = 0
    row: int = 0
    left: bool = False


class World(NamedTuple):
    units: tuple[Unit, ...]
    calendars: tuple[Calendar, ...]
    turns: tuple[Turn, ...]
    unpublished: tuple[tuple[int, int], ...] = ()
    """What dispatchers have claimed and not yet sent: (unit, fence)."""
    messages: tuple[tuple[int, int], ...] = ()
    runs: tuple[Run, ...] = ()
    senders: tuple[Sender, ...] = ()
    wire: tuple[tuple[int, int, int, int], ...] = ()
    """Calls on their way to Supabase: (mark of the sender, unit, version, row)."""
    fence: int = 0
    version: int = 0
    mark: int = 0
    edits: int = 0
    polls: int = 0
    faults: int = 0


def beginning(bounds: Bounds) -> World:
    return World(
        units=(Unit(),) * bounds.units,
        calendars=(Calendar(),) * bounds.units,
        turns=(Turn(),) * bounds.units,
        edits=bounds.edits,
        polls=bounds.polls,
        faults=bounds.faults,
    )


def settled(world: World) -> bool:
    """The good end: provider = Postgres = Supabase, and nobody holds the unit."""
    return all(
        unit.state == IDLE and one.edits == one.row == one.cursor
        for unit, one in zip(world.units, world.calendars, strict=True)
    )


def mirrored(world: World) -> bool:
    return settled(world) and all(one.waiting == 0 and one.mirrored[1] == one.row for one in world.calendars)


def alike(world: World) -> tuple:
    """The world with its fences and marks numbered anew: only whether two are the same ever matters."""
    fences: dict[int, int] = {}
    marks: dict[int, int] = {}
    return (
        tuple((u.state, u.lease, u.state == IDLE or fences.setdefault(u.fence, len(fences))) for u in world.units),
        tuple((t.awake, t.lease, t.lease == NONE or marks.setdefault(t.mark, len(marks))) for t in world.turns),
        world.calendars,
        tuple((place, fences.setdefault(fence, len(fences))) for place, fence in world.unpublished),
        tuple((place, fences.setdefault(fence, len(fences))) for place, fence in world.messages),
        tuple((r.unit, fences.setdefault(r.fence, len(fences)), *r[2:]) for r in world.runs),
        tuple((s.unit, marks.setdefault(s.mark, len(marks)), *s[2:]) for s in world.senders),
        tuple((marks.setdefault(call[0], len(marks)), *call[1:]) for call in world.wire),
        world.version, world.edits, world.polls, world.faults,
    )  # fmt: skip


def _put(items: tuple, place: int, item: object) -> tuple:
    return (*items[:place], item, *items[place + 1 :])


def _with(items: tuple, item: object) -> tuple:
    return tuple(sorted((*items, item)))


def _without(items: tuple, item: object) -> tuple:
    place = items.index(item)
    return (*items[:place], *items[place + 1 :])


def _swap(items: tuple, old: object, new: object) -> tuple:
    return _with(_without(items, old), new)


class Model:
    """What can happen in a world, within bounds and under guards."""

    def __init__(self, bounds: Bounds, guards: Guards = ALL) -> None:
        self.bounds = bounds
        self.guards = guards
        self._work = "work" in bounds.troubled
        self._mirror = "mirror" in bounds.troubled

    def steps(self, world: World) -> Iterator[Step[World]]:
        for place in range(self.bounds.units):
            yield from self._provider(world, place)
            yield from self._claim(world, place)
            yield from self._time(world, place)
            if self.bounds.senders:
                yield from self._lease_turn(world, place)
        yield from self._messages(world)
        for run in dict.fromkeys(world.runs):
            yield from self._run(world, run)
        for sender in dict.fromkeys(world.senders):
            yield from self._send(world, sender)
        yield from self._wire(world)

    # Provider and dispatchers

    def _provider(self, world: World, place: int) -> Iterator[Step[World]]:
        if world.edits:
            one = world.calendars[place]
            edited = _put(world.calendars, place, one._replace(edits=one.edits + 1))
            yield (
                f"the provider gets edit {one.edits + 1} of unit {place}",
                world._replace(calendars=edited, edits=world.edits - 1),
                True,
                None,
            )

    def _claim(self, world: World, place: int) -> Iterator[Step[World]]:
        unit, one = world.units[place], world.calendars[place]
        news = one.edits > one.cursor or unit.state != IDLE
        if len(world.unpublished) >= self.bounds.dispatchers or not (news or world.polls):
            return
        fence = world.fence + 1
        claimed = protocol.claim(unit, fence, self.guards)
        if claimed is None or (unit.lease == LIVE and world.fence > 2 * self.bounds.edits + self.bounds.faults):
            return  # the second keeps a world without that guard finite
        after = world._replace(
            units=_put(world.units, place, claimed),
            unpublished=_with(world.unpublished, (place, fence)),
            fence=fence,
            polls=world.polls - (not news),
        )
        yield f"a dispatcher claims unit {place} under fence {fence}", after, False, None

    def _messages(self, world: World) -> Iterator[Step[World]]:
        troubled = self._work and world.faults > 0
        for place, fence in world.unpublished:
            left = _without(world.unpublished, (place, fence))
            about = f"the message of fence {fence}"
            sent = world._replace(unpublished=left, messages=_with(world.messages, (place, fence)))
            yield f"{about} is published", sent, False, None
            if troubled:
                lost = world._replace(unpublished=left, faults=world.faults - 1)
                yield f"the dispatcher dies before {about} is out", lost, True, None
        for place, fence in dict.fromkeys(world.messages):
            left = _without(world.messages, (place, fence))
            yield from self._start(world, place, fence, left)
            if troubled:
                spent = world._replace(faults=world.faults - 1)
                yield f"the message of fence {fence} is lost", spent._replace(messages=left), True, None
                twice = _with(world.messages, (place, fence))
                yield f"the message of fence {fence} comes twice", spent._replace(messages=twice), True, None

    # Workers

    def _start(self, world: World, place: int, fence: int, left: tuple) -> Iterator[Step[World]]:
        if len(world.runs) >= self.bounds.workers:
            return
        started = protocol.start(world.units[place], fence)
        if started is None:
            yield f"a worker gets a void message of fence {fence}", world._replace(messages=left), False, None
            return
        two = any(run.unit == place and run.live for run in world.runs)
        run = Run(place, fence, "started", world.calendars[place].cursor)
        after = world._replace(units=_put(world.units, place, started), messages=left, runs=_with(world.runs, run))
        yield f"a worker starts unit {place} under fence {fence}", after, False, TWO_RUNS if two else None

    def _run(self, world: World, run: Run) -> Iterator[Step[World]]:
        about = f"the run of fence {run.fence}"
        if self._work and world.faults:
            spent = world._replace(faults=world.faults - 1)
            killed = spent._replace(runs=_without(world.runs, run))
            yield f"the worker of fence {run.fence} is killed", killed, True, None
            handed = protocol.hand_back(world.units[run.unit], run.fence)
            if handed is not None:
                yield f"{about} is handed back", self._ended(spent, run, handed), True, None
            if not run.stopped:
                asleep = _swap(world.runs, run, run._replace(stopped=True))
                yield f"{about} stands still", spent._replace(runs=asleep), True, None
        if run.stopped:
            yield f"{about} goes on", self._becomes(world, run, stopped=False), False, None
            return
        if not run.live and (kept := protocol.hold(world.units[run.unit], run.fence)) is not None:
            revived = self._becomes(world, run, live=True)
            yield f"{about} renews its lease", revived._replace(units=_put(world.units, run.unit, kept)), False, None
        if run.phase == "started":
            seen = world.calendars[run.unit].edits
            fetched = self._becomes(world, run, phase="fetched", seen=seen)
            yield f"{about} fetches up to edit {seen}", fetched, False, None
        else:
            yield self._write(world, run, about)

    def _becomes(self, world: World, run: Run, **changes: object) -> World:
        return world._replace(runs=_swap(world.runs, run, run._replace(**changes)))

    def _write(self, world: World, run: Run, about: str) -> Step[World]:
        """One transaction: the fence is taken first, and what follows is whole or nothing."""
        unit, one = world.units[run.unit], world.calendars[run.unit]
        ended = protocol.finish(unit, run.fence, self.guards)
        if ended is None:
            return f"{about} finds its fence gone", world._replace(runs=_without(world.runs, run)), False, None
        broken = STALE if unit.fence != run.fence or unit.state != RUNNING else None
        if run.phase == "fetched" and run.seen == run.cursor:
            after = world._replace(units=_put(world.units, run.unit, ended), runs=_without(world.runs, run))
            return f"{about} ends, nothing is new", after, False, broken
        if run.phase == "fetched" and not self.guards.cursor_with_rows:
            ahead = _put(world.calendars, run.unit, one._replace(cursor=run.seen))
            after = self._becomes(world, run, phase="rows")._replace(calendars=ahead)
            return f"{about} commits its cursor, without rows", after, False, broken or AHEAD
        if run.phase == "outbox":
            after = self._queued(world, run, one)
            return f"{about} commits its outbox entry", self._ended(after, run, ended), False, broken
        broken = broken or (BACKWARDS if run.seen < one.row or run.seen < one.cursor else None)
        version = world.version + 1
        written = one._replace(row=run.seen, cursor=run.seen, version=version)
        after = world._replace(calendars=_put(world.calendars, run.unit, written), version=version)
        if not self.guards.outbox_with_rows:
            after = after._replace(runs=_swap(after.runs, run, run._replace(phase="outbox")))
            return f"{about} commits rows up to edit {run.seen}, without outbox", after, False, broken
        after = self._ended(self._queued(after, run, written), run, ended)
        return f"{about} commits rows up to edit {run.seen} as version {version}", after, False, broken

    def _queued(self, world: World, run: Run, one: Calendar) -> World:
        queued = _put(world.calendars, run.unit, one._replace(waiting=one.version))
        return world._replace(calendars=queued, turns=_put(world.turns, run.unit, protocol.wake(world.turns[run.unit])))

    def _ended(self, world: World, run: Run, ended: Unit) -> World:
        return world._replace(units=_put(world.units, run.unit, ended), runs=_without(world.runs, run))

    def _time(self, world: World, place: int) -> Iterator[Step[World]]:
        """A lease ends by itself when nobody is there to renew or start; otherwise something stood still."""
        unit = world.units[place]
        over = protocol.lease_ends(unit, self.guards)
        if over is not None:
            awake = any((r.unit, r.fence, r.stopped) == (place, unit.fence, False) for r in world.runs)
            coming = unit.state == DISPATCHED and (place, unit.fence) in (*world.messages, *world.unpublished)
            if not awake and not (coming and not (self._work and world.faults)):
                runs = tuple(sorted(r._replace(live=False) if r.unit == place else r for r in world.runs))
                after = world._replace(units=_put(world.units, place, over), runs=runs, faults=world.faults - coming)
                late = ", its message still on the way" if coming else ""
                yield f"the lease of fence {unit.fence} ends{late}", after, coming, None
        turn = world.turns[place]
        ended = protocol.turn_ends(turn, self.guards)
        if ended is not None:
            held = any(sender.mark == turn.mark for sender in world.senders)
            if not held or (self._mirror and world.faults):
                after = world._replace(turns=_put(world.turns, place, ended), faults=world.faults - held)
                yield f"the sender's lease {turn.mark} ends", after, held, None

    # The mirror

    def _lease_turn(self, world: World, place: int) -> Iterator[Step[World]]:
        if len(world.senders) >= self.bounds.senders:
            return
        mark = world.mark + 1
        leased = protocol.lease_turn(world.turns[place], mark, self.guards)
        if leased is not None:
            senders = _with(world.senders, Sender(place, mark, "leased"))
            after = world._replace(turns=_put(world.turns, place, leased), senders=senders, mark=mark)
            yield f"sender {mark} leases the tenant of unit {place}", after, False, None

    def _send(self, world: World, sender: Sender) -> Iterator[Step[World]]:
        about, one = f"sender {sender.mark}", world.calendars[sender.unit]
        if self._mirror and world.faults:
            spent = world._replace(faults=world.faults - 1)
            yield f"{about} is killed", spent._replace(senders=_without(world.senders, sender)), True, None
            if sender.phase == "waiting":
                failed = _swap(world.senders, sender, sender._replace(phase="looked", left=True))
                yield f"{about} hears nothing and gives up", spent._replace(senders=failed), True, None
        if sender.phase == "leased" and one.waiting:
            changes = {"phase": "read", "version": one.version, "row": one.row}
            yield f"{about} reads version {one.version}", self._sender(world, sender, **changes), False, None
        elif sender.phase == "read":
            call = (sender.mark, sender.unit, sender.version, sender.row)
            sent = self._sender(world, sender, phase="waiting")._replace(wire=_with(world.wire, call))
            yield f"{about} sends version {sender.version}", sent, False, None
        elif sender.phase == "waiting" and not any(call[0] == sender.mark for call in world.wire):
            waiting = protocol.acknowledge(one.waiting, sender.version, self.guards)
            kept = _put(world.calendars, sender.unit, one._replace(waiting=waiting))
            after = self._sender(world, sender, phase="leased")._replace(calendars=kept)
            yield f"{about} acknowledges version {sender.version}", after, False, None
        if sender.phase == "leased" and not one.waiting:
            yield f"{about} finds nothing more", self._sender(world, sender, phase="looked"), False, None
        elif sender.phase == "looked":
            turn = world.turns[sender.unit]
            given = protocol.release_turn(turn, sender.mark, left=sender.left, guards=self.guards) or turn
            after = world._replace(turns=_put(world.turns, sender.unit, given), senders=_without(world.senders, sender))
            yield f"{about} gives the tenant back", after, False, None

    def _sender(self, world: World, sender: Sender, **changes: object) -> World:
        return world._replace(senders=_swap(world.senders, sender, sender._replace(**changes)))

    def _wire(self, world: World) -> Iterator[Step[World]]:
        for call in world.wire:
            mark, place, version, row = call
            one, left = world.calendars[place], _without(world.wire, call)
            stored, shown = one.mirrored
            broken = None
            after = world._replace(wire=left)
            if protocol.wins(stored, version, self.guards):
                broken = OLD_WINS if version < stored else None
                shown = row
                after = after._replace(calendars=_put(world.calendars, place, one._replace(mirrored=(version, shown))))
            yield f"Supabase gets version {version} of sender {mark}", after, False, broken
            if self._mirror and world.faults and not any(sender.mark == mark for sender in world.senders):
                gone = world._replace(wire=left, faults=world.faults - 1)
                yield f"the call of sender {mark} never arrives", gone, True, None
