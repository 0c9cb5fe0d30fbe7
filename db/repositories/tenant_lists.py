"""Tenants, to be searched, sorted and paged through by operators. Every list is bounded and goes on by its last key."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Connection, text

FLEET_QUERIES = ("BY_NAME", "NEWEST", "BY_TROUBLE", "STALEST", "NAMES")

Sort = Literal["name", "newest", "trouble", "stalest"]
Only = Literal["all", "paused", "isolated", "failing", "reconnect", "parked"]


@dataclass(frozen=True, slots=True)
class TenantLine:
    """A tenant at a glance. `sort_key` and `name` are where the next page begins."""

    tenant_id: UUID
    name: str
    paused: bool
    pause_reason: str | None
    isolated_until: datetime | None
    weight: float
    created_at: datetime
    units: int
    parked: int
    in_flight: int
    accounts: int
    broken: int
    calendars: int
    failing: int
    events: int
    stalest: float | None
    """Seconds since the last success of the calendar that waits longest."""
    sort_key: float


_CALENDARS = """
select count(*) as calendars, count(*) filter (where c.failures > 0) as failing,
       coalesce(sum(c.event_count), 0)::bigint as events,
       min(coalesce(c.last_success_at, c.created_at)) filter (where a.state = 'connected') as oldest
  from sync.calendars c join sync.accounts a on a.account_id = c.account_id and a.tenant_id = c.tenant_id
 where c.state <> 'removed' and c.tenant_id = t.tenant_id
"""
_ACCOUNTS = """
select count(*) as accounts, count(*) filter (where state <> 'connected') as broken
  from sync.accounts where state <> 'removed' and tenant_id = t.tenant_id
"""
_UNITS = """
select count(*) as units, count(*) filter (where state = 'parked') as parked,
       count(*) filter (where state in ('dispatched', 'running')) as in_flight
  from sync.units where tenant_id = t.tenant_id
"""
_SHOWN = """
t.tenant_id, t.name, t.paused, t.pause_reason,
       case when t.isolated_until > now() then t.isolated_until end as isolated_until, t.weight, t.created_at,
       u.units, u.parked, u.in_flight, a.accounts, a.broken, c.calendars, c.failing, c.events,
       extract(epoch from now() - c.oldest)::float8 as stalest, t.sort_key
"""
_FILTERED = """
(cast(:like as text) is null or t.name ilike :like or t.tenant_id::text = :exact)
   and case :only
         when 'paused' then t.paused
         when 'isolated' then t.isolated_until > now()
         when 'failing' then exists (select 1 from sync.calendars k
                where k.tenant_id = t.tenant_id and k.failures > 0 and k.state <> 'removed')
         when 'reconnect' then exists (select 1 from sync.accounts k
                where k.tenant_id = t.tenant_id and k.state in ('needs_reauth', 'unusable'))
         when 'parked' then exists (select 1 from sync.units k where k.tenant_id = t.tenant_id and k.state = 'parked')
         else true end
"""
_AFTER = "(cast(:name as text) is null or ({key}, t.name, t.tenant_id) > (:key, :name, cast(:id as uuid)))"

# Only the tenants of the page are looked into.
_LIGHT = f"""
with t as materialized (
  select t.*, {{key}} as sort_key from sync.tenants t
   where {_FILTERED} and {_AFTER} order by {{key}}, t.name, t.tenant_id limit :n)
select {_SHOWN} from t
 cross join lateral ({_CALENDARS}) c cross join lateral ({_ACCOUNTS}) a cross join lateral ({_UNITS}) u
 order by t.sort_key, t.name, t.tenant_id
"""
_NEWEST_KEY = "(-extract(epoch from t.created_at))::float8"
BY_NAME = text(_LIGHT.replace("{key}", "0::float8"))
NEWEST = text(_LIGHT.replace("{key}", _NEWEST_KEY))

# What sorts by what tenants hold counts everything once, and shows a page of it.
_HEAVY = f"""
with c as materialized ({{counted}}),
a as materialized (
  select tenant_id, count(*) as broken from sync.accounts
   where state in ('needs_reauth', 'unusable') group by tenant_id),
u as materialized (select tenant_id, count(*) as parked from sync.units where state = 'parked' group by tenant_id),
k as (
  select t.*, {{key}} as sort_key from sync.tenants t
    left join c on c.tenant_id = t.tenant_id left join a on a.tenant_id = t.tenant_id
    left join u on u.tenant_id = t.tenant_id
   where {_FILTERED}),
t as materialized (
  select * from k t where {_AFTER.replace("{key}", "t.sort_key")} order by t.sort_key, t.name, t.tenant_id limit :n)
select {_SHOWN} from t
 cross join lateral ({_CALENDARS}) c cross join lateral ({_ACCOUNTS}) a cross join lateral ({_UNITS}) u
 order by t.sort_key, t.name, t.tenant_id
"""
_OLDEST = """
select c.tenant_id, min(coalesce(c.last_success_at, c.created_at)) as oldest
  from sync.calendars c join sync.accounts a on a.account_id = c.account_id and a.tenant_id = c.tenant_id
 where c.state <> 'removed' and a.state = 'connected' group by c.tenant_id
"""
_FAILING = """
select tenant_id, count(*) as failing from sync.calendars where failures > 0 and state <> 'removed' group by tenant_id
"""
BY_TROUBLE = text(
    _HEAVY.replace("{counted}", _FAILING).replace(
        "{key}",
        "(-(10 * coalesce(u.parked, 0) + 5 * coalesce(a.broken, 0) + coalesce(c.failing, 0) + t.paused::int))::float8",
    )
)
STALEST = text(
    _HEAVY.replace("{counted}", _OLDEST).replace("{key}", "coalesce(extract(epoch from c.oldest), 'infinity')::float8")
)
_queries = {"name": BY_NAME, "newest": NEWEST, "trouble": BY_TROUBLE, "stalest": STALEST}

ONE = text(
    f"select {_SHOWN} from (select *, 0::float8 as sort_key from sync.tenants where tenant_id = :tenant) t "
    f"cross join lateral ({_CALENDARS}) c cross join lateral ({_ACCOUNTS}) a cross join lateral ({_UNITS}) u"
)

SHARE = text("""
select t.weight, max(n.cap) as cap, t.paused, t.pause_reason, t.isolated_reason,
       (select z.paused_by from sync.pauses z where z.tenant_id = :tenant and z.resumed_at is null) as paused_by,
       (select z.paused_at from sync.pauses z where z.tenant_id = :tenant and z.resumed_at is null) as paused_at
  from sync.tenants t join sync.turns n on n.tenant_id = t.tenant_id where t.tenant_id = :tenant group by t.tenant_id
""")

NAMES = text("select tenant_id, name from sync.tenants where tenant_id = any(cast(:ids as uuid[]))")


def listed(
    connection: Connection,
    *,
    sort: Sort = "name",
    only: Only = "all",
    search: str | None = None,
    after: tuple[float, str, UUID] | None = None,
    limit: int,
) -> list[TenantLine]:
    """Tenants whose name holds `search`, from behind the key of the last one that was shown."""
    key, name, last = after or (0.0, None, None)
    wanted = (search or "").strip()
    escaped = wanted.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    parameters = {
        "like": f"%{escaped}%" if wanted else None,
        "exact": wanted.lower(),
        "only": only,
        "key": key,
        "name": name,
        "id": last,
        "n": limit,
    }
    return [TenantLine(**row) for row in connection.execute(_queries[sort], parameters).mappings()]


def one(connection: Connection, *, tenant_id: UUID) -> TenantLine | None:
    """A tenant at a glance."""
    row = connection.execute(ONE, {"tenant": tenant_id}).mappings().one_or_none()
    return None if row is None else TenantLine(**row)


def share(connection: Connection, *, tenant_id: UUID) -> dict[str, Any]:
    """Its weight, how many of its units may run at once in a lane, and who paused it."""
    return dict(connection.execute(SHARE, {"tenant": tenant_id}).mappings().one())


def names(connection: Connection, *, ids: set[UUID]) -> dict[UUID, str]:
    """Names of tenants, for lists of what is theirs."""
    if not ids:
        return {}
    return {row.tenant_id: row.name for row in connection.execute(NAMES, {"ids": [str(one) for one in ids]})}
