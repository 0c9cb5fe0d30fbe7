"""Celery: the app and its tasks. `celery -A tasks …` works from the checkout as typed.

Celery puts the working directory on the path only while it loads the app; a module first imported inside
a task body would not be found. So the checkout goes on the path here, for good.
"""

import sys
from pathlib import Path

_CHECKOUT = str(Path(__file__).resolve().parent.parent)
if _CHECKOUT not in sys.path:
    sys.path.insert(0, _CHECKOUT)

from tasks.celery_app import app  # noqa: E402 — needs the path

__all__ = ["app"]
