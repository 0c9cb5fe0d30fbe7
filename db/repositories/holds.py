"""How much of "so many at a time" each worker process holds. A hold ends with its lease; the row of the scope's
budget is the lock under which holds change."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, text

from db.rows import as_json

LOCK = text("""
insert into sync.budgets as b (scope, scope_id, tat) values (:scope, :scope_id, now())
on conflict (scope, scope_id) do update set tat = b.tat
""")

OTHERS = text("""
select coalesce(sum(held), 0)::integer as held, count(*)::integer as holders from sync.holds
 where scope = :scope and scope_id = :scope_id and holder <> :holder and until > now()
""")

PUT = text("""
insert into sync.holds (scope, scope_id, holder, held, until)
values (:scope, :scope_id, :holder, :held, now() + :lease)
on conflict (scope, scope_id, holder) do update set held = excluded.held, until = excluded.until
""")

RENEW = text("""
with mine as (select * from json_to_recordset(cast(:scopes as json)) as m(scope text, scope_id text)),
lk as materialized (
  select h.scope, h.scope_id from sync.holds h join mine using (scope, scope_id)
   where h.holder = :holder and h.until > now() order by h.scope, h.scope_id for no key update of h)
update sync.holds h set until = now() + :lease from lk
 where h.scope = lk.scope and h.scope_id = lk.scope_id and h.holder = :holder
returning h.scope, h.scope_id, (select count(*)::integer from sync.holds o
   where o.scope = h.scope and o.scope_id = h.scope_id and o.holder <> h.holder and o.until > now()) as holders
""")

GIVE_BACK = text("delete from sync.holds where scope = :scope and scope_id = :scope_id and holder = :holder")

HELD = text("""
select coalesce(sum(held), 0)::integer from sync.holds
 where scope = :scope and scope_id = :scope_id and until > now()
""")

FORGET = text("delete from sync.holds where until < now() - interval '1 minute'")


@dataclass(frozen=True, slots=True)
class Others:
    """What other processes hold of a scope, and how many of them are interested in it."""

    held: int
    holders: int


def lock(connection: Connection, *, scope: str, scope_id: str, holder: str) -> Others:
    """Keep a scope's holds from changing until commit, and read what others hold."""
    connection.execute(LOCK, {"scope": scope, "scope_id": scope_id})
    row = connection.execute(OTHERS, {"scope": scope, "scope_id": scope_id, "holder": holder}).one()
    return Others(row.held, row.holders)


def put(connection: Connection, *, scope: str, scope_id: str, holder: str, held: int, lease: timedelta) -> None:
    """Write down what a process holds; 0 says that it would like some."""
    parameters = {"scope": scope, "scope_id": scope_id, "holder": holder, "held": held, "lease": lease}
    connection.execute(PUT, parameters)


def renew(
    connection: Connection, *, scopes: Iterable[tuple[str, str]], holder: str, lease: timedelta
) -> dict[tuple[str, str], int]:
    """Extend a process's holds; returns how many others are interested in each. Those that had ended are missing."""
    rows = as_json({"scope": scope, "scope_id": scope_id} for scope, scope_id in scopes)
    found = connection.execute(RENEW, {"scopes": rows, "holder": holder, "lease": lease})
    return {(row.scope, row.scope_id): row.holders for row in found}


def give_back(connection: Connection, *, scope: str, scope_id: str, holder: str) -> None:
    connection.execute(GIVE_BACK, {"scope": scope, "scope_id": scope_id, "holder": holder})


def held(connection: Connection, *, scope: str, scope_id: str) -> int:
    """How many at a time the worker processes hold together."""
    return int(connection.execute(HELD, {"scope": scope, "scope_id": scope_id}).scalar_one())


def forget_old(connection: Connection) -> int:
    """Drop what processes held that are gone."""
    return connection.execute(FORGET).rowcount
