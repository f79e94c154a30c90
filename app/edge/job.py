"""Job: a function that waits for its commit, and the future of whoever asked for it."""

import asyncio
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

from app.edge import sqlite
from app.edge.transaction import Position

# Seconds that the running request has waited elsewhere: on the machine that forwarded it, and on its way.
waited_before: ContextVar[float] = ContextVar("waited_before", default=0.0)


class Job:
    """The writer's thread sets `value` or `error`; `answer` hands it over on the loop."""

    __slots__ = ("args", "error", "fn", "future", "submitted", "value")

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], future: asyncio.Future[Any]) -> None:
        self.fn, self.args, self.future = fn, args, future
        self.submitted = time.monotonic() - waited_before.get()
        self.value: Any = None
        self.error: BaseException | None = None

    def answer(self, position: Position | None) -> None:
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result((self.value, position))
        else:
            self.future.set_exception(sqlite.as_app_error(_as_exception(self.error)))


def _as_exception(error: BaseException) -> BaseException:
    """What a future can carry: it refuses StopIteration, and an exit would end the loop instead of the request."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"A write job ended with {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped


class Group(NamedTuple):
    """One commit: when it was, what it made stale, and what it cost."""

    position: Position | None
    announced: list[tuple[str, str]]
    jobs: int
    seconds: float
