"""Budgets over whole fleets, judged by the provider's own log: no window over the limit, and a fair share for each."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from config.queues import Lane
from config.settings import Settings
from db.session import Database
from sandbox.google.control import GoogleControl
from sandbox.google.specs import AccountInfo, SeedSpec
from sandbox.servers.radicale import Radicale
from tenantsync.limits import service
from tenantsync.limits.rules import Limit, Scope, pace
from tenantsync.limits.service import Limits
from tests.support.caldav_proxy import Asked, CaldavProxy, Step, Told
from tests.support.fleet import Fleet, TenantHandle, make_settings
from tests.support.windows import fullest, most_at_once

WINDOW = 2.0  # seconds; like a minute's quota, but a test can watch several
PAGES = 25

MakeWorkers = Callable[..., list[Fleet]]


def google_limits(*, account: int, project: int) -> Limits:
    def limits(*, provider: str, identity: str | None, host: str | None) -> tuple[Limit, ...]:
        return (
            Limit(Scope("account", f"google/{identity}"), pace(account, window=WINDOW)),
            Limit(Scope("project", "google"), pace(project, window=WINDOW)),
        )

    return limits


@pytest.fixture
def make_workers(database: Database, settings: Settings) -> Iterator[MakeWorkers]:
    """Makes fleets with limits of their own over one database, as if each were a worker process."""
    made: list[Fleet] = []

    def make(count: int, limits: Limits | None = None, chosen: Settings = settings) -> list[Fleet]:
        made.extend(Fleet(database, chosen, worker=f"worker-{n}", limits=limits) for n in range(count))
        return made

    yield make
    for worker in made:
        worker.close()


def with_pages(google: GoogleControl, emails: Sequence[str]) -> list[AccountInfo]:
    """Accounts whose first sync takes `PAGES` requests each."""
    google.configure(page_size=2)
    accounts = [google.create_account(email) for email in emails]
    for email in emails:
        google.seed(email, email, SeedSpec(events=2 * PAGES, series_every=0))
    return accounts


def run_at_once(workers: Sequence[Fleet], shares: Sequence[Sequence[TenantHandle]]) -> None:
    """Every worker runs the first syncs of its tenants, each unit in a batch of its own, all at the same time."""
    claimed = {unit.tenant_id: unit for unit in workers[0].claim(Lane.BULK)}
    jobs = [
        (worker, claimed[tenant.tenant_id]) for worker, share in zip(workers, shares, strict=True) for tenant in share
    ]
    with ThreadPoolExecutor(len(jobs)) as threads:
        for done in [threads.submit(worker.run_batch, Lane.BULK, [unit]) for worker, unit in jobs]:
            assert done.result()["units"] == 1


def moments(google: GoogleControl, account: str | None = None) -> list[float]:
    return [entry.time_ms / 1000 for entry in google.requests(account=account, endpoint="events.list")]


def test_no_window_is_over_an_accounts_budget_though_three_workers_page_through_it(
    make_workers: MakeWorkers, google: GoogleControl
) -> None:
    limit, email = 80, "ann@example.test"
    workers = make_workers(3, google_limits(account=limit, project=10_000))
    (account,) = with_pages(google, [email])
    tenants = [workers[0].tenant() for _ in range(6)]
    for tenant in tenants:
        workers[0].google(tenant, google, account=account)
    google.clear_requests()

    run_at_once(workers, [tenants[0:2], tenants[2:4], tenants[4:6]])

    asked = moments(google, email)
    assert len(asked) == len(tenants) * PAGES
    assert max(asked) - min(asked) > 2 * WINDOW
    assert fullest(asked, WINDOW) <= limit
    assert {row["failures"] for row in workers[0].rows("select failures from sync.calendars")} == {0}


def test_two_workers_share_a_projects_budget_fairly_and_never_exceed_it(
    make_workers: MakeWorkers, google: GoogleControl
) -> None:
    limit = 80
    workers = make_workers(2, google_limits(account=10_000, project=limit))
    emails = [f"user{number}@example.test" for number in range(8)]
    accounts = with_pages(google, emails)
    tenants = [workers[0].tenant() for _ in emails]
    for tenant, account in zip(tenants, accounts, strict=True):
        workers[0].google(tenant, google, account=account)
    google.clear_requests()

    run_at_once(workers, [tenants[:4], tenants[4:]])

    first, second = (
        [moment for email in half for moment in moments(google, email)] for half in (emails[:4], emails[4:])
    )
    # While both want: whoever begins later or ends sooner leaves the budget to the other meanwhile.
    since, until = max(min(first), min(second)), min(max(first), max(second))
    share = sum(since <= one <= until for one in first) / sum(since <= one <= until for one in first + second)
    assert 0.2 <= share <= 0.8  # of some forty requests; whoever starves the other has all of them
    assert fullest(first + second, WINDOW) <= limit


def test_over_its_budget_a_calendar_is_put_off_and_neither_blamed_nor_closed(
    make_workers: MakeWorkers, google: GoogleControl
) -> None:
    def limits(*, provider: str, identity: str | None, host: str | None) -> tuple[Limit, ...]:
        return (Limit(Scope("account", f"google/{identity}"), pace(2, window=600.0)),)

    (worker,) = make_workers(1, limits)
    account = google.create_account("ann@example.test")
    one, other = worker.tenant(), worker.tenant()
    for tenant in (one, other):
        worker.google(tenant, google, account=account)
    google.clear_requests()

    worker.run()

    put_off = one if worker.calendar(one)["runs"] == 0 else other
    left, unit = worker.calendar(put_off), worker.unit(put_off)
    assert len(moments(google)) == 1
    assert (left["failures"], left["state"], left["runs"]) == (0, "new", 0)
    assert (unit["state"], unit["failed_runs"], unit["rest"]) == ("idle", 0, "budget")
    assert worker.rows("select 1 from sync.units where next_due_at > now() + interval '100 s'") != []
    assert worker.rows("select 1 from sync.cooldowns") == []


def test_a_reading_tells_how_full_a_budget_is_and_when_the_next_request_fits(
    make_workers: MakeWorkers, google: GoogleControl, settings: Settings
) -> None:
    chosen = make_settings(**{
        **{name: getattr(settings, name) for name in ("database_url", "google_api_endpoint", "google_token_uri")},
        "google_user_quota_per_minute": 20, "google_quota_per_minute": 1000,
    })  # fmt: skip
    (worker,) = make_workers(1, None, chosen)
    tenant = worker.tenant()
    worker.google(tenant, google)
    worker.run()

    with worker.database.statement() as connection:
        account, project = service.readings(
            connection, chosen, provider="google", identity="ann@example.test", endpoint=None
        )

    assert (account.scope, project.scope) == (Scope("account", "google/ann@example.test"), Scope("project", "google"))
    assert account.used > 0.5
    assert 0 < account.next_in <= 3 * pace(20).interval
    assert project.used < 0.2
    assert project.next_in == 0.0


class Watch:
    """A quirk that notes when requests are under way at the server."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []

    async def __call__(self, asked: Asked, step: Step) -> Told:
        began = service.clock.monotonic()
        told = await step(asked)
        self.spans.append((began, service.clock.monotonic()))
        return told


def test_a_caldav_server_gets_no_more_at_a_time_than_it_may_from_all_workers(
    make_workers: MakeWorkers, radicale: Radicale, settings: Settings
) -> None:
    chosen = make_settings(settings.database_url, caldav_server_concurrency=3)
    workers = make_workers(2, None, chosen)
    tenants = [workers[0].tenant() for _ in range(4)]
    with CaldavProxy(radicale.url) as proxy:
        for tenant in tenants:
            user = f"limit{tenant.name}"
            radicale.add_user(user)
            for name in ("work", "home"):
                radicale.create_calendar(user, name)
            workers[0].caldav(tenant, radicale, user, url=proxy.url)
        watch = Watch()
        proxy.behave(watch)

        run_at_once(workers, [tenants[:2], tenants[2:]])

    assert len(watch.spans) >= 16
    assert 1 < most_at_once(watch.spans) <= 3
    assert {row["state"] for row in workers[0].rows("select state from sync.calendars")} == {"synced"}
