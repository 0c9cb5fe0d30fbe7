"""Scenarios that strike the product's processes, and what they live on: their clocks."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from contextlib import suppress

import psutil
import psycopg2

from sandbox.chaos import faketime
from sandbox.chaos.field import Field, NotRun
from sandbox.chaos.world import BATCH_RUNNERS, BEATS, WORKERS, node_of

LEASE = 5.0  # seconds; the product's default
STEPS = (3600.0, -3600.0, 90.0, 0.0)
"""Where the clock goes, in seconds from the true one: as by a wrong time zone, a bad time server, and back."""
CATCHES = 12  # attempts to stop a child that has something in its hands
RESTARTED = 30.0  # seconds
CAUGHT = 0.6  # seconds; an honest run takes a third of that
OLD_RUNS = """
select count(*) from sync.units u where u.state = 'running' and u.worker_id = %s and not exists (
  select 1 from chaos.history h where h.unit_id = u.unit_id and h.at > clock_timestamp() - %s * interval '1 s')
"""
SKEW = "select coalesce(max(abs(clock_skew_ms)), 0) / 1000.0 from worker.workers"
STEPPED = ("sync-b", "house-b", "beat-b")


def worker_kill(field: Field) -> None:
    """SIGKILL for a worker's main process, its batches in its hands; then for one of the house's workers."""
    for victim in ("sync-a", "house-a"):
        field.when_busy(victim if victim in BATCH_RUNNERS else "sync-b")
        field.strike(victim)
        field.world.kill_process(victim)
        field.wait(3)


def child_kill(field: Field) -> None:
    """SIGKILL for one child of a pool after another."""
    for number in range(max(2, round(6 * field.pace))):
        kill_child(field, BATCH_RUNNERS[number % 2] if number % 3 else field.rng.choice(tuple(WORKERS)))
        field.wait(1)


def kill_child(field: Field, worker: str) -> None:
    """One child of a worker, at a moment when it is likely to run something."""
    field.when_busy(worker if worker in BATCH_RUNNERS else BATCH_RUNNERS[0])
    children = field.world.children(worker)
    if children:
        field.strike(worker)
        with suppress(psutil.NoSuchProcess):
            field.rng.choice(children).kill()


def group_kill(field: Field) -> None:
    """SIGKILL for a worker and all of its children at once, then for another."""
    for victim in ("sync-b", "house-b"):
        field.when_busy(victim if victim in BATCH_RUNNERS else "sync-a")
        field.strike(victim)
        field.world.kill_group(victim)
        field.wait(3)


def child_stop(field: Field) -> None:
    """SIGSTOP for a child, for longer than its leases last; then it wakes up and believes that it still runs them."""
    stop_child(field, "sync-a", LEASE + 4)


def stop_child(field: Field, worker: str, seconds: float) -> None:
    """Stop a child that has runs in its hands, if one can be caught."""
    for attempt in range(CATCHES):
        field.when_busy(worker)
        children = field.world.children(worker)
        if not children:
            return
        child = children[attempt % len(children)]
        began = time.time()
        with suppress(psutil.NoSuchProcess):
            child.suspend()
            if attempt == CATCHES - 1 or _still_runs(field, worker):
                with field.lasting(worker, outage=False, since=began):
                    field.stopping.wait(seconds)  # at any pace: a lease takes its time
                    child.resume()
                return
            child.resume()


def _still_runs(field: Field, worker: str) -> bool:
    """Whether runs of a worker are under way that were under way a while ago, too."""
    field.stopping.wait(CAUGHT)
    with suppress(psycopg2.Error):
        return bool(field.world.ask(OLD_RUNS, node_of(worker), CAUGHT)[0][0])
    return False


def beat_kill(field: Field) -> None:
    """SIGKILL for one beat; then for both, so that nobody ticks until one has been replaced."""
    for victims in (BEATS[:1], BEATS):
        field.strike(*victims, faults=len(victims))
        for victim in victims:
            field.world.kill_group(victim)
        field.wait(4)


def clock_step(field: Field) -> None:
    """The wall clock of a worker of each kind and of a beat jumps an hour ahead, an hour back, and home again."""
    try:
        clock = faketime.Clock(faketime.find(), field.world.folder / "clock")
    except faketime.NoFaketime as error:
        raise NotRun(str(error)) from None
    plain = {name: field.world.processes[name].environment for name in STEPPED}
    _restart(field, {name: clock.environment(plain[name]) for name in STEPPED})
    skews = []
    for seconds in STEPS:
        with field.lasting(*STEPPED, outage=False, faults=len(STEPPED)):
            clock.step(seconds)
            field.stopping.wait(4)  # at any pace: the library looks once a second, a heart beats once a second
        skews.append(round(float(field.world.ask(SKEW)[0][0])))
    field.notes["clock_skew_s"] = skews
    _restart(field, plain)
    if max(skews, default=0) < STEPS[0] / 2:
        raise NotRun("libfaketime was preloaded, and yet no worker's clock moved")


def _restart(field: Field, environments: Mapping[str, Mapping[str, str]]) -> None:
    """Stopped in order; whoever keeps the processes alive starts them again, with the new environments."""
    before = {name: field.world.processes[name].pid for name in environments}
    for name, environment in environments.items():
        field.world.processes[name].environment = environment
        field.world.processes[name].send(signal.SIGTERM)
    ends = time.monotonic() + RESTARTED
    while time.monotonic() < ends and not field.stopping.is_set():
        with suppress(RuntimeError):  # it has no pid between its end and its start
            if all(field.world.processes[name].pid != pid for name, pid in before.items()):
                break
        time.sleep(0.1)
    field.world.await_fleet()


SCENARIOS = (worker_kill, child_kill, group_kill, child_stop, beat_kill, clock_step)
