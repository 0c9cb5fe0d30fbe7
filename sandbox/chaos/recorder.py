"""The record that the storm is judged from: made by the database, not by the product.

A trigger of the storm's own writes every change of a unit's state or fence into `chaos.history`, with the
role that made it. The table is an ordinary one, because an unlogged one is emptied when Postgres crashes.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from contextlib import suppress
from typing import Self

import httpx
import psycopg2

from sandbox.chaos.checker import History, Step
from sandbox.chaos.world import StormWorld
from sandbox.google.control import ControlRefusedError

INSTALL = """
create schema chaos;
create table chaos.history (
  seq bigserial primary key, at timestamptz not null default clock_timestamp(), unit_id uuid not null,
  was text not null, now text not null, old_fence bigint, fence bigint, lease timestamptz, worker text,
  by text not null default session_user, counted integer not null);
create index history_at on chaos.history (at);
create function chaos.record() returns trigger language plpgsql as $$
begin
  if new.state is distinct from old.state or new.fence is distinct from old.fence then
    insert into chaos.history (unit_id, was, now, old_fence, fence, lease, worker, counted)
    values (new.unit_id, old.state, new.state, old.fence, new.fence, old.lease_until,
            coalesce(old.worker_id, new.worker_id),
            (new.quiet_runs + new.changed_runs + new.failed_runs)
              - (old.quiet_runs + old.changed_runs + old.failed_runs));
  end if;
  return null;
end $$;
create trigger chaos_history after update of state, fence on sync.units
  for each row execute function chaos.record();
"""
STEPS = """
select extract(epoch from at)::float8, unit_id::text, was, now, coalesce(old_fence, 0), coalesce(fence, 0),
       case when isfinite(lease) then extract(epoch from lease)::float8 end, worker, by, counted
  from chaos.history order by seq
"""
RUNS = """
select count(*) from chaos.history
 where at > to_timestamp(%s) and at <= to_timestamp(%s) and was = 'running' and counted > 0
"""
DEMAND = """
select count(*) from sync.units u join sync.tenants t using (tenant_id)
 where not t.paused and u.state <> 'parked' and u.next_due_at < 'infinity'
"""
POLL = 5.0  # seconds between two looks at the stand-in's log
TRIES = 20
PAUSE = 0.5


class Recorder:
    """The history in the database, and the requests that the Google stand-in was sent."""

    def __init__(self, world: StormWorld) -> None:
        self._world = world
        self.requests: dict[str, list[float]] = defaultdict(list)
        """Moments of API requests by account, token requests left out."""
        self._seq = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="request-log", daemon=True)

    def __enter__(self) -> Self:
        self._world.postgres.execute("tenantsync", INSTALL)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def history(self) -> History:
        """Everything so far."""
        return History(Step(*row) for row in self._world.ask(STEPS))

    def rate(self, since: float, until: float) -> float:
        """Runs that ended, per second of a span of the database's clock."""
        return float(self._asked(RUNS, since, until)) / max(0.001, until - since)

    def demand(self) -> int:
        """Units that are polled at present."""
        return self._asked(DEMAND)

    def _asked(self, query: str, *values: float) -> int:
        for attempt in range(1, TRIES + 1):
            try:
                return int(self._world.ask(query, *values)[0][0])
            except psycopg2.Error:
                if attempt == TRIES:
                    raise
                time.sleep(PAUSE)
        raise AssertionError("unreachable")

    def catch_up(self) -> None:
        """Read what the stand-in has logged since the last look."""
        with self._world.google.control() as google:
            for request in google.requests(since=self._seq):
                self._seq = max(self._seq, request.seq)
                if request.account is not None and request.endpoint != "token":
                    self.requests[request.account].append(request.time_ms / 1000)

    def _follow(self) -> None:
        while not self._stop.wait(POLL):
            with suppress(httpx.HTTPError, ControlRefusedError):
                self.catch_up()
