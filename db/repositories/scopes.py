"""Scopes that are closed for a while, because whoever is behind them said so, and how they open again.

A row is closed until `until`, then half open: one run at a time holds the probe (`probe_until`) and tries. Its
success deletes the row, a new refusal closes the scope again. Scopes: account < tenant < project < provider.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from db.rows import as_json

FLEET_QUERIES = ("CLOSE", "OPEN_AGAIN", "FORGET", "PUSH_CALENDARS", "RECKON_UNITS", "PUT_OFF_TENANTS", "REFUSED")

LONGEST_CLOSURE = timedelta(hours=1)
"""Up to which the time doubles, when the provider named none."""

CLOSE = text("""
with c as (
  select x.scope, x.scope_id, max(x.seconds) as seconds, min(x.reason) as reason,
         bool_or(coalesce(x.given, true)) as given
    from json_to_recordset(cast(:closed as json))
      as x(scope text, scope_id text, seconds double precision, reason text, given boolean)
   group by x.scope, x.scope_id)
insert into sync.cooldowns as d (scope, scope_id, until, reason)
select c.scope, c.scope_id, c.ends, c.reason
  from (select c.*, now() + case when c.given or o.until is null or o.until > now() then c.seconds
                 else greatest(c.seconds, least(c.seconds * power(2, least(o.closures, 10)), :longest))
                 end * interval '1 second' as ends
          from c left join sync.cooldowns o on o.scope = c.scope and o.scope_id = c.scope_id) c
 order by c.scope, c.scope_id
on conflict (scope, scope_id) do update
  set until = greatest(d.until, excluded.until), reason = excluded.reason, created_at = now(), probe_until = null,
      closures = d.closures + (d.until <= now())::int
""")

OPEN_AGAIN = text("""
select extract(epoch from until - now())::float8 from sync.cooldowns
 where scope = :scope and scope_id = :scope_id and until > now()
""")

FORGET = text("delete from sync.cooldowns where until < now() - interval '1 hour'")

PROBE = text("""
with lk as materialized (
  select d.scope, d.scope_id from sync.cooldowns d
    join json_to_recordset(cast(:scopes as json)) as w(scope text, scope_id text) using (scope, scope_id)
   where d.until <= now() and (d.probe_until is null or d.probe_until <= now())
   order by d.scope, d.scope_id for no key update of d skip locked)
update sync.cooldowns d set probe_until = now() + :hold from lk
 where d.scope = lk.scope and d.scope_id = lk.scope_id returning d.scope, d.scope_id
""")

_HALF_OPEN = """
with lk as materialized (
  select d.scope, d.scope_id from sync.cooldowns d
    join json_to_recordset(cast(:scopes as json)) as w(scope text, scope_id text) using (scope, scope_id)
   where d.until <= now() order by d.scope, d.scope_id for no key update of d)
"""
OPEN = text(f"{_HALF_OPEN} delete from sync.cooldowns d using lk where d.scope = lk.scope and d.scope_id = lk.scope_id")
GIVE_UP_PROBE = text(
    f"{_HALF_OPEN} update sync.cooldowns d set probe_until = null from lk"
    " where d.scope = lk.scope and d.scope_id = lk.scope_id"
)

# The units are those of runs that this transaction has just ended: it holds their rows already.
PUSH_CALENDARS = text("""
with shut as materialized (
  select a.account_id, a.tenant_id, d.until from sync.cooldowns d
    join sync.accounts a on a.account_id = cast(d.scope_id as uuid)
   where d.scope = 'account' and d.scope_id = any(cast(:accounts as text[])) and d.until > now())
update sync.calendars c set next_due_at = s.until from shut s
 where c.account_id = s.account_id and c.tenant_id = s.tenant_id and c.state <> 'removed' and c.next_due_at < s.until
returning c.workspace_id
""")

RECKON_UNITS = text("""
update sync.units u set next_due_at = x.next_due_at,
       rest = case when x.next_due_at > u.next_due_at then 'cooldown' else u.rest end
  from (select c.workspace_id, c.tenant_id, min(c.next_due_at) as next_due_at from sync.calendars c
         where c.workspace_id = any(cast(:units as uuid[])) and c.state <> 'removed' group by 1, 2) x
 where u.unit_id = x.workspace_id and u.tenant_id = x.tenant_id and u.state = 'idle'
""")

PUT_OFF_TENANTS = text("""
with lk as materialized (
  select t.tenant_id, t.lane, d.until from sync.turns t
    join sync.cooldowns d on d.scope = 'tenant' and d.scope_id = t.tenant_id::text
   where t.tenant_id = any(cast(:tenants as uuid[])) and t.ready_at < d.until
     for no key update of t skip locked)
update sync.turns t set ready_at = lk.until from lk where t.tenant_id = lk.tenant_id and t.lane = lk.lane
""")

REFUSED = text("""
select a.provider, count(distinct a.identity)::integer as accounts, count(distinct a.tenant_id)::integer as tenants
  from sync.cooldowns d join sync.accounts a on a.account_id = cast(d.scope_id as uuid)
 where d.scope = 'account' and d.created_at > now() - :within and d.reason = any(cast(:reasons as text[]))
   and a.provider = any(cast(:providers as text[]))
   and not exists (select 1 from sync.cooldowns p
                    where p.scope = 'project' and p.scope_id = a.provider and p.until > now())
 group by a.provider
""")

STATE = text("""
select scope, scope_id, reason, until, created_at, closures, extract(epoch from until - now())::float8 as opens_in,
       extract(epoch from probe_until - now())::float8 as probed_for
  from sync.cooldowns
  join json_to_recordset(cast(:scopes as json)) as w(scope text, scope_id text) using (scope, scope_id)
 order by until desc
""")


@dataclass(frozen=True, slots=True)
class Refused:
    """How many accounts of how many tenants a provider has refused for quota just now."""

    provider: str
    accounts: int
    tenants: int


@dataclass(frozen=True, slots=True)
class Cooldown:
    """A scope that is closed (`opens_in` above 0) or half open; then `probed_for` says whether a run is trying."""

    scope: str
    scope_id: str
    reason: str
    until: datetime
    closed_at: datetime
    closures: int
    opens_in: float
    probed_for: float | None


def close(connection: Connection, closed: Iterable[Mapping[str, Any]]) -> None:
    """Close scopes for some seconds; one that is closed for longer stays so.

    Keys: scope, scope_id, seconds, reason, and `given`: False where the provider named no time. Then the seconds
    double with every time that the scope closes again before it was open.
    """
    connection.execute(CLOSE, {"closed": as_json(closed), "longest": LONGEST_CLOSURE.total_seconds()})


def open_again_in(connection: Connection, scope: str, scope_id: str) -> float | None:
    """Seconds until a scope opens; None if it is open."""
    seconds: float | None = connection.execute(OPEN_AGAIN, {"scope": scope, "scope_id": scope_id}).scalar()
    return seconds


def forget_old(connection: Connection) -> int:
    """Drop cooldowns that ended an hour ago."""
    return connection.execute(FORGET).rowcount


def probe(connection: Connection, scopes: Iterable[tuple[str, str]], *, hold: timedelta) -> set[tuple[str, str]]:
    """Take the probes of half open scopes; returns those that nobody else has. They come free again after `hold`."""
    rows = connection.execute(PROBE, {"scopes": _pairs(scopes), "hold": hold})
    return {(row.scope, row.scope_id) for row in rows}


def open_scopes(connection: Connection, scopes: Iterable[tuple[str, str]]) -> None:
    """Open scopes whose probe came through, unless somebody has closed them again meanwhile."""
    connection.execute(OPEN, {"scopes": _pairs(scopes)})


def give_up_probes(connection: Connection, scopes: Iterable[tuple[str, str]]) -> None:
    """Let others probe: this one said nothing about the scopes."""
    connection.execute(GIVE_UP_PROBE, {"scopes": _pairs(scopes)})


def put_off_accounts(connection: Connection, accounts: Sequence[str]) -> None:
    """Move what is due of closed accounts to the end of their cooldown, so that nobody claims it before.

    Only in the transaction that has ended the runs of their units: units are locked before calendars.
    """
    found = connection.execute(PUSH_CALENDARS, {"accounts": list(accounts)}).scalars()
    units: list[UUID] = sorted(set(found))
    if units:
        connection.execute(RECKON_UNITS, {"units": [str(unit) for unit in units]})


def put_off_tenants(connection: Connection, tenants: Sequence[str]) -> None:
    """Give closed tenants no turn before they open. Skips turns that are locked: the run finds it closed then."""
    connection.execute(PUT_OFF_TENANTS, {"tenants": list(tenants)})


def refused(
    connection: Connection, *, reasons: Sequence[str], providers: Sequence[str], within: timedelta
) -> list[Refused]:
    """Who was refused lately for one of these reasons, by provider, where the project is not closed already."""
    found = connection.execute(REFUSED, {"reasons": list(reasons), "providers": list(providers), "within": within})
    return [Refused(*row) for row in found]


def state(connection: Connection, scopes: Iterable[tuple[str, str]]) -> list[Cooldown]:
    """Those of the scopes that are closed or half open, the last to open first."""
    return [Cooldown(*row) for row in connection.execute(STATE, {"scopes": _pairs(scopes)})]


def _pairs(scopes: Iterable[tuple[str, str]]) -> str:
    return as_json({"scope": scope, "scope_id": scope_id} for scope, scope_id in scopes)
