"""How the fleet stands, as the API tells it and the overview shows it."""

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import Field

from db.ids import first_id_at
from db.repositories import overview, readings
from db.session import Database
from tenantsync import clock
from tenantsync.web.fields import Moment, Shown

Span = Literal["1h", "24h", "7d", "30d"]
SPANS: dict[Span, tuple[timedelta, int, int]] = {
    "1h": (timedelta(seconds=30), 120, 2),
    "24h": (timedelta(minutes=6), 240, 4),
    "7d": (timedelta(minutes=42), 240, 6),
    "30d": (timedelta(hours=3), 240, 8),
}
"""How long a point of the plots lasts, how many there are, and how many readings of each are looked at."""
STALE_AFTER = 60.0  # seconds; a reading comes every 15
LATELY = timedelta(days=1)
PROVEN_WITHIN = timedelta(days=35)
MOST_COOLDOWNS = 20
MOST_FAILURES = 5

RATES = {
    "runs": ("quiet_runs", "changed_runs", "failed_runs"),
    "failed_runs": ("failed_runs",),
    "api_calls": ("api_calls",),
}
"""What is shown for each second, out of counters that only grow."""
GAUGES = (
    "fresh_p50", "fresh_p95", "due", "in_flight", "oldest_due", "oldest_unsent", "oldest_occurrence", "outbox",
    "parked_rows", "failing_calendars", "needs_reauth", "cooldowns",
)  # fmt: skip


class Worker(Shown):
    """A Celery worker that was heard of."""

    worker_id: str
    queues: list[str]
    slots: int
    active_tasks: int
    cpu_usage: float | None
    memory_usage: float | None
    silent_for: float = Field(description="Seconds since its last heartbeat; one comes every second")
    up_for: float


class Cooldown(Shown):
    """A scope that a provider closed."""

    scope: str
    scope_id: str
    reason: str
    seconds: float = Field(description="Until it opens")


class Failure(Shown):
    """A run or a task that failed."""

    id: Any
    tenant_id: Any
    tenant: str | None
    kind: str
    error_log: str | None
    completed_at: Moment | None


class Proof(Shown):
    """What the last comparison of provider, Postgres and Supabase (`tenantsync audit`) found."""

    at: Moment
    age: float
    calendars: int
    proven: int
    explained: int
    unproven: int
    rows: int
    drift: int


class Overview(Shown):
    """The fleet at a glance. What is counted over everything is of the last reading, one in 15 seconds."""

    target: float = Field(description="Seconds within which a calendar counts as fresh: two polling intervals")
    read_at: Moment | None
    age: float | None = Field(description="Seconds since the reading")
    reading: dict[str, Any]
    workers: list[Worker]
    cooldowns: list[Cooldown]
    failures: list[Failure]
    proof: Proof | None
    wanted: dict[str, int]

    @property
    def stale(self) -> bool:
        """Whether nobody takes readings any more."""
        return self.age is None or self.age > STALE_AFTER

    @property
    def fresh_share(self) -> float | None:
        """Percent of calendars that are fresh."""
        watched = self.reading.get("calendars_watched")
        return None if not watched else 100 * float(self.reading["fresh"]) / float(watched)


class History(Shown):
    """Readings over a time, a value for each point; null where there was no reading. Rates are for a second."""

    span: Span
    target: float
    at: list[float] = Field(description="Seconds since 1970")
    series: dict[str, list[float | None]]


def read(database: Database, *, interval: timedelta) -> Overview:
    """How the fleet stands now."""
    now = clock.now()
    with database.statement() as connection:
        latest = overview.latest(connection, since=first_id_at(now - LATELY))
        workers = readings.workers(connection)
        cooldowns = readings.cooldowns(connection, limit=MOST_COOLDOWNS)
        failures = overview.failed_runs(connection, since=first_id_at(now - LATELY), limit=MOST_FAILURES)
        proof = overview.proof(connection, since=first_id_at(now - PROVEN_WITHIN))
        wanted = overview.wanted(connection)
    return Overview(
        target=2 * interval.total_seconds(),
        read_at=None if latest is None else latest.recorded_at,
        age=None if latest is None else latest.age,
        reading={} if latest is None else dict(latest.details),
        workers=[Worker.model_validate(one) for one in workers],
        cooldowns=[Cooldown.model_validate(one) for one in cooldowns],
        failures=[Failure.model_validate(one) for one in failures],
        proof=None if proof is None else Proof.model_validate(proof),
        wanted=wanted,
    )


def history(database: Database, *, span: Span, interval: timedelta) -> History:
    """Readings of the last hour, day, week or month."""
    step, points, samples = SPANS[span]
    now = clock.now().timestamp()
    end = (now // step.total_seconds() + 1) * step.total_seconds()
    first = datetime.fromtimestamp(end, UTC) - points * step
    with database.statement() as connection:
        rows = overview.history(connection, first=first, step=step, points=points, samples=samples)
    return History(span=span, target=2 * interval.total_seconds(), **arranged(rows, first, step, points))


def arranged(rows: list[dict[str, Any]], first: datetime, step: timedelta, points: int) -> dict[str, Any]:
    """Rows as columns, a place for each point; what only grows becomes what it grew by in a second."""
    by_point = {row["point"]: row for row in rows}
    series: dict[str, list[float | None]] = {name: [] for name in (*GAUGES, *RATES)}
    before: dict[str, Any] | None = None
    for point in range(points):
        row = by_point.get(point)
        for name in GAUGES:
            series[name].append(None if row is None else _rounded(row[name]))
        for name, counters in RATES.items():
            series[name].append(None if row is None or before is None else _rate(row, before, counters))
        before = row or before
    at = [(first + (point + 1) * step).timestamp() for point in range(points)]
    return {"at": at, "series": series}


def _rate(row: dict[str, Any], before: dict[str, Any], counters: tuple[str, ...]) -> float | None:
    if any(one[name] is None for one in (row, before) for name in counters):
        return None
    grown = sum(row[name] - before[name] for name in counters)
    seconds = row["at"] - before["at"]
    # A tenant that was deleted takes its counts along.
    return None if grown < 0 or seconds <= 0 else _rounded(grown / seconds)


def _rounded(value: float | None) -> float | None:
    """Three digits are what a plot shows."""
    return None if value is None else float(f"{value:.4g}")
