"""Supabase's Realtime as a doorbell: a thread that joins the tenant's private topic and tells of rings.

It needs the package `websockets`; without it, `RealtimeMissing` is raised and one looks every few seconds instead.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote

JOIN_WITHIN = 10.0  # seconds
HEARTBEAT = 25.0
RENEW = 240.0
"""Seconds until a token is asked for again and handed in; Supabase's are good for an hour unless told otherwise."""


class RealtimeMissing(Exception):
    """The package that speaks WebSocket is not installed."""


class Doorbell:
    """Joins in a thread of its own, once: `told("joined" | "ring" | "ended", payload)` is called there."""

    def __init__(
        self, url: str, apikey: str, token: Callable[[], str], topic: str, told: Callable[[str, Any], None]
    ) -> None:
        if find_spec("websockets") is None:
            raise RealtimeMissing("install tenantsync-client[realtime]")
        root = url.rstrip("/").replace("http", "ws", 1)
        self._address = f"{root}/realtime/v1/websocket?apikey={quote(apikey, safe='')}&vsn=1.0.0"
        self._token, self._topic, self._told = token, f"realtime:{topic}", told
        self._wire: Any = None
        self._leaving = threading.Event()
        self._ref = 0
        self._thread = threading.Thread(target=self._run, name="tenantsync-doorbell", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leave; returns when the thread has ended."""
        self._leaving.set()
        if (wire := self._wire) is not None:
            with contextlib.suppress(Exception):
                wire.close()
        self._thread.join(JOIN_WITHIN)

    def _run(self) -> None:
        try:
            why = self._listen()
        except Exception as error:  # noqa: BLE001 — whatever it was, one looks again and joins again
            why = f"Realtime: {type(error).__name__}"
        self._told("ended", why)

    def _listen(self) -> str:
        from websockets.sync.client import connect  # noqa: PLC0415 — it may be missing

        with connect(self._address, open_timeout=JOIN_WITHIN) as wire:
            self._wire = wire
            config = {"private": True, "broadcast": {"ack": False, "self": False}, "presence": {"enabled": False}}
            self._say(self._topic, "phx_join", {"config": config, "access_token": self._token()})
            beat, renew = time.monotonic() + HEARTBEAT, time.monotonic() + RENEW
            while not self._leaving.is_set():
                with contextlib.suppress(TimeoutError):
                    why = self._hear(json.loads(wire.recv(timeout=max(0.1, min(beat, renew) - time.monotonic()))))
                    if why is not None:
                        return why
                now = time.monotonic()
                if now >= beat:
                    self._say("phoenix", "heartbeat", {})
                    beat = now + HEARTBEAT
                if now >= renew:
                    self._say(self._topic, "access_token", {"access_token": self._token()})
                    renew = now + RENEW
        return "left"

    def _hear(self, said: dict[str, Any]) -> str | None:
        """Why it is over, if it is."""
        payload = said.get("payload") or {}
        if said.get("topic") != self._topic:
            return None
        event = said.get("event")
        if event == "phx_reply" and said.get("ref") == "1":
            if payload.get("status") != "ok":
                return f"Realtime refuses the topic: {(payload.get('response') or {}).get('reason')}"
            self._told("joined", None)
        elif event == "broadcast":
            self._told("ring", payload)
        elif event == "system" and payload.get("status") == "error":
            return f"Realtime: {payload.get('message')}"
        elif event in ("phx_close", "phx_error"):
            return "Realtime closed the channel"
        return None

    def _say(self, topic: str, event: str, payload: dict[str, Any]) -> None:
        self._ref += 1
        said = {"topic": topic, "event": event, "payload": payload, "ref": str(self._ref), "join_ref": "1"}
        self._wire.send(json.dumps(said))
