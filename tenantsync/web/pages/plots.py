"""Plots without scripts: a line for each series, as the path of an SVG. Scripts put livelier ones in their place."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tenantsync.web.fleet import History

WIDTH, HEIGHT = 600, 100


@dataclass(frozen=True, slots=True)
class Series:
    """A line: the name of its values in the history, and its text's key."""

    name: str
    label: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a plot shows. `unit` is how its values are written: seconds, a rate or a count."""

    key: str
    unit: str
    series: tuple[Series, ...]
    target: bool = False


PLANS = (
    Plan("freshness", "s", (Series("fresh_p50", "p50"), Series("fresh_p95", "p95")), target=True),
    Plan("throughput", "/s", (Series("runs", "runs"), Series("api_calls", "calls"))),
    Plan(
        "backlog",
        "s",
        (Series("oldest_due", "due"), Series("oldest_unsent", "unsent"), Series("oldest_occurrence", "jobs")),
    ),
    Plan("dispatch", "", (Series("in_flight", "in_flight"), Series("due", "due_now"))),
    Plan("mirror", "", (Series("outbox", "outbox"), Series("parked_rows", "parked_rows"))),
    Plan(
        "trouble",
        "",
        (Series("failing_calendars", "failing"), Series("needs_reauth", "reconnect"), Series("cooldowns", "cooldowns")),
    ),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A series as it is drawn, and its last value."""

    label: str
    path: str
    last: float | None
    highest: float | None


@dataclass(frozen=True, slots=True)
class Drawing:
    """A plot, drawn."""

    plan: Plan
    lines: tuple[Line, ...]
    top: float
    target_y: float | None
    empty: bool


def draw(plan: Plan, history: History) -> Drawing:
    """The plot of a history."""
    columns = [history.series[one.name] for one in plan.series]
    values = [value for column in columns for value in column if value is not None]
    highest = max([*values, *([history.target] if plan.target else [])], default=0.0)
    top = ceiling(highest)
    return Drawing(
        plan=plan,
        lines=tuple(
            Line(
                one.label,
                path(column, top),
                next((value for value in reversed(column) if value is not None), None),
                max((value for value in column if value is not None), default=None),
            )
            for one, column in zip(plan.series, columns, strict=True)
        ),
        top=top,
        target_y=round(HEIGHT * (1 - history.target / top), 1) if plan.target else None,
        empty=not values,
    )


def ceiling(value: float) -> float:
    """The next round number, for the top of a scale."""
    if value <= 0:
        return 1.0
    size = 1.0
    while size * 10 <= value:
        size *= 10
    while size > value:
        size /= 10
    return next(size * step for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if size * step >= value * 1.02)


def path(values: Sequence[float | None], top: float) -> str:
    """The `d` of a path; where there is no value the line is broken."""
    step = WIDTH / max(1, len(values) - 1)
    parts, pen = [], "M"
    for number, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        parts.append(f"{pen}{number * step:.0f} {HEIGHT * (1 - min(value, top) / top):.1f}")
        pen = "L"
    return "".join(parts)


def times(history: History) -> list[datetime]:
    """Where the plots begin, where their middle is and where they end."""
    at = history.at
    return [datetime.fromtimestamp(at[place], UTC) for place in (0, len(at) // 2, -1)]
