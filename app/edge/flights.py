"""Flights: work that several ask for at once is done once, whoever of them leaves meanwhile."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Flights(Generic[K, T]):
    """What is under way, by name, and what comes next. All who wait for it hear what became of it."""

    def __init__(self) -> None:
        self._under_way: dict[K, asyncio.Task[T]] = {}
        self._next: dict[K, asyncio.Task[T]] = {}

    async def join(self, name: K, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Wait for what is under way under this name, or begin it; it goes on although who waits is cancelled."""
        task = self._under_way.get(name)
        if task is None or task.done():
            task = self._under_way[name] = self._create(name, begin())
        return await asyncio.shield(task)

    async def join_next(
        self, name: K, begin: Callable[[], Coroutine[Any, Any, T]], *, not_before: float = float("-inf")
    ) -> T:
        """The same for who has to know of what is so by now: what is under way may have looked before. Who comes
        meanwhile, or earlier than `not_before` on the monotonic clock, shares the next one."""
        task = self._next.get(name)
        if task is None:
            task = self._next[name] = self._create(name, self._take_turn(name, begin, not_before))
        return await asyncio.shield(task)

    def tasks(self) -> list["asyncio.Task[T]"]:
        return [*self._under_way.values(), *self._next.values()]

    async def close(self) -> None:
        """Who still waits is cancelled too."""
        tasks = self.tasks()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _take_turn(self, name: K, begin: Callable[[], Coroutine[Any, Any, T]], not_before: float) -> T:
        before = self._under_way.get(name)
        if before is not None:
            await asyncio.wait([before])
        if (pause := not_before - time.monotonic()) > 0:
            await asyncio.sleep(pause)
        self._under_way[name] = self._next.pop(name)
        return await begin()

    def _create(self, name: K, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        task.add_done_callback(partial(self._land, name))
        return task

    def _land(self, name: K, task: "asyncio.Task[T]") -> None:
        if self._under_way.get(name) is task:
            del self._under_way[name]
        if not task.cancelled():
            # Everybody who waited for it may have left.
            task.exception()
