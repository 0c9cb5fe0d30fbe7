"""A timetable on a real database, whose past the test makes up."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from config.timetable import Entry
from db.repositories import schedules
from db.session import Database
from tenantsync.schedule import occurrences, rules, service

Timetable = dict[str, Entry]

NOW = int(datetime.now(UTC).timestamp())
CALM = timedelta(seconds=next(one for one in range(40_000, 80_000) if one / 4 < NOW % one < 3 * one / 4))
"""An interval in whose middle we are: no test sees a tick pass by chance."""
LEASE = timedelta(seconds=60)


class Clockwork:
    """Ticks a timetable on a real database, whose past the test makes up."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.sent: list[UUID] = []

    def tick(self, timetable: Timetable) -> int:
        return service.tick(self.database, lambda _, occurrence: self.sent.append(occurrence), timetable)

    def run(self, occurrence: UUID, work: occurrences.Work = lambda _: None, *, worker: str = "w") -> bool:
        return occurrences.run(self.database, occurrence, work, worker=worker, lease=LEASE)

    def pretend(self, *, since: timedelta) -> None:
        """As if every entry had been followed until so long ago, and nobody had ticked since."""
        self.execute("update worker.schedules set since = now() - :ago, last_tick = now() - :ago", ago=since)

    def lose(self) -> None:
        """Every lease ends: messages did not arrive in time, workers are gone."""
        self.execute("update worker.tasks set lease_until = now() - interval '1 s' where lease_until is not null")

    def execute(self, statement: str, **parameters: Any) -> None:
        with self.database.transaction() as connection:
            connection.execute(text(statement), parameters)

    def rows(self, status: str | None = None) -> list[Any]:
        with self.database.reading() as connection:
            found = connection.execute(text("select * from worker.tasks where due_at is not null order by due_at, id"))
            return [row for row in found if status in (None, row.status)]

    def reading(self, entry: str = "job") -> schedules.EntryReading:
        with self.database.statement() as connection:
            (found,) = (one for one in schedules.standings(connection) if one.entry == entry)
        return found

    def expected(self, entry: str = "job") -> int:
        one = self.reading(entry)
        rule = rules.Rule(one.every, one.policy)  # type: ignore[arg-type]
        return rules.Standing(rule, one.since, one.last_tick, one.earlier).expected
