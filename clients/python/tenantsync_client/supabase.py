"""Supabase: Realtime rings, and what is new is read from the table."""

import queue
from collections.abc import Iterator
from typing import Any

import httpx

from tenantsync_client import sending
from tenantsync_client.realtime import Doorbell, RealtimeMissing
from tenantsync_client.sending import Token
from tenantsync_client.values import Opened, ProcessEvent, Refused, Ring, Unavailable

PAGE = 500
LOOK_EVERY = 30.0
"""Seconds between two looks without a ring, because Realtime promises no delivery."""
WITHOUT_BELL = 2.0
COLUMNS = (
    "id,process_id,event_type,event_sequence:sequence,event_category,event_priority,event_source,created_at,event_data"
)


class SupabaseFeed:
    """One process in one project, as a signed-in member of its tenant sees it."""

    def __init__(
        self,
        url: str,
        apikey: str,
        process_id: str,
        *,
        tenant_id: str,
        token: Token,
        look_every: float = LOOK_EVERY,
    ) -> None:
        self._url, self._apikey, self._token = url.rstrip("/"), apikey, token
        self._process_id, self._topic = str(process_id), f"tenant:{tenant_id}"
        self._look_every = look_every
        self._http = httpx.Client(timeout=10)
        self._heard: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._closed = False

    def after(self, sequence: int) -> tuple[list[ProcessEvent], bool]:
        """Events after a number, and whether there are more."""
        query = {
            "select": COLUMNS,
            "process_id": f"eq.{self._process_id}",
            "sequence": f"gt.{sequence}",
            "order": "sequence",
            "limit": str(PAGE),
        }
        headers = {"apikey": self._apikey, "Authorization": f"Bearer {sending.token_of(self._token)}"}
        try:
            answer = self._http.get(f"{self._url}/rest/v1/process_events", params=query, headers=headers)
        except httpx.HTTPError as error:
            raise Unavailable(f"Supabase: {type(error).__name__}") from None
        rows = sending.json_of(sending.checked(answer, renewable=callable(self._token)))
        if not isinstance(rows, list):
            raise Unavailable("Supabase answered with something else than rows")
        return [ProcessEvent.read(one) for one in rows], len(rows) == PAGE

    def listen(self, sequence: int) -> Iterator[ProcessEvent | Opened | Ring]:
        """Rings, and now and then one of our own."""
        yield Ring()  # although Realtime may be away
        self._heard = heard = queue.SimpleQueue()
        if self._closed:
            return
        try:
            bell = Doorbell(
                self._url,
                self._apikey,
                lambda: sending.token_of(self._token) or "",
                self._topic,
                lambda kind, about: heard.put((kind, about)),
            )
        except RealtimeMissing:
            yield Opened()
            yield from self._look_again_and_again()
            return
        try:
            yield from self._rings(heard, sequence)
        finally:
            bell.close()

    def hang_up(self) -> None:
        """End `listen`, from any thread."""
        self._closed = True
        self._heard.put(("closed", None))

    def acknowledge(self, sequence: int) -> None:
        """Always refused."""
        raise Refused("acknowledgements go to the HTTP API; this stream reads from Supabase")

    def _rings(self, heard: "queue.SimpleQueue[tuple[str, Any]]", known: int) -> Iterator[Opened | Ring]:
        while True:
            try:
                kind, about = heard.get(timeout=self._look_every)
            except queue.Empty:
                kind, about = "look", None
            if kind == "closed":
                return
            if kind == "ended":
                raise Unavailable(str(about))
            if kind == "joined":
                yield Opened()
                yield Ring()  # for what rang while nobody listened
            elif kind == "look":
                yield Ring()
            elif (told := self._told_of(about)) > known:
                known = told
                yield Ring(told)

    def _told_of(self, ring: Any) -> int:
        payload = ring.get("payload") or {}
        ours = ring.get("event") == "process_events" and payload.get("process_id") == self._process_id
        return int(payload.get("sequence", 0)) if ours else 0

    def _look_again_and_again(self) -> Iterator[Ring]:
        while True:
            try:
                self._heard.get(timeout=min(self._look_every, WITHOUT_BELL))
            except queue.Empty:
                yield Ring()
            else:
                return
