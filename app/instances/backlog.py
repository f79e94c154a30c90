"""The backlog: what was asked of all hubs of the process and is not answered yet, in bytes."""

import asyncio
from collections.abc import Callable

FRAME_BYTES_IN_FLIGHT = 256 << 20


class Backlog:
    """Above `limit` whoever brings more is not read until it has fallen; first come, first served.

    Nobody waits for ever: what is in the backlog is answered without anything more being read.
    """

    def __init__(self, limit: int = FRAME_BYTES_IN_FLIGHT) -> None:
        self.limit = limit
        self.bytes = 0
        self._waiting: dict[Callable[[], None], None] = {}

    @property
    def is_full(self) -> bool:
        return self.bytes > self.limit

    def take(self, size: int) -> None:
        self.bytes += size

    def give_back(self, size: int) -> None:
        self.bytes -= size
        self._let_one_go_on()

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call `go_on` when there is room again."""
        self._waiting[go_on] = None

    def forget(self, go_on: Callable[[], None]) -> None:
        self._waiting.pop(go_on, None)

    def _let_one_go_on(self) -> None:
        """One at a time: what it brings may be too much again."""
        if self._waiting and not self.is_full:
            go_on = next(iter(self._waiting))
            del self._waiting[go_on]
            go_on()
            asyncio.get_running_loop().call_soon(self._let_one_go_on)
