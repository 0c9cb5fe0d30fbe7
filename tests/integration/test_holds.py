"""So many at a time: processes that hold some of a scope's number, and what becomes of it when they end."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from db.session import Database
from tenantsync import clock
from tenantsync.errors import OverBudget
from tenantsync.limits.holds import Holds
from tenantsync.limits.rules import Limit, Scope
from tests.support.shared_database import database_url, shared_database
from tests.support.windows import most_at_once

__all__ = ["database_url", "shared_database"]

LEASE = timedelta(seconds=1)
SOON = 20.0  # seconds

MakeHolds = Callable[[str], Holds]


def mailbox(name: str) -> Limit:
    """Microsoft's limit: four requests at a time at one mailbox."""
    return Limit(Scope("account", f"microsoft/{name}"), at_once=4)


@pytest.fixture
def make_holds(database: Database) -> MakeHolds:
    """The holds of one more process."""

    async def in_thread(work: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(work)

    return lambda holder: Holds(database, in_thread, holder=holder, lease=LEASE)


def held(database: Database, limit: Limit) -> dict[str, int]:
    with database.statement() as connection:
        found = connection.execute(
            text("select holder, held from sync.holds where scope_id = :id and until > now()"), {"id": limit.scope.id}
        )
        return {row.holder: row.held for row in found}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 — Postgres is asked
            await asyncio.sleep(0.02)


async def renewing(processes: list[Holds]) -> None:
    """What the heartbeats of these processes do."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(LEASE.total_seconds() / 3)
        for process in processes:
            await asyncio.to_thread(process.renew, loop)


async def test_four_at_a_time_at_a_mailbox_from_three_processes_and_everybody_has_a_turn(
    make_holds: MakeHolds,
) -> None:
    limit, spans, done = mailbox("ann"), list[tuple[float, float]](), dict[str, int]()
    processes = {name: make_holds(name) for name in ("one", "two", "three")}
    heart = asyncio.ensure_future(renewing(list(processes.values())))

    async def request(name: str) -> None:
        await processes[name].begin(limit, give_up=clock.monotonic() + SOON)
        began = clock.monotonic()
        await asyncio.sleep(0.02)
        spans.append((began, clock.monotonic()))
        done[name] = done.get(name, 0) + 1
        processes[name].end(limit)

    await asyncio.gather(*(request(name) for _ in range(25) for name in processes))
    heart.cancel()

    assert done == dict.fromkeys(processes, 25)
    assert most_at_once(spans) == 4


async def test_a_dead_process_keeps_its_holds_until_its_lease_ends_and_no_longer(
    make_holds: MakeHolds, database: Database
) -> None:
    limit, dead, living = mailbox("bob"), make_holds("dead"), make_holds("living")
    for _ in range(4):
        await dead.begin(limit, give_up=clock.monotonic() + SOON)
    died = clock.monotonic()

    with pytest.raises(OverBudget):
        await living.begin(limit, give_up=clock.monotonic() + 0.2)
    await living.begin(limit, give_up=clock.monotonic() + SOON)

    assert clock.monotonic() - died > LEASE.total_seconds() * 0.7
    assert held(database, limit) == {"living": 1}


async def test_what_is_idle_is_given_back_with_the_next_heartbeat(make_holds: MakeHolds, database: Database) -> None:
    limit, process = mailbox("cid"), make_holds("idle")
    await process.begin(limit, give_up=clock.monotonic() + SOON)
    process.end(limit)
    heart = asyncio.ensure_future(renewing([process]))

    await until(lambda: held(database, limit) == {})
    await process.begin(limit, give_up=clock.monotonic() + SOON)

    heart.cancel()
    assert held(database, limit) == {"idle": 1}


async def test_a_process_whose_lease_ended_begins_nothing_on_it(make_holds: MakeHolds, database: Database) -> None:
    limit, frozen, other = mailbox("dan"), make_holds("frozen"), make_holds("other")
    await frozen.begin(limit, give_up=clock.monotonic() + SOON)
    frozen.end(limit)
    await until(lambda: held(database, limit) == {})
    for _ in range(4):
        await other.begin(limit, give_up=clock.monotonic() + SOON)

    with pytest.raises(OverBudget):
        await frozen.begin(limit, give_up=clock.monotonic() + 0.2)
