"""All of it at random, several at once: light faults all the time, heavier ones in between.

Three actors go on side by side. One kills connections and children, one strikes processes, one servers and
the network; each does one thing after the other, so that no two of them fight over the same server.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import psycopg2

from sandbox.chaos import processes, servers
from sandbox.chaos.field import Field
from sandbox.chaos.proxy import PASS, Mode
from sandbox.chaos.world import BATCH_RUNNERS, BEATS, WORKERS
from sandbox.servers.process import ServerFailed

LIGHT_EVERY = 0.7  # seconds
PROCESS_EVERY = 14.0
SERVER_EVERY = 9.0
Action = Callable[[Field, random.Random], None]


def mixed(field: Field, seconds: float) -> None:
    """So many seconds of everything."""
    ends = time.monotonic() + seconds
    seeds = [field.rng.random() for _ in range(3)]
    actors = (
        (LIGHT, LIGHT_EVERY, seeds[0]),
        (PROCESSES, PROCESS_EVERY, seeds[1]),
        (SERVERS, SERVER_EVERY, seeds[2]),
    )
    troubles: list[BaseException] = []
    threads = [
        threading.Thread(target=_act, args=(field, *actor, ends, troubles), name=f"storm-{number}", daemon=True)
        for number, actor in enumerate(actors)
    ]
    for thread in threads:
        thread.start()
    try:
        _join(threads)
    except BaseException:  # an actor that went on would start a server again that has just been stopped
        field.stopping.set()
        _join(threads)
        raise
    field.world.network.set("*", PASS)
    if troubles:
        raise troubles[0]


def _join(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        while thread.is_alive():
            thread.join(0.5)


def _act(
    field: Field, actions: Sequence[Action], every: float, seed: float, ends: float, troubles: list[BaseException]
) -> None:
    rng = random.Random(seed)
    try:
        while time.monotonic() < ends and not field.stopping.is_set():
            pause = min(every * rng.uniform(0.5, 1.5), ends - time.monotonic())
            if field.stopping.wait(max(0.0, pause)) or time.monotonic() >= ends:
                return
            with suppress(psycopg2.Error):  # it may be another actor's turn to have Postgres down
                rng.choice(actions)(field, rng)
    except (OSError, ServerFailed, RuntimeError) as error:
        troubles.append(error)


def _backend(field: Field, rng: random.Random) -> None:
    servers.kill_backends(field, rng.randint(1, 3))


def _resets(field: Field, rng: random.Random) -> None:
    process, server = rng.choice([*WORKERS, *BEATS]), rng.choice(("postgres", "redis", "google", "supabase"))
    field.strike(process, faults=0)
    field.count(field.world.network.reset(f"{process}/{server}", most=3))


def _child(field: Field, rng: random.Random) -> None:
    processes.kill_child(field, rng.choice(tuple(WORKERS)))


def _flush(field: Field, _: random.Random) -> None:
    servers.flush(field)


def _worker(field: Field, rng: random.Random) -> None:
    victim = rng.choice(tuple(WORKERS))
    field.strike(victim)
    rng.choice((field.world.kill_process, field.world.kill_group))(victim)


def _beat(field: Field, rng: random.Random) -> None:
    victim = rng.choice(BEATS)
    field.strike(victim)
    field.world.kill_group(victim)


def _stopped_child(field: Field, rng: random.Random) -> None:
    processes.stop_child(field, rng.choice(BATCH_RUNNERS), rng.uniform(2, 9))


def _redis(field: Field, rng: random.Random) -> None:
    with field.lasting(outage=True):
        if rng.random() < 0.5:
            field.world.valkey.freeze()
            field.stopping.wait(rng.uniform(1, 5))
            field.world.valkey.thaw()
        else:
            field.world.valkey.kill()
            field.stopping.wait(rng.uniform(0, 2))
            field.world.valkey.start()


def _postgres(field: Field, rng: random.Random) -> None:
    servers.restart_postgres(field, crash=rng.random() < 0.5)


def _supabase(field: Field, rng: random.Random) -> None:
    answers = [mode for mode in servers.SUPABASE_ANSWERS if mode.status != 401]
    with field.lasting("supabase", outage=False), servers.mode(field, "*/supabase", rng.choice(answers)):
        field.stopping.wait(rng.uniform(1, 4))


def _one_cut_off(field: Field, rng: random.Random) -> None:
    victim = rng.choice(tuple(WORKERS))
    with field.lasting(victim, outage=False, faults=0), servers.mode(field, f"{victim}/*", Mode("cut")):
        field.stopping.wait(rng.uniform(1, 7))


def _slow(field: Field, rng: random.Random) -> None:
    slow = Mode("slow", latency=rng.uniform(0.02, 0.1), bandwidth=200_000)
    with field.lasting(outage=True), servers.mode(field, "*", slow):
        field.stopping.wait(rng.uniform(2, 4))


def _swallow(field: Field, rng: random.Random) -> None:
    supabase, postgres = Mode("swallow", share=0.5), Mode("swallow", share=0.05)
    with servers.mode(field, "*/supabase", supabase), servers.mode(field, "*/postgres", postgres):
        servers.count_swallowed(field, rng.uniform(2, 4))


LIGHT: tuple[Action, ...] = (_backend, _backend, _backend, _resets, _resets, _resets, _child, _flush)
PROCESSES: tuple[Action, ...] = (_worker, _worker, _beat, _stopped_child)
SERVERS: tuple[Action, ...] = (_redis, _redis, _postgres, _supabase, _supabase, _one_cut_off, _slow, _swallow)
