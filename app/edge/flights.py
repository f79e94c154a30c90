"""Flights: work that several ask for at once is done once, whoever of them leaves meanwhile."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any


class Flights:
    """What is under way, by name."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def join(self, name: str, begin: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for what is under way under this name, or begin it; it goes on although who waits is cancelled."""
        task = self._tasks.get(name)
        if task is None or task.done():
            task = self._tasks[name] = asyncio.create_task(begin())
            task.add_done_callback(partial(self._land, name))
        await asyncio.shield(task)

    def tasks(self) -> list["asyncio.Task[None]"]:
        return list(self._tasks.values())

    def _land(self, name: str, task: "asyncio.Task[None]") -> None:
        if self._tasks.get(name) is task:
            del self._tasks[name]
        if not task.cancelled():
            # Everybody who waited for it may have left.
            task.exception()
