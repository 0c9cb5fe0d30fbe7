"""Ending in order: SIGTERM and SIGINT become exceptions, so that every context is left."""

import signal
from types import FrameType


class Stopped(BaseException):
    """The process was asked to end. `code` is what a shell expects: 128 and the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number
        self.by_hand = number == signal.SIGINT


def raise_on_signals() -> None:
    """From now on the first SIGINT or SIGTERM raises Stopped in the main thread; later ones are ignored."""

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Stopped(number)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
