"""The timetable and the tasks: every entry leads somewhere, every task is thin."""

import ast
import inspect
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery

from beat_schedule import OCCURRENCES, WAKE_UPS
from config.queues import ROUTES, Lane, Queue
from config.timetable import Entry
from tenantsync.schedule.rules import refusals
from tests.architecture.sources import CHECKOUT, Source, sources
from tests.support.product import imported_tasks

LONGEST_TASK = 12  # lines of a body
TASKS = {
    "sync.dispatch",
    "sync.run_batch",
    "mirror.drain",
    "schedule.tick",
    "retention.cleanup",
    "metrics.collect",
    "metrics.freshness",
    "ledger.audit",
    "tenants.isolate",
    "processes.tend",
    "work.answer",
    "work.dispatch",
    "work.intake",
    "work.run",
}
"""The names that dashboards and alerts of other people know."""


@pytest.fixture(scope="module")
def app() -> Iterator[Celery]:
    """The product's app, built from a plain environment."""
    with imported_tasks() as package:
        yield package.app


def ours(app: Celery) -> dict[str, Any]:
    return {name: task for name, task in app.tasks.items() if task.__module__.startswith("tasks.")}


def parameters(task: Any) -> list[str]:
    return [
        name
        for name, parameter in inspect.signature(task.run).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]


@pytest.mark.parametrize("entry", WAKE_UPS.values(), ids=WAKE_UPS.keys())
def test_a_wake_up_rings_a_task_that_exists_in_a_queue_that_exists(app: Celery, entry: dict[str, Any]) -> None:
    assert parameters(ours(app)[entry["task"]]) == []
    assert entry["options"] == {"queue": ROUTES[entry["task"]].value}
    assert isinstance(entry["schedule"], timedelta)


@pytest.mark.parametrize("entry", OCCURRENCES.values(), ids=OCCURRENCES.keys())
def test_an_occurrence_is_a_task_that_is_told_which_one_and_goes_to_its_queue(app: Celery, entry: Entry) -> None:
    assert parameters(ours(app)[entry.task]) == ["occurrence"]
    assert app.conf.task_routes[entry.task] == {"queue": entry.queue.value}
    assert entry.queue in Queue


def test_the_timetable_is_one_that_beat_and_workers_take(app: Celery) -> None:
    assert refusals(WAKE_UPS, OCCURRENCES, ours(app).keys()) == []


def test_the_timetable_is_data() -> None:
    (source,) = (one for one in sources() if one.name == "beat_schedule.py")
    modules = {node.module for node in ast.walk(source.tree) if isinstance(node, ast.ImportFrom)}

    assert modules == {"datetime", "typing", "config.queues", "config.timetable"}


def test_task_names_are_written_down_and_do_not_come_from_module_paths(app: Celery) -> None:
    names = set(ours(app))

    assert names == TASKS
    assert names == set(ROUTES) | {entry.task for entry in OCCURRENCES.values()}
    assert all(re.fullmatch(r"[a-z]+\.[a-z_]+", name) for name in names)


def test_tasks_take_keywords_alone_and_survive_a_rolling_deploy(app: Celery) -> None:
    for task in ours(app).values():
        kinds = [parameter.kind for parameter in inspect.signature(task.run).parameters.values()]

        assert kinds[-1] is inspect.Parameter.VAR_KEYWORD
        assert all(kind is inspect.Parameter.KEYWORD_ONLY for kind in kinds[:-1])


def tasks_of(source: Source) -> Iterator[ast.FunctionDef]:
    for node in source.tree.body:
        if isinstance(node, ast.FunctionDef) and any("task" in ast.unparse(one) for one in node.decorator_list):
            yield node


def test_a_task_body_is_one_call_into_the_product() -> None:
    bodies = [node for source in sources("tasks") for node in tasks_of(source)]

    assert len(bodies) == len(TASKS)
    assert [node.name for node in bodies if (node.end_lineno or 0) - node.body[0].lineno > LONGEST_TASK] == []


def test_every_lane_is_a_queue() -> None:
    assert {lane.queue for lane in Lane} <= set(Queue)


def test_every_module_with_tasks_is_in_the_import_list(app: Celery) -> None:
    with_tasks = {
        source.name.removesuffix(".py").replace("/", ".") for source in sources("tasks") if any(tasks_of(source))
    }

    assert with_tasks == set(app.conf.include)
    assert (CHECKOUT / "tasks" / "__init__.py").is_file()
