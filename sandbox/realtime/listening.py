"""Broadcasts from the database: a trigger of the stand-in's schema names each new row of `realtime.messages`."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import psycopg2
import psycopg2.extensions

from sandbox.realtime.hub import Hub

log = logging.getLogger(__name__)

CHANNEL = "realtime_messages"
PAUSE = 0.5  # seconds before another try when the database is away
_READ = "select id::text, topic, event, payload, private from realtime.messages where id = any(%s::uuid[])"


class Listener:
    """Hands what the database broadcasts to the hub, in the order of commits. What happens while it is away is lost."""

    def __init__(self, dsn: str, hub: Hub) -> None:
        self._dsn = dsn
        self._hub = hub
        self.listening = False

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                connection = await asyncio.to_thread(self._connect)
            except psycopg2.Error as error:
                log.warning("realtime does not reach the database: %s", type(error).__name__)
            else:
                try:
                    await self._listen(connection)
                except psycopg2.Error as error:
                    log.warning("realtime has lost the database: %s", type(error).__name__)
                finally:
                    self.listening = False
                    connection.close()
            await asyncio.sleep(PAUSE)

    def _connect(self) -> Any:
        connection = psycopg2.connect(self._dsn, connect_timeout=5, application_name="realtime stand-in")
        connection.set_isolation_level(psycopg2.extensions.ISOLATION_LEVEL_AUTOCOMMIT)
        with connection.cursor() as cursor:
            cursor.execute(f"listen {CHANNEL}")
        return connection

    async def _listen(self, connection: Any) -> None:
        loop, heard = asyncio.get_running_loop(), asyncio.Event()
        wire = connection.fileno()  # a connection that is lost does not say it any more
        loop.add_reader(wire, heard.set)
        self.listening = True
        try:
            while True:
                await heard.wait()
                heard.clear()
                connection.poll()
                names = [notice.payload for notice in connection.notifies]
                connection.notifies.clear()
                if names:
                    self._deliver(names, await asyncio.to_thread(self._read, connection, names))
                if connection.notifies:  # they came along with what was read
                    heard.set()
        finally:
            loop.remove_reader(wire)

    def _read(self, connection: Any, names: list[str]) -> dict[str, tuple[str, str, Any, bool]]:
        with connection.cursor() as cursor:
            cursor.execute(_READ, (names,))
            return {name: (topic, event, payload, private) for name, topic, event, payload, private in cursor}

    def _deliver(self, names: list[str], rows: dict[str, tuple[str, str, Any, bool]]) -> None:
        for name in names:
            if name in rows:
                topic, event, payload, private = rows[name]
                self._hub.broadcast(topic, event, payload, private=bool(private), message_id=name)
