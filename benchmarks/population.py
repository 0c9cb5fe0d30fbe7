"""Tenants by the ten thousand and units by the million, put into the database in bulk.

Row triggers and foreign keys are passed over (`session_replication_role`), so that only the rows that a
benchmark needs are written; turns are set ready at the end.
"""

import base64
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import psycopg2

from benchmarks.bodies import NEXT_SYNC_TOKEN
from db.ids import new_id
from tenantsync.calendars.google import QUERY_VERSION
from tenantsync.vault import Vault

TOKEN = "ya29.bench"  # noqa: S105 — the stub takes any
LEASE = timedelta(seconds=5)
CURSOR = NEXT_SYNC_TOKEN

NUMBERED_TENANTS = """
insert into sync.tenants (tenant_id, name)
select lpad(to_hex(n), 32, '0')::uuid, 'tenant-' || n from generate_series(1, %(tenants)s) n;
insert into sync.turns (tenant_id, lane, cap) select tenant_id, 'sync', %(cap)s from sync.tenants;
insert into sync.accounts (account_id, tenant_id, workspace_id, provider, identity)
select tenant_id, tenant_id, tenant_id, 'google', 'office@example.test' from sync.tenants;
"""
# One tenant owns a fifth of all units, all of them due; of the others' units a quarter is.
NUMBERED_UNITS = """
insert into sync.units (unit_id, tenant_id, lane, next_due_at)
select ('0197' || lpad(to_hex(n), 28, '0'))::uuid,
       lpad(to_hex(case when n %% 5 = 0 then 1 else 2 + hashint8(n) %% %(others)s + %(others)s * (hashint8(n) < 0)::int
         end), 32, '0')::uuid,
       'sync',
       now() - interval '1 minute' + case when n %% 5 = 0 or n %% 4 = 1 then interval '0' else interval '1 day' end
         + n * interval '1 microsecond'
  from generate_series(1, %(units)s) n;
"""
CALENDAR_EACH = """
insert into sync.calendars (
  calendar_id, tenant_id, workspace_id, account_id, provider_key, state, cursor, query_version, next_due_at, listed_at,
  full_calls, full_bytes)
select unit_id, tenant_id, unit_id, tenant_id, unit_id::text, 'synced', %(cursor)s, %(query)s, next_due_at, now(),
       1, 2000
  from sync.units;
"""
READY = """
update sync.turns t set ready_at = now()
 where lane = 'sync' and exists (select 1 from sync.units u
        where u.tenant_id = t.tenant_id and u.lane = t.lane and u.next_due_at <= now())
"""
LATER_TURNS = """
update sync.turns t set ready_at = (select min(u.next_due_at) from sync.units u
                                     where u.tenant_id = t.tenant_id and u.lane = t.lane)
 where ready_at = 'infinity' and exists (select 1 from sync.units u
        where u.tenant_id = t.tenant_id and u.lane = t.lane)
"""


@dataclass(frozen=True, slots=True)
class Planted:
    """A unit that a baseline can run: its ids and its account's."""

    tenant_id: UUID
    unit_id: UUID
    calendar_id: UUID
    account_id: UUID


@contextmanager
def bulk(url: str) -> Iterator[Any]:
    """A cursor in one transaction that passes over triggers and foreign keys."""
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("set local session_replication_role = replica")
        yield cursor


def vacuum(url: str, tables: Sequence[str]) -> None:
    """Leave tables as a settled system has them: their statistics known, their pages marked visible.

    No checkpoint follows. The first change of a page after one writes the whole page to the log; in a system
    that runs, a page is changed many times between two checkpoints, and here it was changed by the load.
    """
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for table in tables:
                cursor.execute(f"vacuum (analyze) {table}")


def numbered(url: str, *, tenants: int, units: int, cap: int = 50) -> None:
    """`units` units of `tenants` tenants, a calendar each, made inside Postgres. Nothing of it can be fetched."""
    with bulk(url) as cursor:
        cursor.execute(NUMBERED_TENANTS, {"tenants": tenants, "cap": cap})
        cursor.execute(NUMBERED_UNITS, {"units": units, "others": tenants - 1})
        cursor.execute(CALENDAR_EACH, {"cursor": CURSOR, "query": QUERY_VERSION})
    vacuum(url, ("sync.units", "sync.turns", "sync.calendars", "sync.tenants", "sync.accounts"))
    with bulk(url) as cursor:
        cursor.execute(READY)
        cursor.execute(LATER_TURNS)
    vacuum(url, ("sync.turns",))


def sizes(tenants: int, units: int) -> list[int]:
    """How many units each tenant has: a few large ones, many small ones, and none without."""
    shares = [1 / (rank + 10) for rank in range(tenants)]
    left = units - tenants
    counted = [1 + int(left * share / sum(shares)) for share in shares]
    counted[0] += units - sum(counted)
    return counted


def fetchable(url: str, vault: Vault, *, tenants: int, units: int, listing: int | None = None) -> list[Planted]:
    """Units with sealed credentials and a valid access token, due now: one account and one calendar each.

    With `listing`, calendars that were never listed, of that many events, in the bulk lane.
    """
    rng = random.Random(3)
    owners = [new_id() for _ in range(tenants)]
    planted = [
        Planted(owner, new_id(), new_id(), new_id())
        for owner, count in zip(owners, sizes(tenants, units), strict=True)
        for _ in range(count)
    ]
    rng.shuffle(planted)
    with bulk(url) as cursor:
        _copy(cursor, "sync.tenants", ("tenant_id", "name"), ((owner, f"tenant-{owner}") for owner in owners))
        lanes = ("sync", "bulk", "quarantine", "isolated")
        _copy(cursor, "sync.turns", ("tenant_id", "lane"), ((owner, lane) for owner in owners for lane in lanes))
        _copy(cursor, "mirror.turns", ("tenant_id",), ((owner,) for owner in owners))
        _copy(
            cursor,
            "sync.workspaces",
            ("workspace_id", "tenant_id", "name"),
            ((one.unit_id, one.tenant_id, f"office-{one.unit_id}") for one in planted),
        )
        lane = "sync" if listing is None else "bulk"
        _copy(
            cursor,
            "sync.units",
            ("unit_id", "tenant_id", "lane", "next_due_at"),
            ((one.unit_id, one.tenant_id, lane, "now") for one in planted),
        )
        _copy(cursor, "sync.accounts", _ACCOUNT, (_account(one, vault) for one in planted))
        _copy(cursor, "sync.calendars", _CALENDAR, (_calendar(one, listing) for one in planted))
        cursor.execute("update sync.turns set ready_at = now() where lane = %s", (lane,))
    vacuum(url, ("sync.tenants", "sync.turns", "sync.units", "sync.accounts", "sync.calendars"))
    return planted


_ACCOUNT = (
    "account_id", "tenant_id", "workspace_id", "provider", "identity", "credentials", "access_token",
    "access_expires_at",
)  # fmt: skip
_CALENDAR = (
    "calendar_id", "tenant_id", "workspace_id", "account_id", "provider_key", "name", "state", "cursor",
    "query_version", "full_calls", "full_bytes",
)  # fmt: skip


def _account(one: Planted, vault: Vault) -> tuple[object, ...]:
    def seal(plain: str, column: str) -> str:
        sealed = vault.seal(plain.encode(), tenant_id=one.tenant_id, account_id=one.account_id, column=column)
        return "\\\\x" + sealed.hex()

    credentials = seal(json.dumps({"refresh_token": base64.b64encode(one.unit_id.bytes).decode()}), "credentials")
    far = datetime.now(UTC) + timedelta(days=1)
    address = f"office@{one.unit_id}.example.test"
    return (
        one.account_id, one.tenant_id, one.unit_id, "google", address, credentials, seal(TOKEN, "access_token"),
        far.isoformat(),
    )  # fmt: skip


def _calendar(one: Planted, listing: int | None) -> tuple[object, ...]:
    ids = (one.calendar_id, one.tenant_id, one.unit_id, one.account_id)
    if listing is not None:
        return (*ids, f"large-{listing}@example.test", "large", "new", "\\N", "\\N", 0, 0)
    return (*ids, f"office@{one.unit_id}.example.test", "office", "synced", CURSOR, QUERY_VERSION, 1, 2000)


def _copy(cursor: Any, table: str, columns: Sequence[str], rows: Iterable[tuple[object, ...]]) -> None:
    source = StringIO("".join("\t".join(map(str, row)) + "\n" for row in rows))
    cursor.copy_expert(f"copy {table} ({', '.join(columns)}) from stdin", source)
