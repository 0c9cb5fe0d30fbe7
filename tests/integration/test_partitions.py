"""Monthly partitions: made ahead, dropped whole, and every id in its month."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from db import partitions
from db.ids import first_id_at, new_id
from db.session import Database, in_transaction

PARENTS = (
    "worker.tasks", "worker.execution_logs", "worker.system_metrics", "worker.audit_logs", "process.events",
    "process.delivery_log",
)  # fmt: skip
MILLISECOND = timedelta(milliseconds=1)
PLACE = "select tableoid::regclass::text from worker.tasks where id = :id"


def at(year: int, month: int, day: int = 1, *clock: int) -> datetime:
    return datetime(year, month, day, *clock, tzinfo=UTC)


@pytest.fixture
def ahead(database: Database) -> Callable[..., list[str]]:
    def make(now: datetime, **options: int) -> list[str]:
        return in_transaction(database, lambda connection: partitions.ensure_ahead(connection, now=now, **options))

    return make


@pytest.fixture
def drop(database: Database) -> Callable[[datetime], list[str]]:
    return lambda moment: in_transaction(database, lambda c: partitions.drop_before(c, moment=moment))


@pytest.fixture
def months(database: Database) -> Callable[[str], list[str]]:
    """The partitions that a table has, the default one left out."""

    def look(table: str) -> list[str]:
        query = text(
            "select c.oid::regclass::text from pg_inherits i join pg_class c on c.oid = i.inhrelid"
            " where i.inhparent = cast(:parent as regclass) and c.relname not like '%default' order by 1"
        )
        with database.reading() as connection:
            return list(connection.execute(query, {"parent": table}).scalars())

    return look


@pytest.fixture
def place(database: Database) -> Callable[[UUID], str]:
    """Stores a task under an id; returns the partition that it went to."""

    def put(task: UUID) -> str:
        with database.transaction() as connection:
            connection.execute(text("insert into worker.tasks (id, kind) values (:id, 'test')"), {"id": task})
            return str(connection.execute(text(PLACE), {"id": task}).scalar_one())

    return put


@pytest.mark.parametrize("table", PARENTS)
def test_this_month_and_the_next_three_are_made_for_every_history(
    ahead: Callable[..., list[str]], months: Callable[[str], list[str]], table: str
) -> None:
    made = ahead(at(2031, 4, 15))

    assert {f"{table}_2031_0{month}" for month in (4, 5, 6, 7)} <= set(made)
    assert {f"{table}_2031_0{month}" for month in (4, 5, 6, 7)} <= set(months(table))


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (at(2031, 10, 1), ["2031_10", "2031_11", "2031_12", "2032_01"]),
        (at(2031, 11, 30, 23, 59, 59), ["2031_11", "2031_12", "2032_01", "2032_02"]),
        (at(2031, 12, 31, 23, 59, 59, 999_999), ["2031_12", "2032_01", "2032_02", "2032_03"]),
        (at(2032, 1, 1), ["2032_01", "2032_02", "2032_03", "2032_04"]),
        (at(2032, 2, 29), ["2032_02", "2032_03", "2032_04", "2032_05"]),
    ],
)
def test_months_are_counted_over_the_end_of_a_year(
    ahead: Callable[..., list[str]], now: datetime, expected: list[str]
) -> None:
    made = ahead(now)

    assert [name for name in made if name.startswith("worker.tasks")] == [f"worker.tasks_{one}" for one in expected]


def test_more_than_a_year_ahead_has_no_gap(ahead: Callable[..., list[str]], place: Callable[[UUID], str]) -> None:
    ahead(at(2031, 1, 1), months=26)

    assert place(first_id_at(at(2033, 3, 31, 23, 59, 59))) == "worker.tasks_2033_03"


def test_making_months_that_are_there_makes_none(ahead: Callable[..., list[str]]) -> None:
    ahead(at(2031, 4, 15))

    assert ahead(at(2031, 4, 30)) == []


def test_the_next_month_adds_one_to_each(ahead: Callable[..., list[str]]) -> None:
    ahead(at(2031, 4, 30, 23, 59, 59))

    assert sorted(ahead(at(2031, 5, 1))) == sorted(f"{table}_2031_08" for table in PARENTS)


def test_two_that_make_months_at_once_both_succeed(ahead: Callable[..., list[str]]) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(ahead, [at(2031, 4, 15)] * 4))

    expected = [f"{table}_2031_0{month}" for table in PARENTS for month in (4, 5, 6, 7)]
    assert sorted(name for names in made for name in names) == sorted(expected)


@pytest.mark.parametrize(
    ("moment", "partition"),
    [
        (at(2031, 4, 1), "worker.tasks_2031_04"),
        (at(2031, 5, 1) - MILLISECOND, "worker.tasks_2031_04"),
        (at(2031, 5, 1), "worker.tasks_2031_05"),
        (at(2031, 7, 31, 23, 59, 59, 999_000), "worker.tasks_2031_07"),
    ],
)
def test_an_id_lands_in_its_month_to_the_millisecond(
    ahead: Callable[..., list[str]], place: Callable[[UUID], str], moment: datetime, partition: str
) -> None:
    ahead(at(2031, 4, 15))

    lowest = first_id_at(moment)
    highest = UUID(int=lowest.int | 0xFFF << 64 | (1 << 62) - 1)  # every random bit of the same millisecond set

    assert place(lowest) == partition
    assert place(highest) == partition


def test_an_id_made_now_lands_in_this_month(place: Callable[[UUID], str]) -> None:
    made = new_id()

    assert place(made) == f"worker.tasks_{datetime.fromtimestamp((made.int >> 80) / 1000, UTC):%Y_%m}"


@pytest.mark.parametrize(
    ("moment", "dropped"),
    [
        (at(2031, 5, 1), ["2031_04"]),
        (at(2031, 5, 1) - MILLISECOND, []),
        (at(2031, 5, 31, 23, 59, 59), ["2031_04"]),
        (at(2031, 8, 1), ["2031_04", "2031_05", "2031_06", "2031_07"]),
        (at(2032, 1, 1), ["2031_04", "2031_05", "2031_06", "2031_07"]),
    ],
)
def test_only_months_that_are_over_altogether_are_dropped(
    database: Database,
    ahead: Callable[..., list[str]],
    drop: Callable[[datetime], list[str]],
    moment: datetime,
    dropped: list[str],
) -> None:
    drop(at(2040, 1, 1))
    ahead(at(2031, 4, 15))

    gone = drop(moment)

    assert sorted(gone) == sorted(f"{table}_{month}" for table in PARENTS for month in dropped)


def test_a_month_goes_with_its_rows_and_leaves_the_others(
    database: Database,
    ahead: Callable[..., list[str]],
    drop: Callable[[datetime], list[str]],
    place: Callable[[UUID], str],
) -> None:
    ahead(at(2031, 4, 15))
    old, young, stray = (first_id_at(moment) for moment in (at(2031, 4, 9), at(2031, 5, 9), at(2020, 1, 1)))
    for task in (old, young, stray):
        place(task)

    drop(at(2031, 5, 1))

    with database.reading() as connection:
        assert set(connection.execute(text("select id from worker.tasks")).scalars()) == {young, stray}


def test_a_month_that_was_dropped_can_be_made_again(
    ahead: Callable[..., list[str]], drop: Callable[[datetime], list[str]]
) -> None:
    ahead(at(2031, 4, 15))
    drop(at(2031, 5, 1))

    assert sorted(ahead(at(2031, 4, 15))) == sorted(f"{table}_2031_04" for table in PARENTS)


def count_strays(connection: Connection) -> int:
    return partitions.strays(connection)


def test_rows_without_a_month_are_counted(database: Database, place: Callable[[UUID], str]) -> None:
    before = in_transaction(database, count_strays)

    where = [place(first_id_at(moment)) for moment in (at(2031, 4, 1), at(2019, 4, 1))]

    assert before == 0
    assert where == ["worker.tasks_default"] * 2
    assert in_transaction(database, count_strays) == 2


def test_a_month_is_made_although_rows_of_it_have_come_before_it(
    database: Database, ahead: Callable[..., list[str]], place: Callable[[UUID], str]
) -> None:
    early = first_id_at(at(2031, 4, 9))
    place(early)

    ahead(at(2031, 4, 15))

    with database.reading() as connection:
        assert connection.execute(text(PLACE), {"id": early}).scalar_one() == "worker.tasks_2031_04"
    assert in_transaction(database, count_strays) == 0
