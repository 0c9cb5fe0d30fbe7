"""One unit, the usual way: SELECT, GET, UPDATE, INSERT, commit. Both baselines run this."""

from urllib.parse import quote

import urllib3
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

SELECT = text("""
select c.calendar_id, c.tenant_id, c.provider_key, c.cursor, a.account_id
  from sync.calendars c join sync.accounts a on a.account_id = c.account_id
 where c.workspace_id = :unit and c.tenant_id = :tenant
""")
UPDATE = text("""
update sync.calendars set cursor = :cursor, last_success_at = now(), last_attempt_at = now(),
       next_due_at = now() + interval '1 minute', runs = runs + 1, failures = 0
 where calendar_id = :calendar and tenant_id = :tenant
""")
INSERT = text("""
insert into bench_runs (unit_id, tenant_id, outcome) values (:unit, :tenant, 'quiet')
""")
SCHEMA = """
create table bench_runs (
  id bigint generated always as identity primary key,
  unit_id uuid not null,
  tenant_id uuid not null,
  outcome text not null,
  finished_at timestamptz not null default now()
);
create index on bench_runs (tenant_id, finished_at);
"""
TOKEN = "ya29.bench"  # noqa: S105 — the stub takes any


def open_engine(url: str, *, connections: int) -> Engine:
    return create_engine(url.replace("postgresql://", "postgresql+psycopg2://"), pool_size=connections, max_overflow=0)


def open_http(*, connections: int) -> urllib3.PoolManager:
    """One pool for all threads, which is safe and keeps connections alive."""
    return urllib3.PoolManager(maxsize=connections, block=True, retries=False, timeout=urllib3.Timeout(20))


def sync_unit(engine: Engine, http: urllib3.PoolManager, base: str, *, unit: str, tenant: str) -> None:
    """Fetch what changed and write it down, in one transaction after the answer."""
    with Session(engine) as session:
        row = session.execute(SELECT, {"unit": unit, "tenant": tenant}).one()
        session.rollback()  # no transaction is held over the network: this baseline is not careless
        address = f"{base}calendars/{quote(row.provider_key, safe='')}/events"
        answer = http.request(
            "GET",
            address,
            fields={"maxResults": "2500", "showDeleted": "true", "singleEvents": "false", "syncToken": row.cursor},
            headers={"Authorization": f"Bearer {TOKEN}", "Accept-Encoding": "gzip", "User-Agent": "usual (gzip)"},
        )
        body = answer.json()
        if answer.status != 200 or body["items"]:
            raise RuntimeError(f"status {answer.status}")
        about = {"calendar": row.calendar_id, "tenant": row.tenant_id, "cursor": body["nextSyncToken"]}
        session.execute(UPDATE, about)
        session.execute(INSERT, {"unit": unit, "tenant": tenant})
        session.commit()
