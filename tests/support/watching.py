"""A reader who looks again and again while something happens."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2

from tests.support.waiting import wait_until


@contextmanager
def watching(url: str, query: str) -> Iterator[list[tuple[Any, ...]]]:
    """Everything that the query's one row says, from before the block until after it, on a connection of its own."""
    seen: list[tuple[Any, ...]] = []
    stop = threading.Event()

    def look() -> None:
        connection = psycopg2.connect(url)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                while not stop.is_set():
                    cursor.execute(query)
                    row = cursor.fetchone()
                    assert row is not None
                    seen.append(row)
        finally:
            connection.close()

    reader = threading.Thread(target=look, name="reader", daemon=True)
    reader.start()
    wait_until(lambda: seen, about="the reader's first look")
    try:
        yield seen
    finally:
        last = len(seen)
        wait_until(lambda: len(seen) > last + 1, about="the reader's last look")
        stop.set()
        reader.join()
