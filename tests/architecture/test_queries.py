"""Rule 10: every query names its tenant, but for a declared list of fleet queries."""

import importlib
import pkgutil
import re
from types import ModuleType

import pytest
from sqlalchemy import TextClause

from db import repositories

TENANT_TABLES = re.compile(
    r"\b(?:sync\.(?:tenants|workspaces|units|turns|accounts|calendars|events|tombstones|quarantined_items)"
    r"|process\.(?:processes|events|snapshots|questions|acknowledgements|deliveries)"
    r"|mirror\.(?:outbox|turns|parked_rows)|worker\.(?:tasks|execution_logs|audit_logs))\b"
)
NAMES_TENANT = re.compile(
    r"tenant_id\s*=\s*:tenant\b"  # read, changed
    r"|values \([^)]*:tenant\b|select [^\n]*:tenant\b"  # written
    r"|\.tenant_id = x\.tenant_id|:calendar and fence"  # sets that carry their tenant; a run's own staged rows
)
LEDGER = re.compile(r"\binsert into worker\.(?:tasks|execution_logs|audit_logs)\b")


def modules() -> list[ModuleType]:
    return [
        importlib.import_module(f"db.repositories.{info.name}") for info in pkgutil.iter_modules(repositories.__path__)
    ]


def queries(module: ModuleType) -> dict[str, str]:
    """Every SQL text of a module, by the name of its constant."""
    found: dict[str, str] = {}
    for name, value in vars(module).items():
        if isinstance(value, TextClause):
            found[name] = value.text
        elif isinstance(value, dict) and name.isupper():
            found |= {f"{name}": one.text for one in value.values() if isinstance(one, TextClause)}
    return found


ALL = [(module.__name__, name, sql, module) for module in modules() for name, sql in queries(module).items()]


@pytest.mark.parametrize(("module_name", "name", "sql", "module"), ALL, ids=[f"{m}.{n}" for m, n, _, _ in ALL])
def test_a_query_names_its_tenant_or_is_a_declared_fleet_query(
    module_name: str, name: str, sql: str, module: ModuleType
) -> None:
    touches = TENANT_TABLES.search(sql) is not None
    declared = name in getattr(module, "FLEET_QUERIES", ())

    assert not touches or declared or NAMES_TENANT.search(sql) or LEDGER.search(sql), (
        f"{module_name}.{name} reads or writes tenants' rows without naming the tenant"
    )


def test_the_list_of_fleet_queries_holds_no_name_that_is_gone() -> None:
    for module in modules():
        declared = set(getattr(module, "FLEET_QUERIES", ()))

        assert declared <= set(queries(module)), module.__name__


def test_fleet_queries_are_a_short_list() -> None:
    declared = [name for module in modules() for name in getattr(module, "FLEET_QUERIES", ())]

    assert len(declared) < len(ALL) * 0.7
