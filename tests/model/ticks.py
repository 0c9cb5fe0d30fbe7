"""The world of periodic jobs: two beats that wake planners, workers that do occurrences, and what strikes them.

A planner reads which ticks have a row before it writes the missing ones, in two steps: the lock on an entry, under
which the product takes both, is left out, because uniqueness alone has to do.
"""

from collections.abc import Iterator
from typing import NamedTuple

from sandbox import protocol
from sandbox.protocol import ALL, ENDED, Guards, Occurrence
from tests.model.explorer import Step

TWICE = "each tick once: an occurrence is accounted for twice"


class Bounds(NamedTuple):
    ticks: int = 2
    beats: int = 2
    workers: int = 2
    faults: int = 2


class Row(NamedTuple):
    tick: int
    occurrence: Occurrence = Occurrence()
    ended: int = 0
    """How often an end of it was counted."""


class Job(NamedTuple):
    row: int
    attempt: int
    stopped: bool = False


class Timetable(NamedTuple):
    now: int = 0
    clocks: tuple[int, ...] = ()
    """The last tick for which each beat has sent a wake-up."""
    wake_ups: int = 0
    plans: tuple[int, ...] = ()
    """The ticks that planners have found without a row."""
    rows: tuple[Row, ...] = ()
    messages: tuple[int, ...] = ()
    jobs: tuple[Job, ...] = ()
    faults: int = 0


def beginning(bounds: Bounds) -> Timetable:
    return Timetable(clocks=(0,) * bounds.beats, faults=bounds.faults)


def _with(items: tuple, item: object) -> tuple:
    return tuple(sorted((*items, item)))


def _without(items: tuple, item: object) -> tuple:
    place = items.index(item)
    return (*items[:place], *items[place + 1 :])


class Model:
    def __init__(self, bounds: Bounds, guards: Guards = ALL) -> None:
        self.bounds = bounds
        self.guards = guards

    def accounted(self, world: Timetable) -> bool:
        """The good end: one row for every tick that has passed, ended once."""
        ends = [row.tick for row in world.rows if row.occurrence.state == ENDED and row.ended == 1]
        return sorted(ends) == list(range(1, world.now + 1)) and len(ends) == len(world.rows)

    def steps(self, world: Timetable) -> Iterator[Step[Timetable]]:
        if world.now < self.bounds.ticks:
            yield f"tick {world.now + 1} comes", world._replace(now=world.now + 1), True, None
        yield from self._beats(world)
        yield from self._planners(world)
        for number in range(len(world.rows)):
            yield from self._row(world, number)
        for number in dict.fromkeys(world.messages):
            yield from self._begin(world, number)
        for job in dict.fromkeys(world.jobs):
            yield from self._job(world, job)

    def _beats(self, world: Timetable) -> Iterator[Step[Timetable]]:
        """Every beat sends a wake-up a second for ever; here, at least one after each tick."""
        for clock in sorted(set(world.clocks)):
            if clock < world.now and world.wake_ups < self.bounds.beats:
                clocks = tuple(sorted((*_without(world.clocks, clock), world.now)))
                yield "a beat sends a wake-up", world._replace(clocks=clocks, wake_ups=world.wake_ups + 1), False, None
        if world.wake_ups and world.faults:
            lost = world._replace(wake_ups=world.wake_ups - 1, faults=world.faults - 1)
            # the beat that sent it sends another in a second
            yield "a wake-up is lost", lost._replace(clocks=(0, *world.clocks[1:])), True, None

    def _planners(self, world: Timetable) -> Iterator[Step[Timetable]]:
        missing = next((t for t in range(1, world.now + 1) if all(row.tick != t for row in world.rows)), None)
        if world.wake_ups:
            heard = world._replace(wake_ups=world.wake_ups - 1)
            if missing is None:
                yield "a planner finds nothing missing", heard, False, None
            else:
                plans = _with(world.plans, missing)
                yield f"a planner finds tick {missing} without a row", heard._replace(plans=plans), False, None
        for tick in dict.fromkeys(world.plans):
            planned = world._replace(plans=_without(world.plans, tick))
            if world.faults:
                # beats go on waking: what a planner took with it is found by the next
                struck = planned._replace(faults=world.faults - 1, clocks=(0, *world.clocks[1:]))
                yield f"the planner of tick {tick} dies", struck, True, None
            if self.guards.one_row_a_tick and any(row.tick == tick for row in world.rows):
                yield f"tick {tick} has its row already", self._woken(planned), False, None
            else:
                rows = (*world.rows, Row(tick))
                yield f"a planner writes a row for tick {tick}", self._woken(planned._replace(rows=rows)), False, None

    def _woken(self, world: Timetable) -> Timetable:
        """A tick that is still without a row is found by the next wake-up."""
        left = any(all(row.tick != t for row in world.rows) for t in range(1, world.now + 1))
        return world._replace(clocks=(0, *world.clocks[1:])) if left else world

    def _row(self, world: Timetable, number: int) -> Iterator[Step[Timetable]]:
        row = world.rows[number]
        sent = protocol.send(row.occurrence)
        if sent is not None:
            messages = _with(world.messages, number)
            after = self._with_row(world, number, row._replace(occurrence=sent))._replace(messages=messages)
            yield f"the occurrence of tick {row.tick} is sent", after, False, None
        over = protocol.attempt_ends(row.occurrence, self.guards)
        if over is not None:
            alive = any(job == Job(number, row.occurrence.attempt) for job in world.jobs)
            coming = number in world.messages and not row.occurrence.assigned
            if not alive and not (coming and not world.faults):
                after = self._with_row(world, number, row._replace(occurrence=over))
                after = after._replace(faults=world.faults - coming)
                yield f"the lease of tick {row.tick} ends", after, coming, None

    def _with_row(self, world: Timetable, number: int, row: Row) -> Timetable:
        return world._replace(rows=(*world.rows[:number], row, *world.rows[number + 1 :]))

    def _begin(self, world: Timetable, number: int) -> Iterator[Step[Timetable]]:
        row = world.rows[number]
        heard = world._replace(messages=_without(world.messages, number))
        if world.faults:
            spent = world._replace(faults=world.faults - 1)
            yield f"the message of tick {row.tick} is lost", heard._replace(faults=spent.faults), True, None
            twice = spent._replace(messages=_with(world.messages, number))
            yield f"the message of tick {row.tick} comes twice", twice, True, None
        begun = protocol.begin(row.occurrence)
        if begun is None:
            yield f"a worker leaves tick {row.tick} alone", heard, False, None
        elif len(world.jobs) < self.bounds.workers:
            jobs = _with(world.jobs, Job(number, begun.attempt))
            after = self._with_row(heard, number, row._replace(occurrence=begun))._replace(jobs=jobs)
            yield f"a worker begins tick {row.tick}, attempt {begun.attempt}", after, False, None

    def _job(self, world: Timetable, job: Job) -> Iterator[Step[Timetable]]:
        row, gone = world.rows[job.row], world._replace(jobs=_without(world.jobs, job))
        about = f"attempt {job.attempt} of tick {row.tick}"
        if world.faults:
            yield f"the worker of {about} is killed", gone._replace(faults=world.faults - 1), True, None
            if not job.stopped:
                jobs = _with(gone.jobs, job._replace(stopped=True))
                yield f"{about} stands still", world._replace(jobs=jobs, faults=world.faults - 1), True, None
        if job.stopped:
            yield f"{about} goes on", world._replace(jobs=_with(gone.jobs, job._replace(stopped=False))), False, None
            return
        if row.occurrence.lease != protocol.LIVE:
            kept = protocol.keep(row.occurrence, job.attempt)
            if kept is not None:
                yield f"{about} renews", self._with_row(world, job.row, row._replace(occurrence=kept)), False, None
        ended = protocol.end(row.occurrence, job.attempt, self.guards)
        if ended is None:
            yield f"{about} is not heard any more", gone, False, None
            return
        counted = row.ended + 1
        of_tick = sum(one.ended for one in world.rows if one.tick == row.tick) + 1
        after = self._with_row(gone, job.row, Row(row.tick, ended, counted))
        yield f"{about} ends it", after, False, TWICE if of_tick > 1 else None
