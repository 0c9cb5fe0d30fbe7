"""Tenants whose units kill workers again and again: into the isolated lane, and back."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, text

FLEET_QUERIES = ("ISOLATE", "FREE", "MOVE_IN", "MOVE_OUT", "FORGET")

PORTION = 1000  # units a statement

ISOLATE = text("""
with bad as materialized (
  select tenant_id, count(*) as n, max(happened_at) as last from sync.incidents
   where happened_at > now() - :window group by tenant_id having count(*) >= :enough)
update sync.tenants t
   set isolated_until = b.last + :length,
       isolated_reason = b.n || ' units killed their worker, the last at '
                         || to_char(b.last at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC'
  from bad b
 where t.tenant_id = b.tenant_id and t.isolated_until is distinct from b.last + :length
returning t.tenant_id
""")

FREE = text("""
update sync.tenants set isolated_until = null, isolated_reason = null
 where isolated_until < now() returning tenant_id
""")

_MOVE = """
with lk as materialized (
  select u.unit_id from sync.units u join sync.tenants t on t.tenant_id = u.tenant_id
   where {which} and u.state = 'idle' order by u.unit_id limit :n for no key update of u skip locked),
moved as (
  update sync.units u set lane = '{lane}' from lk where u.unit_id = lk.unit_id
  returning u.tenant_id, u.next_due_at),
woken as (
  update sync.turns t set ready_at = least(t.ready_at, greatest(m.due, now()))
    from (select tenant_id, min(next_due_at) as due from moved group by tenant_id) m
   where t.tenant_id = m.tenant_id and t.lane = '{lane}' returning 1)
select count(*) from moved
"""
MOVE_IN = text(_MOVE.format(lane="isolated", which="t.isolated_until > now() and u.lane <> 'isolated'"))
MOVE_OUT = text(_MOVE.format(lane="sync", which="t.isolated_until is null and u.lane = 'isolated'"))

FORGET = text("delete from sync.incidents where happened_at < now() - :age")


def isolate(connection: Connection, *, window: timedelta, enough: int, length: timedelta) -> list[UUID]:
    """Isolate tenants with `enough` incidents within `window`, until `length` after the last; those (newly) so."""
    return list(connection.execute(ISOLATE, {"window": window, "enough": enough, "length": length}).scalars())


def free(connection: Connection) -> list[UUID]:
    """End isolations whose time is over."""
    return list(connection.execute(FREE).scalars())


def move_units(connection: Connection) -> int:
    """Bring idle units into the lane that their tenant's isolation asks for; a portion, those in flight later."""
    return sum(int(connection.execute(move, {"n": PORTION}).scalar_one()) for move in (MOVE_IN, MOVE_OUT))


def forget(connection: Connection, *, age: timedelta) -> int:
    return connection.execute(FORGET, {"age": age}).rowcount
