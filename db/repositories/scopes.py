"""Scopes that are closed for a while, because whoever is behind them said so."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, text

from db.rows import as_json

FLEET_QUERIES = ("CLOSE", "OPEN_AGAIN", "FORGET")

CLOSE = text("""
insert into sync.cooldowns as d (scope, scope_id, until, reason)
select c.scope, c.scope_id, max(now() + c.seconds * interval '1 second'), min(c.reason)
  from json_to_recordset(cast(:closed as json)) as c(scope text, scope_id text, seconds double precision, reason text)
 group by c.scope, c.scope_id order by c.scope, c.scope_id
on conflict (scope, scope_id) do update
  set until = greatest(d.until, excluded.until), reason = excluded.reason, created_at = now()
""")

OPEN_AGAIN = text("""
select extract(epoch from until - now())::float8 from sync.cooldowns
 where scope = :scope and scope_id = :scope_id and until > now()
""")

FORGET = text("delete from sync.cooldowns where until < now() - interval '1 hour'")


def close(connection: Connection, closed: Iterable[Mapping[str, Any]]) -> None:
    """Close scopes for some seconds; one that is closed for longer stays so. Keys: scope, scope_id, seconds, reason."""
    connection.execute(CLOSE, {"closed": as_json(closed)})


def open_again_in(connection: Connection, scope: str, scope_id: str) -> float | None:
    """Seconds until a scope opens; None if it is open."""
    seconds: float | None = connection.execute(OPEN_AGAIN, {"scope": scope, "scope_id": scope_id}).scalar()
    return seconds


def forget_old(connection: Connection) -> int:
    """Drop cooldowns that ended an hour ago."""
    return connection.execute(FORGET).rowcount
