"""The follower: how a replica comes as far as the primary is, and has written there what it cannot write itself."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from app.edge import desk
from app.edge.database import Database, written_position
from app.edge.flights import Flights
from app.edge.freshness import parse_position
from app.edge.node import Node
from app.edge.peers import POSITION, Answer, Peers
from app.edge.transaction import Position, read_position
from app.errors import Unavailable

# However many refusals wait, the primary is asked once in so long.
APART_SECONDS = 0.05
# What the primary has just written arrives within this, or is asked for again.
ARRIVAL_SECONDS = 2.0


class Follower:
    """One for a machine that is one of several. The primary is as far as itself.

    `settle` waits for what follows here, a moment later, from what has arrived.
    """

    def __init__(self, node: Node, peers: Peers) -> None:
        self.peers = peers
        self._node = node
        self.settle: Callable[[], Awaitable[None]] = _nothing
        self._asked_at = float("-inf")
        self._questions = Flights[str, Position | None]()

    async def catch_up(self, seconds: float) -> None:
        """Come as far as the primary is now: what is refused after that, the primary would refuse too.

        For a home, which cannot leave its refusals to the primary. Unavailable when it cannot be asked, or is too
        far ahead.
        """
        if not self._node.is_primary:
            await self._come_as_far(time.monotonic() + seconds)
        await self.settle()

    async def have_written(self, path: str, *said: Any) -> None:
        """Have the primary write what it is asked for at `path`, and come as far.

        Unavailable when it cannot be asked; what it refuses, it refuses for certain.
        """
        position = await desk.ask(self.peers, self.peers.primary, path, Position, *said)
        if not await self._node.wait_for(position, ARRIVAL_SECONDS):
            raise Unavailable("This machine is behind the primary", certain=False)

    async def close(self) -> None:
        await self._questions.close()

    async def _come_as_far(self, until: float) -> None:
        position: Position | None = None
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(until - time.monotonic()):
                # A question that is under way may have been answered before what is refused here came to be.
                not_before = self._asked_at + APART_SECONDS
                position = await self._questions.join_next(POSITION, self._ask, not_before=not_before)
        if position is None or not await self._node.wait_for(position, max(0.0, until - time.monotonic())):
            raise Unavailable("This machine is behind the primary")

    async def _ask(self) -> Position | None:
        """How far the primary is."""
        self._asked_at = time.monotonic()
        return parse_position(await self.peers.ask(self.peers.at(self.peers.primary), POSITION))


def position_of(db: Database) -> Answer:
    """What a machine says to who asks how far it is."""

    async def answer(question: bytes, machine: str) -> bytes:
        return str(await db.read(read_position)).encode()

    return answer


def writes(fn: Callable[..., Awaitable[object]], shape: Any) -> Answer:
    """What the primary answers to `have_written`: where it stands once `fn` has written."""

    async def answer(*said: Any) -> Position:
        await fn(*said)
        position = written_position.get()
        if position is None:
            raise Unavailable("The core has no position yet")
        return position

    return desk.answer_of(answer, shape)


async def _nothing() -> None:
    return
