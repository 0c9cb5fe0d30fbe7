"""Task handlers of the sandbox, as a project's own would be: named by TASK_HANDLERS, used by demo and tests."""

import os
import signal
import time
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, Field

from tenantsync.work.handlers import TaskFailed, handler
from tenantsync.work.run import Run


class Choice(BaseModel):
    """A question, and what may be answered."""

    question: str = Field("Which day suits everybody?", max_length=200)
    options: list[str] = Field(["Monday", "Wednesday", "Friday"], min_length=1, max_length=20)
    minutes: float = Field(30, gt=0, le=1440)


@handler("demo.choose", title="Ask a person")
def choose(asked: Choice, run: Run) -> dict[str, Any]:
    """Prepare, ask, and go on with what was chosen."""
    prepared = run.step("prepare", lambda: {"options": len(asked.options)}, message="Looking at calendars")
    answer = run.ask(
        "choice", prompt=asked.question, options=asked.options, expires_in=timedelta(minutes=asked.minutes)
    )
    chosen = answer["selected"]["title"]
    run.step("book", lambda: {"booked": chosen}, message=f"Booking {chosen}")
    return {"chosen": chosen, **prepared}


class Failure(BaseModel):
    """How to fail: clearly, by an exception, by dying, or by never ending."""

    how: str = Field("clearly", pattern="^(clearly|exception|death|hang|not json)$")


@handler("demo.fail", timeout=3, title="Fail")
def fail(asked: Failure, _: Run) -> Any:
    """Fail in the way that was asked for."""
    match asked.how:
        case "exception":
            raise RuntimeError("a message that nobody but the worker's log should see")
        case "death":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            while True:
                time.sleep(1)
        case "not json":
            return {"moment": timedelta(seconds=1)}
    raise TaskFailed("the room is taken on that day; choose another")


class Steps(BaseModel):
    """How many steps, and how long each takes."""

    steps: int = Field(5, ge=1, le=1000)
    seconds: float = Field(0.2, ge=0, le=10)


@handler("demo.slow", timeout=300, title="Take a while")
def slow(asked: Steps, run: Run) -> dict[str, Any]:
    """Take step after step, each once, whatever happens to the worker."""
    for number in range(1, asked.steps + 1):
        run.step(f"step {number}", lambda number=number: _rest(run, asked.seconds, number))  # type: ignore[misc]
        run.progress(number, asked.steps)
    return {"steps": asked.steps, "attempts": run.attempt}


def _rest(run: Run, seconds: float, number: int) -> int:
    run.wait(seconds)
    return number
