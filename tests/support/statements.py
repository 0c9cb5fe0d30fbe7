"""Every statement that a database is sent, seen at the driver, and one of them spoiled for good.

It sits below SQLAlchemy, as psycopg2's connection and cursor classes, so that COPY, the limits of a
transaction and COMMIT are statements like all others. What it does is real: Postgres itself refuses a
statement or ends the session.
"""

import threading
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import psycopg2.extensions
from sqlalchemy import event

from db.session import Database

PING = "SELECT 1"

Kill = Callable[[int], None]
"""Ends the server's side of a connection, by its backend's process id; returns once it is gone."""


class Spoil(StrEnum):
    REFUSED = "refused"
    """Postgres answers the statement with an error."""
    CUT_BEFORE = "cut before"
    """The session is ended before the statement arrives."""
    CUT_AFTER = "cut after"
    """The statement takes effect, and the session is ended before the caller hears of it."""


class StatementTap:
    """Counts the statements of a database while armed, and spoils the n-th (from 1)."""

    def __init__(self, kill: Kill) -> None:
        self._kill = kill
        self._lock = threading.Lock()
        self._armed = False
        self._at: int | None = None
        self._matching = ""
        self._how = Spoil.REFUSED
        self.seen: list[str] = []
        """Statements since the last arming, in order, each in one line."""

    def attach(self, database: Database) -> None:
        """Has to happen before the database's first connection."""
        event.listen(database._engine, "do_connect", self._choose_classes)
        event.listen(database._engine, "connect", self._connected)

    def arm(self, *, at: int | None = None, how: Spoil = Spoil.REFUSED, matching: str = "") -> None:
        """From now on, of the statements that hold the text `matching`, in any case."""
        with self._lock:
            self._armed, self._at, self._how, self._matching, self.seen = True, at, how, matching.lower(), []

    def disarm(self) -> None:
        with self._lock:
            self._armed = False

    def _choose_classes(self, _: Any, __: Any, ___: Any, parameters: dict[str, Any]) -> None:
        parameters["connection_factory"] = self._connection

    def _connection(self, dsn: str, *rest: Any) -> "_Connection":
        connection = _Connection(dsn, *rest)
        connection.tap = self
        return connection

    def _connected(self, connection: "_Connection", _: object) -> None:
        connection.counted = True  # what SQLAlchemy asks a new connection is not the product's

    def on(self, connection: "_Connection", statement: str, work: Callable[[], Any]) -> Any:
        """Do it, or spoil it."""
        with self._lock:
            counts = self._armed and connection.counted and statement != PING and self._matching in statement.lower()
            if counts:
                self.seen.append(" ".join(statement.split()))
            struck = counts and len(self.seen) == self._at
        return self._spoiled(connection, statement, work) if struck else work()

    def _spoiled(self, connection: "_Connection", statement: str, work: Callable[[], Any]) -> None:
        if self._how == Spoil.REFUSED:
            try:
                connection.untapped("select 1 / 0")
            finally:
                if statement == "COMMIT":  # one that Postgres refuses ends its transaction
                    connection.rollback()
        elif self._how == Spoil.CUT_BEFORE:
            self._kill(connection.info.backend_pid)
            work()
        else:
            work()
            self._kill(connection.info.backend_pid)
            connection.untapped("select 1")
        raise AssertionError("a spoiled statement did not fail")


class _Connection(psycopg2.extensions.connection):
    tap: StatementTap
    counted = False

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        return super().cursor(*args, **({"cursor_factory": _Cursor} | kwargs))

    def commit(self) -> None:
        self.tap.on(self, "COMMIT", super().commit)

    def untapped(self, statement: str) -> None:
        """Fails as the server makes it fail."""
        cursor = super().cursor()
        try:
            cursor.execute(statement)
        finally:
            cursor.close()


class _Cursor(psycopg2.extensions.cursor):
    connection: _Connection

    def execute(self, query: Any, vars: Any = None) -> Any:  # noqa: A002 — psycopg2's name
        return self.connection.tap.on(self.connection, str(query), lambda: super(_Cursor, self).execute(query, vars))

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> Any:
        return self.connection.tap.on(
            self.connection, str(sql), lambda: super(_Cursor, self).copy_expert(sql, file, size)
        )
