"""The timetable and the tasks: every entry leads somewhere, every task is thin."""

import ast
import base64
import importlib
import inspect
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery

from beat_schedule import BEAT_SCHEDULE
from config.queues import ROUTES, Lane, Queue
from config.settings import get_settings
from tests.architecture.sources import CHECKOUT, Source, sources

LONGEST_TASK = 12  # lines of a body


@pytest.fixture(scope="module")
def app() -> Iterator[Celery]:
    """The product's app, built from a plain environment."""
    monkeypatch = pytest.MonkeyPatch()
    for name, value in {
        "DATABASE_URL": "postgresql://u:p@127.0.0.1:1/d",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "SUPABASE_URL": "http://127.0.0.1:1",
        "SUPABASE_SECRET_KEY": "sb_secret_x",
        "ENCRYPTION_KEYS": "1:" + base64.urlsafe_b64encode(b"k" * 32).decode(),
    }.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    package = importlib.import_module("tasks")
    for name in package.celery_app.TASK_MODULES:
        importlib.import_module(name)
    yield package.app
    monkeypatch.undo()
    get_settings.cache_clear()


def ours(app: Celery) -> dict[str, Any]:
    return {name: task for name, task in app.tasks.items() if task.__module__.startswith("tasks.")}


@pytest.mark.parametrize("entry", BEAT_SCHEDULE.values(), ids=BEAT_SCHEDULE.keys())
def test_an_entry_wakes_a_task_that_exists_in_a_queue_that_exists(app: Celery, entry: dict[str, Any]) -> None:
    task = ours(app)[entry["task"]]
    required = [
        name
        for name, parameter in inspect.signature(task.run).parameters.items()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]

    assert required == []
    assert entry["options"]["queue"] == ROUTES[entry["task"]].value


@pytest.mark.parametrize("entry", BEAT_SCHEDULE.values(), ids=BEAT_SCHEDULE.keys())
def test_an_entry_is_a_wake_up_that_expires(entry: dict[str, Any]) -> None:
    assert isinstance(entry["schedule"], timedelta)
    assert 2 <= entry["options"]["expires"] <= 60


def test_no_task_stands_in_the_timetable_twice() -> None:
    names = [entry["task"] for entry in BEAT_SCHEDULE.values()]

    assert len(names) == len(set(names))


def test_the_timetable_is_data() -> None:
    (source,) = (one for one in sources() if one.name == "beat_schedule.py")
    modules = {node.module for node in ast.walk(source.tree) if isinstance(node, ast.ImportFrom)}

    assert modules == {"datetime", "config.queues"}


def test_task_names_are_written_down_and_do_not_come_from_module_paths(app: Celery) -> None:
    names = set(ours(app))

    assert names == {"sync.dispatch", "sync.run_batch", "mirror.drain", "retention.cleanup", "metrics.collect"}
    assert names == set(ROUTES)
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

    assert len(bodies) == 5
    assert [node.name for node in bodies if (node.end_lineno or 0) - node.body[0].lineno > LONGEST_TASK] == []


def test_every_lane_is_a_queue() -> None:
    assert {lane.queue for lane in Lane} <= set(Queue)


def test_every_module_with_tasks_is_in_the_import_list(app: Celery) -> None:
    with_tasks = {
        source.name.removesuffix(".py").replace("/", ".") for source in sources("tasks") if any(tasks_of(source))
    }

    assert with_tasks == set(app.conf.include)
    assert (CHECKOUT / "tasks" / "__init__.py").is_file()
