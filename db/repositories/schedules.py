"""Occurrences of periodic jobs: how far each entry of the timetable is followed, and the rows it owes.

An entry's row in worker.schedules is the lock under which its occurrences are opened, given up and sent; whoever
does an occurrence holds it by a lease and ends it under the attempt that it was begun with. All of it on the
database's clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from db.ids import new_id
from db.rows import as_json

FLEET_QUERIES = (
    "STANDINGS", "WAITING", "OPEN", "FOLLOW", "SUPERSEDE", "GIVE_UP", "NEXT", "BEGIN", "RENEW", "END",
)  # fmt: skip

START_WITHIN = timedelta(seconds=8)
"""After this long an occurrence that was sent and has not begun is sent again: 10 s less a tick or two."""
MOST_ATTEMPTS = 5
"""Workers that an occurrence may lose before it counts as failed."""

_OPEN = "t.kind = s.kind and t.due_at is not null and t.status in ('pending', 'processing')"

STANDINGS = text(f"""
select s.entry, s.kind, s.every, s.policy, s.since, s.last_tick, s.earlier, s.done, s.failed, s.skipped, s.superseded,
       now() as now, o.open, o.free_at
  from worker.schedules s
 cross join lateral (select count(*) as open, min(t.lease_until) as free_at from worker.tasks t where {_OPEN}) o
 order by s.entry
""")

# Three moves by which the table comes to follow the timetable's names: an entry that now names another task leaves
# its old row behind under a name that no entry can bear; a task whose entry was renamed takes its row along.
SET_ASIDE = text("""
update worker.schedules s set entry = '~' || s.kind
  from json_to_recordset(cast(:entries as json)) as e(entry text, kind text)
 where e.entry = s.entry and e.kind <> s.kind
""")

RENAME = text("""
update worker.schedules s set entry = e.entry
  from json_to_recordset(cast(:entries as json)) as e(entry text, kind text)
 where e.kind = s.kind and e.entry <> s.entry
""")

REGISTER = text("""
insert into worker.schedules (entry, kind, every, policy)
select e.entry, e.kind, make_interval(secs => e.seconds), e.policy
  from json_to_recordset(cast(:entries as json)) as e(entry text, kind text, seconds float8, policy text)
on conflict do nothing
""")

LOCK = text("""
select every, policy, since, last_tick, earlier, now() as now
  from worker.schedules where kind = :kind for no key update skip locked
""")

WAITING = text("""
select count(*) from worker.tasks
 where kind = :kind and due_at is not null and status in ('pending', 'processing')
""")

OPEN = text("""
with rows as (
  select * from json_to_recordset(cast(:rows as json))
    as r(key text, id uuid, due_at timestamptz, status text, result json, error text)),
keys as (
  insert into worker.task_keys (key, task_id) select key, id from rows on conflict (key) do nothing returning task_id)
insert into worker.tasks (id, kind, queue, status, due_at, lease_until, completed_at, result, error_log)
select r.id, :kind, :queue, r.status, r.due_at, case when r.status = 'pending' then now() end,
       case when r.status = 'skipped' then now() end, r.result::jsonb, r.error
  from rows r join keys k on k.task_id = r.id
""")

FOLLOW = text("""
update worker.schedules
   set every = :every, policy = :policy, since = :since, last_tick = greatest(last_tick, :last_tick),
       earlier = :earlier, skipped = skipped + :skipped
 where kind = :kind
""")

SUPERSEDE = text("""
with gone as (
  update worker.tasks set status = 'superseded', completed_at = now(), updated_at = now(), lease_until = null,
         error_log = :reason
   where kind = :kind and due_at < :before and status in ('pending', 'processing')
     and (status = 'pending' or (status = 'processing' and lease_until <= now()))
  returning 1)
update worker.schedules set superseded = superseded + (select count(*) from gone)
 where kind = :kind and exists (select 1 from gone)
""")

GIVE_UP = text("""
with gone as (
  update worker.tasks set status = 'failed', completed_at = now(), updated_at = now(), lease_until = null,
         error_log = 'given up: its worker was lost ' || attempts || ' times'
   where kind = :kind and due_at is not null and status = 'processing' and lease_until <= now() and attempts >= :most
  returning 1)
update worker.schedules set failed = failed + (select count(*) from gone)
 where kind = :kind and exists (select 1 from gone)
""")

# One at a time: the next is sent when the one before has ended or lost its lease.
NEXT = text("""
update worker.tasks set lease_until = now() + :start_within, worker_id = 'unassigned', updated_at = now()
 where id = (select t.id from worker.tasks t
              where t.kind = :kind and t.due_at is not null and t.status in ('pending', 'processing')
              order by t.due_at limit 1)
   and not exists (select 1 from worker.tasks t
                    where t.kind = :kind and t.due_at is not null and t.status in ('pending', 'processing')
                      and t.lease_until > now())
returning id
""")

BEGIN = text("""
update worker.tasks
   set status = 'processing', attempts = attempts + 1, worker_id = :worker, started_at = now(), updated_at = now(),
       lease_until = now() + :lease
 where id = :id and due_at is not null and attempts < :most
   and (status = 'pending' or (status = 'processing' and (worker_id = 'unassigned' or lease_until <= now())))
returning id, kind, due_at, attempts
""")

RENEW = text("""
update worker.tasks set lease_until = now() + :lease, worker_id = :worker
 where id = :id and attempts = :attempt and status = 'processing'
""")

END = text("""
with ended as (
  update worker.tasks set status = :status, completed_at = now(), updated_at = now(), lease_until = null,
         result = cast(:result as jsonb), error_log = :error
   where id = :id and attempts = :attempt and status = 'processing' returning kind, status)
update worker.schedules s
   set done = done + (e.status = 'completed')::int, failed = failed + (e.status = 'failed')::int
  from ended e where e.kind = s.kind
returning s.entry
""")


@dataclass(frozen=True, slots=True)
class EntryReading:
    """An entry as it is followed. `open` occurrences wait or run; the first of their leases ends at `free_at`."""

    entry: str
    kind: str
    every: timedelta
    policy: str
    since: datetime
    last_tick: datetime
    earlier: int
    done: int
    failed: int
    skipped: int
    superseded: int
    now: datetime
    open: int
    free_at: datetime | None

    @property
    def accounted(self) -> int:
        """Occurrences that have become something, or wait, or run."""
        return self.done + self.failed + self.skipped + self.superseded + self.open


@dataclass(frozen=True, slots=True)
class LockedEntry:
    """An entry under lock, and the database's moment."""

    every: timedelta
    policy: str
    since: datetime
    last_tick: datetime
    earlier: int
    now: datetime


@dataclass(frozen=True, slots=True)
class Begun:
    """An occurrence that we hold, under this attempt."""

    occurrence: UUID
    kind: str
    due_at: datetime
    attempt: int


def standings(connection: Connection) -> list[EntryReading]:
    """Every entry that was ever followed; one that left the timetable stays where it was."""
    return [EntryReading(**row) for row in connection.execute(STANDINGS).mappings()]


def register(connection: Connection, entries: Iterable[Mapping[str, Any]]) -> None:
    """Follow these entries (entry, kind, seconds, policy) from now on; what is followed already stays as it is."""
    rows = {"entries": as_json(entries)}
    for statement in (SET_ASIDE, RENAME, REGISTER):
        connection.execute(statement, rows)


def lock(connection: Connection, *, kind: str) -> LockedEntry | None:
    """Hold an entry until the transaction ends; None while somebody else does."""
    row = connection.execute(LOCK, {"kind": kind}).mappings().one_or_none()
    return None if row is None else LockedEntry(**row)


def waiting(connection: Connection, *, kind: str) -> int:
    """Occurrences that wait or run."""
    return int(connection.execute(WAITING, {"kind": kind}).scalar_one())


def open_occurrences(connection: Connection, *, kind: str, queue: str, rows: Sequence[Mapping[str, Any]]) -> int:
    """Write occurrences down (key, due_at, status, result, error), each key once; returns how many were new."""
    prepared = [{"id": new_id(), **row} for row in rows]
    return connection.execute(OPEN, {"kind": kind, "queue": queue, "rows": as_json(prepared)}).rowcount


def follow(
    connection: Connection,
    *,
    kind: str,
    every: timedelta,
    policy: str,
    since: datetime,
    last_tick: datetime,
    earlier: int,
    skipped: int,
) -> None:
    """Note how far an entry is followed, and that `skipped` more of its occurrences were skipped."""
    values = {"every": every, "policy": policy, "since": since, "last_tick": last_tick, "earlier": earlier}
    connection.execute(FOLLOW, {"kind": kind, "skipped": skipped, **values})


def supersede(connection: Connection, *, kind: str, before: datetime, reason: str) -> None:
    """Give up occurrences that were due before a moment and that nobody is at."""
    connection.execute(SUPERSEDE, {"kind": kind, "before": before, "reason": reason})


def give_up(connection: Connection, *, kind: str) -> None:
    """Fail what has lost as many workers as it may."""
    connection.execute(GIVE_UP, {"kind": kind, "most": MOST_ATTEMPTS})


def next_to_send(connection: Connection, *, kind: str) -> UUID | None:
    """The occurrence to send now, noted as sent; None while one is under way, or none waits."""
    found: UUID | None = connection.execute(NEXT, {"kind": kind, "start_within": START_WITHIN}).scalar()
    return found


def begin(connection: Connection, *, occurrence: UUID, worker: str, lease: timedelta) -> Begun | None:
    """Take an occurrence under a new attempt; None if it is over, or somebody is at it."""
    parameters = {"id": occurrence, "worker": worker, "lease": lease, "most": MOST_ATTEMPTS}
    row = connection.execute(BEGIN, parameters).one_or_none()
    return None if row is None else Begun(*row)


def renew(connection: Connection, *, begun: Begun, worker: str, lease: timedelta) -> bool:
    """Go on holding it; False once somebody else does."""
    parameters = {"id": begun.occurrence, "attempt": begun.attempt, "worker": worker, "lease": lease}
    return connection.execute(RENEW, parameters).rowcount == 1


def end(connection: Connection, *, begun: Begun, result: Mapping[str, Any] | None, error: str | None) -> bool:
    """Complete it, or fail it when there is an error; False, and nothing written, once somebody else holds it."""
    parameters = {
        "id": begun.occurrence,
        "attempt": begun.attempt,
        "status": "failed" if error else "completed",
        "result": None if result is None else orjson.dumps(result).decode(),
        "error": error,
    }
    return connection.execute(END, parameters).rowcount == 1
