"""Doubts: what a member is refused for want of a permission, at a home whose core may lag behind the primary's.

Nothing is said of it before the core here has come as far as the primary is; then it is decided anew, in its order:
what the same member says meanwhile waits behind it. How much that can be, its allowance and the backlog bound.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress

from app.errors import AppError, Unavailable
from app.instances.backlog import Backlog
from app.instances.mailbox import Ask

# Comes as far as the primary is. Unavailable when it cannot be asked: then what is known here decides.
Look = Callable[[], Awaitable[None]]
# Has what `take` gives for a member decided, in its place in the order. Unavailable when the hub takes nothing more.
Decide = Callable[[str, int], Awaitable[None]]


class Doubts:
    """Of one hub. Without `look` there are none: the rows here are the primary's."""

    def __init__(self, look: Look | None, decide: Decide, backlog: Backlog) -> None:
        self._look = look
        self._decide = decide
        self._backlog = backlog
        self._held: dict[str, list[Ask]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def members(self) -> Collection[str] | None:
        """Whose asks wait here, so that others of theirs wait behind them; None where nobody's ever does."""
        return None if self._look is None else self._held.keys()

    def hold(self, ask: Ask) -> None:
        """Decide it anew, once that can be done for certain. It stays in the backlog."""
        assert ask.member is not None and self._look is not None
        name = ask.member.id
        if name not in self._held:
            task = asyncio.get_running_loop().create_task(self._settle(self._look, name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._held.setdefault(name, []).append(ask)

    def take(self, name: str, seen: int) -> list[Ask]:
        """What waited, by what its member may do now. The first `seen` of it came before the primary was asked."""
        asks = self._held.pop(name)
        return [
            ask._replace(caller=ask.member.caller if ask.member else ask.caller, sure=number < seen)
            for number, ask in enumerate(asks)
        ]

    async def close(self) -> None:
        """Let go of what was not decided: its members are being sent away, and come back with it."""
        for task in list(self._tasks):
            task.cancel()
            await asyncio.wait([task])
        self._backlog.give_back(sum(ask.size for asks in self._held.values() for ask in asks))
        self._held.clear()

    async def _settle(self, look: Look, name: str) -> None:
        seen = len(self._held[name])
        with suppress(Unavailable):
            await look()
        with suppress(AppError):
            await self._decide(name, seen)
