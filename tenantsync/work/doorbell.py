"""The workers' doorbell: Supabase's Realtime says at once that a web app asked for something, or wants it no more.

It only shortens the wait. Tasks are looked for every SYNC_INTERVAL whether it rings or not, so a project without
Realtime, a ring that is lost and a process that is down cost time and nothing else. Whoever has (re)joined looks once
without being rung, for what rang meanwhile.
"""

import asyncio
import logging
import random
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import structlog
from realtime import AsyncRealtimeClient, RealtimeSubscribeStates
from sqlalchemy.exc import SQLAlchemyError

from config.settings import Settings

log = structlog.get_logger(__name__)

TOPIC = "workers"
EVENTS = ("inserted", "cancelled")
JOIN_TIMEOUT = 10  # seconds
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds until another try
TOGETHER = 0.1  # seconds in which many rings are one
LONG_JOINED = 60.0  # seconds of hearing after which trouble is new trouble
REJOIN_EVERY = 600.0  # seconds: how long a connection that is dead without a word may go unnoticed


class Doorbell:
    """Listens in a thread of its own for as long as the block lasts, and calls `ring`, which may take its time."""

    def __init__(self, settings: Settings, ring: Callable[[], None]) -> None:
        self._url = f"{str(settings.supabase_url).rstrip('/')}/realtime/v1"
        self._key = settings.supabase_secret_key.get_secret_value()
        self._ring = ring
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)
        self._listening: asyncio.Task[None] | None = None
        self.joined = threading.Event()
        """Set while rings are heard."""

    def __enter__(self) -> Self:
        # It tells of every failed attempt as an error; ours are told once, below.
        logging.getLogger("realtime").setLevel(logging.CRITICAL)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._listening = self._loop.create_task(self._listen_for_ever())
        self._loop.run_until_complete(asyncio.gather(self._listening, return_exceptions=True))

    def _stop(self) -> None:
        if self._listening is not None:
            self._listening.cancel()

    async def _listen_for_ever(self) -> None:
        rung = asyncio.Event()
        answering = asyncio.create_task(self._answer(rung))
        pause, told = FIRST_PAUSE, False
        try:
            while True:
                began = self._loop.time()
                why = await self._listen(rung)
                self.joined.clear()
                if why is None:
                    continue
                if self._loop.time() - began > LONG_JOINED:
                    pause, told = FIRST_PAUSE, False
                if not told:
                    log.info("doorbell_away", reason=why, hint="tasks are still looked for every SYNC_INTERVAL")
                    told = True
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 — spreads processes, no secret
                pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    async def _listen(self, rung: asyncio.Event) -> str | None:
        """Join and hear until it ends; returns why it ended, None where it was only time to join again."""
        client = AsyncRealtimeClient(self._url, self._key, auto_reconnect=False, timeout=JOIN_TIMEOUT)
        ended: asyncio.Future[str] = self._loop.create_future()

        def told(state: RealtimeSubscribeStates, _: Exception | None) -> None:
            if state == RealtimeSubscribeStates.SUBSCRIBED:
                log.info("doorbell_joined")
                self.joined.set()
                rung.set()
            elif not ended.done():
                ended.set_result(state.value)

        config: Any = {"config": {"private": True, "broadcast": {"ack": False, "self": False}}}
        try:
            channel = client.channel(TOPIC, config)
            for event in EVENTS:
                channel.on_broadcast(event, lambda _: rung.set())
            await channel.subscribe(told)
            return await asyncio.wait_for(ended, REJOIN_EVERY)
        except TimeoutError:
            return None if self.joined.is_set() else "TimeoutError"
        except Exception as error:  # noqa: BLE001 — whatever the client stumbles over, it is tried again
            return type(error).__name__
        finally:
            await asyncio.gather(client.close(), return_exceptions=True)

    async def _answer(self, rung: asyncio.Event) -> None:
        while True:
            await rung.wait()
            rung.clear()
            try:
                await asyncio.to_thread(self._ring)
            except SQLAlchemyError as error:
                log.warning("doorbell_unheard", error=type(error).__name__)
            await asyncio.sleep(TOGETHER)
