"""Shipping: waits until what is committed is in the replica, one question at a time for each file.

Who comes while a question is under way shares the next one: the one under way may have looked before that commit.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from app.edge.clock import now_ms
from app.edge.flights import Flights
from app.errors import Unavailable

SHIP_SECONDS = 5
RETRY_SECONDS = 0.1
NOT_SAFE = "The write is stored, and not yet safe in the backup: repeat the request"


class Shipping:
    """`sync` asks Litestream about a file; `told(path, began)` hears of what it answered, and when it was asked."""

    def __init__(self, sync: Callable[[Path], Awaitable[object]], told: Callable[[Path, int], None]) -> None:
        self._sync = sync
        self._told = told
        self._questions = Flights[Path, None]()

    async def ship(self, path: Path) -> None:
        """Wait until everything that is committed in the file by now is in the replica. Unavailable."""
        try:
            async with asyncio.timeout(SHIP_SECONDS):
                await self._questions.join_next(path, partial(self._ask, path))
        except (TimeoutError, Unavailable) as error:
            raise Unavailable(NOT_SAFE) from error

    async def close(self) -> None:
        await self._questions.close()

    async def _ask(self, path: Path) -> None:
        """A Litestream that has ended is back in a moment, and one that found a lock will get it: only what does not
        pass is an answer."""
        until = time.monotonic() + SHIP_SECONDS
        while True:
            began = now_ms()
            try:
                await self._sync(path)
                break
            except Unavailable:
                if time.monotonic() > until:
                    raise
            await asyncio.sleep(RETRY_SECONDS)
        self._told(path, began)
