"""The first answer to a request that may come again, kept for a day."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, text

# Held until the transaction ends, also through a pooler; whoever does not get it came while the first is answered.
HOLD = text("select pg_try_advisory_xact_lock(hashtextextended(:viewer || chr(10) || :key, 4))")
FIND = text("""
select fingerprint, status, headers, body from identity.idempotency_keys
 where viewer = :viewer and key = :key and created_at > now() - interval '1 day'
""")
KEEP = text("""
insert into identity.idempotency_keys (viewer, key, fingerprint, status, headers, body)
values (:viewer, :key, :fingerprint, :status, cast(:headers as jsonb), :body)
on conflict (viewer, key) do update set fingerprint = excluded.fingerprint, status = excluded.status,
  headers = excluded.headers, body = excluded.body, created_at = now()
""")


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer that was given before."""

    fingerprint: str
    status: int
    headers: dict[str, Any]
    body: bytes


def hold(connection: Connection, *, viewer: str, key: str) -> bool:
    """Whether nobody else answers this request just now; then nobody will until this transaction ends."""
    return bool(connection.execute(HOLD, {"viewer": viewer, "key": key}).scalar_one())


def find(connection: Connection, *, viewer: str, key: str) -> Kept | None:
    row = connection.execute(FIND, {"viewer": viewer, "key": key}).first()
    return None if row is None else Kept(row.fingerprint, row.status, row.headers or {}, bytes(row.body))


def keep(
    connection: Connection,
    *,
    viewer: str,
    key: str,
    fingerprint: str,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
) -> None:
    """Keep an answer for whoever asks again."""
    parameters = {
        "viewer": viewer,
        "key": key,
        "fingerprint": fingerprint,
        "status": status,
        "headers": orjson.dumps(headers).decode(),
        "body": body,
    }
    connection.execute(KEEP, parameters)
