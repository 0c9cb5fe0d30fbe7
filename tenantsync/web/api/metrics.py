"""`/metrics`: the newest readings in Prometheus' text format."""

import hmac
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request, Response

from db.ids import first_id_at
from db.repositories import overview, readings
from tenantsync import clock
from tenantsync.identity.roles import Role
from tenantsync.web.problems import Problem, responses
from tenantsync.web.services import Parts, Services
from tenantsync.web.viewers import MaybeSignedIn

router = APIRouter(tags=["health"])

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "tenantsync"
OLDEST = timedelta(hours=1)
COUNTERS = frozenset(
    {"api_calls", "bytes_in", "saved_calls", "saved_bytes", "quiet_runs", "changed_runs", "failed_runs"}
)
_NAME = re.compile(r"[^a-z0-9_]")


@router.get(
    "/metrics",
    operation_id="getMetrics",
    response_class=Response,
    responses={
        200: {"description": "Readings", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **responses(401, 403, 503),
    },
)
def metrics(request: Request, parts: Parts, viewer: MaybeSignedIn) -> Response:
    """The newest readings, for Prometheus. Operators and METRICS_TOKEN may read them."""
    if not _has_token(request, parts):
        if viewer is None:
            raise Problem(
                401, detail="Send METRICS_TOKEN or an operator's token.", headers={"WWW-Authenticate": "Bearer"}
            )
        if viewer.role is not Role.OPERATOR:
            raise Problem(403, detail="This needs the role operator, or METRICS_TOKEN.")
    with parts.database.statement() as connection:
        newest = overview.latest(connection, since=first_id_at(clock.now() - OLDEST))
        workers = readings.workers(connection)
    lines = [f"# TYPE {PREFIX}_web_streams gauge", f"{PREFIX}_web_streams {request.app.state.hub.streams}"]
    if newest is not None:
        lines += [f"# TYPE {PREFIX}_reading_age_seconds gauge", f"{PREFIX}_reading_age_seconds {newest.age:.3f}"]
        lines += _fleet(newest.details)
    lines += _workers(workers)
    return Response("\n".join(lines) + "\n", media_type=MEDIA_TYPE)


def _has_token(request: Request, parts: Services) -> bool:
    expected = parts.settings.metrics_token
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return (
        expected is not None
        and scheme.lower() == "bearer"
        and hmac.compare_digest(given.strip().encode(), expected.get_secret_value().encode())
    )


def _fleet(details: Mapping[str, Any]) -> Iterator[str]:
    for name, value in sorted(details.items()):
        metric = f"{PREFIX}_{_NAME.sub('_', name.lower())}"
        if name == "queues" and isinstance(value, dict):
            yield f"# TYPE {PREFIX}_queue_length gauge"
            for queue, length in sorted(value.items()):
                yield f'{PREFIX}_queue_length{{queue="{_label(queue)}"}} {length}'
        elif isinstance(value, dict):
            for part, inner in sorted(value.items()):
                if _is_number(inner):
                    yield f"# TYPE {metric}_{_NAME.sub('_', part.lower())} gauge"
                    yield f"{metric}_{_NAME.sub('_', part.lower())} {inner}"
        elif _is_number(value):
            suffix, kind = ("_total", "counter") if name in COUNTERS else ("", "gauge")
            yield f"# TYPE {metric}{suffix} {kind}"
            yield f"{metric}{suffix} {value}"


def _workers(rows: list[dict[str, Any]]) -> Iterator[str]:
    for column in ("slots", "active_tasks", "cpu_usage", "memory_usage", "silent_for", "up_for"):
        found = [(row["worker_id"], row[column]) for row in rows if row[column] is not None]
        if found:
            yield f"# TYPE {PREFIX}_worker_{column} gauge"
        for worker, value in found:
            yield f'{PREFIX}_worker_{column}{{worker="{_label(worker)}"}} {value}'


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _label(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
