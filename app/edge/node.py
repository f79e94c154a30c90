"""Node: this machine, where it stands, whether it is the primary, and how far its core has come."""

import asyncio

from app.edge.transaction import Position

# A replica that is further behind answers nothing from its own rows.
MAX_LAG_SECONDS = 90


class Node:
    """What the adapters of `replication` keep up to date. A machine alone is its own primary and never lags.

    `lag_ms` is how far the core here is behind the primary's; None while that is not known. `schema_fits` is False
    while the core that has arrived is not one that this code can read.
    """

    def __init__(self, region: str, machine: str, *, is_primary: bool = True) -> None:
        self.region = region
        self.machine = machine
        self.is_primary = is_primary
        self.lag_ms: int | None = 0
        self.schema_fits = True
        self.position: Position | None = None
        self._waiters: list[tuple[Position, asyncio.Future[None]]] = []

    @property
    def is_fresh(self) -> bool:
        """Whether the core here is close enough behind the primary's to be answered from."""
        return self.is_primary or (self.lag_ms is not None and self.lag_ms < MAX_LAG_SECONDS * 1000)

    @property
    def reads_here(self) -> bool:
        """Whether this machine answers from its own core; else everything is the primary's."""
        return self.is_fresh and self.schema_fits

    def advance(self, position: Position) -> None:
        """The core has come to `position`: wake who waits for it. What was read earlier and is told later is old."""
        here = self.position
        if here is not None and here.epoch == position.epoch and here.sequence > position.sequence:
            return
        self.position = position
        for wanted, future in self._waiters:
            if self.has(wanted) and not future.done():
                future.set_result(None)
        self._waiters = [waiter for waiter in self._waiters if not waiter[1].done()]

    def has(self, position: Position) -> bool:
        """Whether what was committed at `position` can be read here. Of another epoch only the primary can tell."""
        if self.is_primary:
            return True
        here = self.position
        return here is not None and here.epoch == position.epoch and here.sequence >= position.sequence

    async def wait_for(self, position: Position, seconds: float) -> bool:
        """Wait until it can be read here; False when it cannot within `seconds`."""
        if self.has(position):
            return True
        waiter = position, asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter[1]
        except TimeoutError:
            return False
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        return True
