"""One reader of one process: every event once, in the order of its number."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

from tenantsync_client.values import Gap, Opened, ProcessEvent, Refused, Ring, Unavailable

PATIENCE = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""What a source that is behind is given to catch up: seconds between two questions for the same events."""
STEADY = 10.0
"""A connection that stood for so many seconds was a good one: what comes after it is new trouble."""


class Feed(Protocol):
    """Where events come from. Raises Refused and Unavailable."""

    def after(self, sequence: int) -> tuple[list[ProcessEvent], bool]:
        """Events after a number, in order, and whether there are more."""

    def listen(self, sequence: int) -> Iterator[ProcessEvent | Opened | Ring]:
        """What happens, until it ends."""

    def hang_up(self) -> None:
        """End `listen` from another thread."""

    def acknowledge(self, sequence: int) -> None: ...


@dataclass(frozen=True, slots=True)
class State:
    """How a stream stands: connecting, live, waiting for another try, or closed."""

    name: Literal["connecting", "live", "waiting", "closed"]
    error: Exception | None = None
    retry_in: float | None = None


class ProcessStream:
    """Iterate over it, in one thread; `close` may come from any.

    What comes twice is dropped, and where a number is missing it is fetched before anything later is handed out.
    Connections that are lost are made again, for as long as it takes; Refused is raised when no further try can help.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        since: int = 0,
        on_gap: Callable[[Gap], object] = lambda _: None,
        on_state: Callable[[State], object] = lambda _: None,
        until: Callable[[ProcessEvent], bool] = lambda _: False,
        first_pause: float = 0.25,
        longest_pause: float = 30.0,
    ) -> None:
        self._feed = feed
        self._on_gap, self._on_state, self._until = on_gap, on_state, until
        self._first_pause, self._longest_pause = first_pause, longest_pause
        self._pause = first_pause
        self._closed = threading.Event()
        self.position = since
        """The number of the last event that was handed out."""
        self.state = State("connecting")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End. The iteration stops, also where another thread waits in it."""
        self._closed.set()
        self._feed.hang_up()

    def acknowledge(self, sequence: int | None = None) -> None:
        """Tell the server up to where one has read: by default up to the last event handed out."""
        self._feed.acknowledge(self.position if sequence is None else sequence)

    def __iter__(self) -> Iterator[ProcessEvent]:
        refusal: Refused | None = None
        try:
            while not self._closed.is_set():
                self._tell(State("connecting"))
                try:
                    yield from self._listen()
                except Unavailable as error:
                    self._wait(error)
        except Refused as error:
            refusal = error
            raise
        finally:
            self.close()
            self._tell(State("closed", refusal))

    def _listen(self) -> Iterator[ProcessEvent]:
        began = time.monotonic()
        try:
            for told in self._feed.listen(self.position):
                if self._closed.is_set():
                    return
                if isinstance(told, Opened):
                    self._tell(State("live"))
                elif isinstance(told, Ring):
                    yield from self._catch_up_to(told.up_to)
                else:
                    yield from self._take(told)
        finally:
            if time.monotonic() - began > STEADY:
                self._pause = self._first_pause

    def _take(self, event: ProcessEvent) -> Iterator[ProcessEvent]:
        if event.sequence > self.position + 1:
            yield from self._fill(event.sequence)
        elif event.sequence == self.position + 1:
            yield from self._hand(event)

    def _fill(self, wanted: int) -> Iterator[ProcessEvent]:
        """What is missing before a number. A source that is behind is asked again; in the end it is a failure."""
        yield from self._catch_up_to(wanted)
        if self.position < wanted and not self._closed.is_set():
            raise Unavailable(f"event {self.position + 1} cannot be had, though {wanted} was told of")

    def _catch_up_to(self, wanted: int) -> Iterator[ProcessEvent]:
        yield from self._catch_up()
        for pause in PATIENCE:
            if self.position >= wanted or self._closed.wait(pause):
                return
            yield from self._catch_up()

    def _catch_up(self) -> Iterator[ProcessEvent]:
        more = True
        while more and not self._closed.is_set():
            before = self.position
            events, more = self._feed.after(before)
            for event in events:
                if event.sequence > self.position + 1:  # what was asked for has it not: it is gone
                    gap = Gap(self.position + 1, event.sequence - 1)
                    self.position = gap.last
                    self._on_gap(gap)
                if event.sequence == self.position + 1:
                    yield from self._hand(event)
            more = more and self.position > before

    def _hand(self, event: ProcessEvent) -> Iterator[ProcessEvent]:
        if self._closed.is_set():
            return
        self.position = event.sequence
        self._pause = self._first_pause
        last = self._until(event)
        yield event
        if last:
            self.close()

    def _wait(self, error: Unavailable) -> None:
        if self._closed.is_set():
            return
        pause = self._pause * random.uniform(0.5, 1)  # noqa: S311 — so that clients do not come back together
        self._pause = min(2 * self._pause, self._longest_pause)
        self._tell(State("waiting", error, pause))
        self._closed.wait(pause)

    def _tell(self, state: State) -> None:
        if self.state.name == "closed" or (self.state.name == state.name == "live"):
            return
        self.state = state
        self._on_state(state)
