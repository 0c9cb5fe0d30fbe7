"""The dashboard's overview and list of tenants, through the real web process, with 10,000 tenants and 30 days of
readings: how long a page takes as its reader sees it, and what it weighs with everything that it needs.
"""

import re
import time
from collections.abc import Iterator

import httpx
from pydantic import SecretStr
from sqlalchemy import text

from benchmarks.ground import SECRET_KEY, Ground
from benchmarks.report import Figure
from db.session import Database
from sandbox import showroom
from tenantsync.identity import logins, people
from tenantsync.identity.roles import Role
from tenantsync.identity.tokens import Tokens

BENCH = "overview"
TENANTS, QUICK_TENANTS = 10_000, 1_000
DAYS, QUICK_DAYS = 30, 3
REQUESTS, QUICK_REQUESTS = 300, 60
WARM_UP = 20
SLOWEST = 100.0  # ms, of 95 in 100
HEAVIEST = 200.0  # kB over the wire
PASSWORD = "a passphrase for the benchmark"  # noqa: S105
PAGES = {
    "overview, a day": "/",
    "overview, a month": "/?span=30d",
    "tenants by name": "/tenants",
    "tenants, most trouble first": "/tenants?sort=trouble",
    "tenants, a search": "/tenants?q=clinic",
}
# Every tenant's freshness, one in 5 minutes, as the product writes it; of six hours, for a month would be 86 million.
FRESHNESS = text("""
insert into worker.system_metrics (id, scope, worker_id, tenant_id, recorded_at, details)
select gen_random_uuid(), 'tenant', 'fleet', tenant_id, moment,
       '{"calendars": 3, "failing": 0, "stalest": 44, "median": 30}'
  from sync.tenants, (select now() - n * interval '5 min' as moment from generate_series(1, 72) n) m
""")


def run(*, quick: bool) -> Iterator[Figure]:
    with Ground() as ground:
        showroom.fill(ground.database, tenants=QUICK_TENANTS if quick else TENANTS, days=QUICK_DAYS if quick else DAYS)
        with ground.database.statement() as connection:
            connection.execute(FRESHNESS)
            connection.execute(text("vacuum analyze"))
        cookie = _operator(ground.database)
        address = ground.start_web()
        headers = {"Accept-Encoding": "gzip"}
        with httpx.Client(
            base_url=address, cookies={"tenantsync": cookie}, headers=headers, trust_env=False, timeout=30
        ) as client:
            for what, path in PAGES.items():
                yield Figure(
                    BENCH,
                    f"p95 of {what}, {TENANTS if not quick else QUICK_TENANTS:,} tenants",
                    _p95(client, path, QUICK_REQUESTS if quick else REQUESTS),
                    "ms",
                    "at most",
                    SLOWEST,
                )
            for what in ("overview, a day", "tenants by name"):
                weight = _weight(client, PAGES[what])
                yield Figure(BENCH, f"transferred for {what}, nothing cached", weight, "kB", "at most", HEAVIEST)


def _operator(database: Database) -> str:
    """The cookie of somebody who is logged in."""
    wish = people.checked(email="operator@example.com", name="", role=Role.OPERATOR, language="en")
    with database.transaction() as connection:
        hashed = people.hashed(PASSWORD, email=wish.email)
        people.add(connection, wish, tenant_id=None, password_hash=hashed, by="benchmark")
    begun = logins.log_in(
        database,
        Tokens(SecretStr(SECRET_KEY)),
        email=wish.email,
        password=PASSWORD,
        address="127.0.0.1",
        use="cookie",
        user_agent=None,
    )
    return begun.token


def _p95(client: httpx.Client, path: str, count: int) -> float:
    """Milliseconds within which 95 of 100 answers were read to their end."""
    took = []
    for number in range(WARM_UP + count):
        began = time.monotonic()
        client.get(path).raise_for_status()
        if number >= WARM_UP:
            took.append((time.monotonic() - began) * 1000)
    return sorted(took)[int(0.95 * len(took))]


def _weight(client: httpx.Client, path: str) -> float:
    """Kilobytes over the wire for a page with its styles, scripts and pictures; without headers."""
    page = client.get(path)
    parts = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text))
    return (_size(page) + sum(_size(client.get(part)) for part in parts)) / 1000


def _size(answer: httpx.Response) -> int:
    answer.raise_for_status()
    return answer.num_bytes_downloaded
