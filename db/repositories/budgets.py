"""Budgets of requests at providers, reserved before anything is sent: a GCRA a scope, on the database's clock.

`tat` is the moment until which the requests reserved so far are paid for. A reservation moves it on by `interval`
a request and is granted while it runs ahead of the clock by no more than `room`. tenantsync/limits/rules.py says
which intervals and rooms keep a limit; its `decide` is the same arithmetic in Python. No row is an idle budget.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, text

from db.rows import as_json

# Rows are locked in key order, whoever asks for which. A clock that was set back would leave `tat` far ahead: beyond
# a minute it counts as an empty bucket instead of a closed one. A row that somebody else adds at the same moment is
# missing in the answer, which means: ask again.
RESERVE = text("""
with w as materialized (
  select * from json_to_recordset(cast(:wanted as json))
      as w(scope text, scope_id text, n integer, pace double precision, room double precision)),
held as materialized (
  select b.scope, b.scope_id, w.n, w.pace, w.room, b.tat > now() + (w.room + 60) * interval '1 second' as set_back,
         greatest(b.tat, now()) as tat
    from sync.budgets b join w using (scope, scope_id) order by b.scope, b.scope_id for no key update of b),
based as (
  select h.*, case when set_back then now() + room * interval '1 second' else tat end as base from held h),
granted as materialized (
  select h.*, greatest(0, least(h.n, floor(
           (h.room - extract(epoch from h.base - now())::float8) / h.pace + 1e-9)))::integer as k from based h),
kept as (
  update sync.budgets b set tat = g.base + g.k * g.pace * interval '1 second'
    from granted g where b.scope = g.scope and b.scope_id = g.scope_id and (g.k > 0 or g.set_back) returning 1),
added as (
  insert into sync.budgets (scope, scope_id, tat)
  select w.scope, w.scope_id, now() + least(w.n, floor(w.room / w.pace + 1e-9)) * w.pace * interval '1 second' from w
   where not exists (select 1 from held h where h.scope = w.scope and h.scope_id = w.scope_id)
   order by w.scope, w.scope_id on conflict do nothing returning scope, scope_id, tat),
answer as (
  select g.scope, g.scope_id, g.k, g.base + g.k * g.pace * interval '1 second' as tat, g.pace, g.room from granted g
  union all
  select a.scope, a.scope_id, least(w.n, floor(w.room / w.pace + 1e-9))::integer, a.tat, w.pace, w.room
    from added a join w using (scope, scope_id))
select scope, scope_id, k, greatest(0, extract(epoch from tat - now())::float8 + pace - room)::float8 as wait
  from answer
""")

CHARGE = text("""
insert into sync.budgets as b (scope, scope_id, tat) values (:scope, :scope_id, now() + :cost)
on conflict (scope, scope_id) do update set tat = greatest(b.tat, now()) + :cost
""")

AHEAD = text("""
select extract(epoch from tat - now())::float8 from sync.budgets where scope = :scope and scope_id = :scope_id
""")

FORGET = text("delete from sync.budgets where tat < now() - interval '1 hour'")


@dataclass(frozen=True, slots=True)
class Reserved:
    """How many requests were granted, and the seconds after which one more would be."""

    granted: int
    wait: float


def reserve(connection: Connection, wanted: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Reserved]:
    """Reserve requests in many scopes at once, each as far as its budget goes, by (scope, scope_id).

    Keys of the mappings: scope, scope_id (each pair once), n, and in seconds pace and room. One statement.
    """
    rows = connection.execute(RESERVE, {"wanted": as_json(wanted)})
    return {(row.scope, row.scope_id): Reserved(row.k, row.wait) for row in rows}


def charge(connection: Connection, *, scope: str, scope_id: str, cost: timedelta) -> None:
    """Charge what has been sent already, beyond the budget if need be."""
    connection.execute(CHARGE, {"scope": scope, "scope_id": scope_id, "cost": cost})


def ahead(connection: Connection, *, scope: str, scope_id: str) -> float:
    """Seconds that reservations run ahead of the clock; 0 for an idle budget."""
    seconds: float | None = connection.execute(AHEAD, {"scope": scope, "scope_id": scope_id}).scalar()
    return max(0.0, seconds or 0.0)


def forget_idle(connection: Connection) -> int:
    """Drop budgets that nobody has used for an hour: they are as good as new."""
    return connection.execute(FORGET).rowcount
