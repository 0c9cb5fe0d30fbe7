"""The product's Celery app, imported with a plain environment: importing `tasks` reads the settings."""

import base64
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest

from config.settings import get_settings

PLAIN = {
    "DATABASE_URL": "postgresql://u:p@127.0.0.1:1/d",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "SUPABASE_URL": "http://127.0.0.1:1",
    "SUPABASE_SECRET_KEY": "sb_secret_x",
    "ENCRYPTION_KEYS": "1:" + base64.urlsafe_b64encode(b"k" * 32).decode(),
}


@contextmanager
def imported_tasks() -> Iterator[ModuleType]:
    """The package `tasks` with all its modules, in an environment whose servers do not exist."""
    monkeypatch = pytest.MonkeyPatch()
    for name, value in PLAIN.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    package = importlib.import_module("tasks")
    for name in package.celery_app.TASK_MODULES:
        importlib.import_module(name)
    yield package
    monkeypatch.undo()
    get_settings.cache_clear()
