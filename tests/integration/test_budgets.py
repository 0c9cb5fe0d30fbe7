"""Budgets as Postgres keeps them: the same arithmetic as the pure rules, for many scopes and many workers at once."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from db.repositories import budgets
from db.session import Database
from tenantsync import clock
from tenantsync.limits import rules
from tenantsync.limits.rules import BULK, POLLS, pace
from tests.support.shared_database import database_url, shared_database

__all__ = ["database_url", "shared_database"]

PLACE = text("""
insert into sync.budgets (scope, scope_id, tat) values ('account', :id, now() + :ahead)
on conflict (scope, scope_id) do update set tat = excluded.tat
""")
LEFT = text("select extract(epoch from tat - now())::float8 from sync.budgets where scope_id = :id")


def wanted(scope_id: str, *, limit: int, n: int, share: float = POLLS, scope: str = "account") -> dict[str, Any]:
    chosen = pace(limit)
    return {"scope": scope, "scope_id": scope_id, "n": n, "pace": chosen.interval, "room": chosen.room(share)}


@pytest.mark.parametrize("seed", range(5))
def test_the_statement_decides_as_the_rules_do(database: Database, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311
    asks = [
        (f"{seed}/{number}", dice.choice([10, 60, 600]), dice.randint(1, 50), dice.choice([POLLS, BULK]),
         dice.choice([None, 0.0, round(dice.uniform(-5, 8), 3)]))
        for number in range(60)
    ]  # fmt: skip

    with database.transaction() as connection:  # in which now() stands still
        for name, _, _, _, ahead in asks:
            if ahead is not None:
                connection.execute(PLACE, {"id": name, "ahead": timedelta(seconds=ahead)})
        got = budgets.reserve(
            connection, [wanted(name, limit=limit, n=n, share=share) for name, limit, n, share, _ in asks]
        )
        left = {name: connection.execute(LEFT, {"id": name}).scalar_one() for name, *_ in asks}

    for name, limit, n, share, ahead in asks:
        chosen = pace(limit)
        says = rules.decide(arrival=ahead, now=0.0, wanted=n, interval=chosen.interval, room=chosen.room(share))
        found = got["account", name]
        assert (found.granted, found.wait) == (says.granted, pytest.approx(says.wait, abs=1e-5)), name
        if says.granted:
            assert left[name] == pytest.approx(says.arrival, abs=1e-5)


def test_many_workers_asking_for_the_same_scopes_in_any_order_get_no_more_than_there_is(database: Database) -> None:
    names, limit, ends = [f"shared/{number}" for number in range(20)], 600, clock.monotonic() + 1.5
    began = clock.monotonic()

    def work(seed: int) -> dict[str, int]:
        dice, got = random.Random(seed), dict.fromkeys(names, 0)  # noqa: S311
        while clock.monotonic() < ends:
            some = dice.sample(names, 12)
            with database.statement() as connection:
                answer = budgets.reserve(connection, [wanted(name, limit=limit, n=3) for name in some])
            for (_, name), reserved in answer.items():
                got[name] += reserved.granted
        return got

    with ThreadPoolExecutor(5) as threads:
        totals = list(threads.map(work, range(5)))
    lasted = clock.monotonic() - began

    chosen = pace(limit)
    granted = {name: sum(total[name] for total in totals) for name in names}
    assert max(granted.values()) <= chosen.burst + lasted / chosen.interval + 1
    assert min(granted.values()) >= chosen.burst


def test_what_a_process_reserved_and_took_with_it_stays_charged(database: Database) -> None:
    with database.statement() as connection:
        first = budgets.reserve(connection, [wanted("gone", limit=10, n=5)])
        second = budgets.reserve(connection, [wanted("gone", limit=10, n=5)])

    assert first["account", "gone"].granted == 1
    assert second["account", "gone"].granted == 0
    assert second["account", "gone"].wait > 1


def test_a_database_clock_that_was_set_back_leaves_an_empty_bucket_and_not_a_closed_one(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(PLACE, {"id": "back", "ahead": timedelta(days=30)})

    with database.statement() as connection:
        now = budgets.reserve(connection, [wanted("back", limit=600, n=5)])
        ahead = budgets.ahead(connection, scope="account", scope_id="back")

    assert now["account", "back"].granted == 0
    assert ahead == pytest.approx(pace(600).room(POLLS), abs=0.5)


def test_idle_budgets_are_forgotten_and_used_ones_kept(database: Database) -> None:
    with database.transaction() as connection:
        for name, hours in (("idle", -2), ("used", 0)):
            connection.execute(PLACE, {"id": name, "ahead": timedelta(hours=hours)})
        forgotten = budgets.forget_idle(connection)
        left = connection.execute(text("select scope_id from sync.budgets")).scalars().all()

    assert (forgotten, "used" in left, "idle" in left) == (1, True, False)
