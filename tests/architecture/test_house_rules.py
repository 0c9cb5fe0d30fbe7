"""Conventions that are worth saying twice."""

import ast
from collections import Counter

import pytest

from tests.architecture.sources import PRODUCT, Source, attributes, calls, sources

LONGEST_FILE = 500
LONGEST_FUNCTION = 80
WRITTEN_BY_HAND = (*PRODUCT, "sandbox", "benchmarks", "tests")


def where(found: dict[str, list[int]], *allowed: str) -> dict[str, list[int]]:
    return {name: lines for name, lines in found.items() if lines and not name.startswith(allowed or ("-",))}


def test_commit_stands_in_the_session_module_alone() -> None:
    found = {source.name: calls(source, "commit") for source in sources()}

    assert where(found, "db/session.py", "db/migrations/env.py") == {}
    assert found["db/session.py"]


def test_the_clock_is_read_in_one_place() -> None:
    found = {
        source.name: attributes(source, "datetime", "now", "utcnow", "today")
        + attributes(source, "date", "today")
        + attributes(source, "time", "time", "monotonic", "perf_counter")
        for source in sources()
    }

    # a trace's seconds are compared with each other alone, and db may not import tenantsync
    assert where(found, "tenantsync/clock.py", "db/racepoints.py") == {}
    assert found["tenantsync/clock.py"]


def test_the_environment_is_read_in_one_place() -> None:
    found = {
        source.name: attributes(source, "os", "environ", "getenv") + calls(source, "getenv") for source in sources()
    }

    assert where(found, "config/settings.py") == {}


def test_sql_stands_in_the_database_package_alone() -> None:
    found = {source.name: calls(source, "text") for source in sources("tenantsync", "tasks", "config")}
    ours = {
        source.name: lines
        for source in sources("tenantsync", "tasks", "config")
        if (lines := found[source.name]) and "from sqlalchemy import" in source.text and "text" in _imported(source)
    }

    assert ours == {}


def _imported(source: Source) -> set[str]:
    return {
        alias.name
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom) and node.module == "sqlalchemy"
        for alias in node.names
    }


def test_no_message_is_ever_scheduled_for_later() -> None:
    late = ("eta", "countdown")
    found = {
        source.name: [
            node.lineno for node in ast.walk(source.tree) if isinstance(node, ast.keyword) and node.arg in late
        ]
        for source in sources()
    }

    assert where(found) == {}


def test_nobody_sleeps_while_holding_a_transaction_or_a_slot_for_long() -> None:
    found = {source.name: attributes(source, "time", "sleep") for source in sources()}

    # dispatch looks for a free slot every 20 ms; the audit, a pause and `sync now --wait` wait for others, outside any
    # worker
    assert (
        where(
            found,
            "tenantsync/dispatching/service.py",
            "tenantsync/dispatching/pausing.py",
            "tenantsync/audit/service.py",
            "tenantsync/cli/sync.py",
        )
        == {}
    )


@pytest.mark.parametrize("source", sources(*WRITTEN_BY_HAND), ids=lambda source: source.name)
def test_a_file_has_one_subject(source: Source) -> None:
    assert len(source.text.splitlines()) <= LONGEST_FILE


def test_a_function_can_be_read_at_once() -> None:
    long = {
        f"{source.name}:{node.name}": node.end_lineno - node.lineno
        for source in sources(*WRITTEN_BY_HAND)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno > LONGEST_FUNCTION
    }

    assert long == {}


def test_every_public_module_and_class_says_what_it_is() -> None:
    silent = [
        f"{source.name}:{getattr(node, 'name', '')}"
        for source in sources("config", "db/repositories", "tenantsync", "tasks")
        for node in [source.tree, *(n for n in source.tree.body if isinstance(n, ast.ClassDef))]
        if ast.get_docstring(node) is None and not getattr(node, "name", "").startswith("_")
    ]

    known_by_their_fields = {
        "AccountRow", "SealedAccount", "ClaimedUnit", "Key", "LeasedTenant", "StoredResource", "StagedRow",
        "Multistatus", "UnitOutcome", "Report", "Provider",
    }  # fmt: skip
    assert [name for name in silent if name.partition(":")[2] not in known_by_their_fields] == []


def test_nothing_written_here_names_a_path_of_one_machine() -> None:
    hints = ("/" + "work/main", "/" + "root/", "/" + "home/runner")
    found = [source.name for source in sources(*WRITTEN_BY_HAND) if any(hint in source.text for hint in hints)]

    assert found == []


def test_a_fixture_that_any_test_may_ask_for_has_a_name_of_its_own() -> None:
    """A plugin that one module names is loaded for all, and the later of two namesakes wins."""
    named = [
        node.name
        for source in sources("tests/support")
        if source.name.endswith("_fixtures.py")
        for node in source.tree.body
        if isinstance(node, ast.FunctionDef) and any("fixture" in ast.unparse(one) for one in node.decorator_list)
    ]

    assert [name for name, times in Counter(named).items() if times > 1] == []
    assert named
