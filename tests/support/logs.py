"""What the product logs, through its own formatter."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from config.log_setup import setup_logging
from config.settings import Settings


@contextmanager
def captured_logs(settings: Settings) -> Iterator[io.StringIO]:
    """Everything that anybody in this process logs, as it would stand in the log file."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    setup_logging(settings)
    (handler,) = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    try:
        yield stream
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
