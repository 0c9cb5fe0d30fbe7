"""Handlers: plain functions that do the tasks of one kind, and what they promise.

    class Order(BaseModel):
        number: int

    @handler("orders.export", timeout=120, retries=2, title="Export an order")
    def export(order: Order, run: Run) -> dict[str, object]:
        rows = run.step("read", lambda: read(order.number))
        return {"rows": len(rows)}

A project's own stand in modules of its own, which TASK_HANDLERS names (docs/tasks.md).
"""

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel

from tenantsync.processes.event_types import PayloadRefused

SHIPPED = ("tenantsync.work.builtin.sync_now", "tenantsync.work.builtin.report")
TIMEOUT = 60.0  # seconds
LONGEST = timedelta(hours=6)
MOST_RETRIES = 20
_KIND = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z][a-z0-9_-]*)+")
KIND_LENGTH = 100

Function = TypeVar("Function", bound=Callable[..., Any])


class TaskFailed(Exception):
    """Raised by a handler to end its task with this sentence, which its tenant reads: no secrets in it.

    `final`: it would only fail again, so it is not retried.
    """

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class Misused(Exception):
    """A handler that uses its run in a way that cannot work. The text says which and what to do."""


class HandlersBroken(Exception):
    """Handlers that cannot be used. The text names the module or the kind, and says what to do."""


@dataclass(frozen=True, slots=True)
class Handler:
    """What does the tasks of a kind."""

    kind: str
    function: Callable[[Any, Any], Any]
    payload: type[BaseModel]
    timeout: timedelta
    """Longest run of one attempt; the time that a person takes to answer is not counted."""
    retries: int
    """How often it is tried again after an exception of its own."""
    title: str
    safe: tuple[type[Exception], ...]
    """Exceptions whose message may be told to the tenant."""


TOLD = (TaskFailed, Misused, PayloadRefused)
"""Exceptions whose messages quote nothing, whoever raises them."""


class Handlers:
    """Handlers by kind."""

    def __init__(self) -> None:
        self._by_kind: dict[str, Handler] = {}

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._by_kind.values())

    def get(self, kind: str) -> Handler | None:
        """The handler of a kind, if there is one."""
        return self._by_kind.get(kind)

    @property
    def kinds(self) -> list[str]:
        return sorted(self._by_kind)

    def handler(
        self,
        kind: str,
        *,
        timeout: float = TIMEOUT,
        retries: int = 0,
        title: str = "",
        safe: tuple[type[Exception], ...] = (),
    ) -> Callable[[Function], Function]:
        """Make a function `(payload: Model, run: Run)` the handler of a kind. Raises HandlersBroken.

        `timeout`: seconds of one attempt. `title`: what people see; the kind if it is empty. `safe`: exceptions
        whose message holds nothing that the tenant may not read.
        """

        def register(function: Function) -> Function:
            where = f"the handler {function.__module__}.{function.__qualname__}"
            longest = timedelta(seconds=timeout)
            if not _KIND.fullmatch(kind) or len(kind) > KIND_LENGTH:
                raise HandlersBroken(f"{where} is for the kind {kind!r}: it should look like orders.export")
            if not timedelta(seconds=1) <= longest <= LONGEST:
                raise HandlersBroken(f"{where} has a timeout of {timeout} s: it should lie between 1 s and 6 hours")
            if not 0 <= retries <= MOST_RETRIES:
                raise HandlersBroken(f"{where} has {retries} retries: it should have between 0 and {MOST_RETRIES}")
            there = self._by_kind.get(kind)
            if there is not None and there.function is not function:
                raise HandlersBroken(f"{where} is for the kind {kind!r}, as {there.function.__module__} is: rename one")
            model = _payload_of(function, where)
            self._by_kind[kind] = Handler(kind, function, model, longest, retries, title or kind, (*TOLD, *safe))
            return function

        return register


def _payload_of(function: Callable[..., Any], where: str) -> type[BaseModel]:
    """The model that a handler's first parameter is annotated with."""
    names = list(inspect.signature(function).parameters)
    if inspect.iscoroutinefunction(function) or len(names) != 2:
        raise HandlersBroken(f"{where} should be a plain function of two parameters: its payload and the run")
    model = get_type_hints(function).get(names[0])
    if not (inspect.isclass(model) and issubclass(model, BaseModel)):
        raise HandlersBroken(f"{where} should say what its payload is: annotate {names[0]!r} with a pydantic model")
    return model


_ours = Handlers()
handler = _ours.handler


def load(modules: Iterable[str] = ()) -> Handlers:
    """The shipped handlers and those of these modules. Raises HandlersBroken, which names the module at fault."""
    for name in (*SHIPPED, *modules):
        try:
            importlib.import_module(name)
        except HandlersBroken:
            raise
        except Exception as error:
            raise HandlersBroken(
                f"TASK_HANDLERS names the module {name!r}, which cannot be imported ({type(error).__name__}: {error}). "
                "It has to be on PYTHONPATH."
            ) from error
    return _ours


def titles(handlers: Handlers) -> Mapping[str, str]:
    """What people see of each kind."""
    return {one.kind: one.title for one in handlers}
