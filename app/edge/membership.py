"""Membership: what makes this machine one of several: its lease, what it owns, and whom it asks."""

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import structlog

from app.edge import desk, homes
from app.edge.database import Database
from app.edge.desk import Desk, Distant
from app.edge.follower import Follower, position_of
from app.edge.heart import Heart
from app.edge.homes import Machine
from app.edge.keeper import Keeper
from app.edge.lease import Lease
from app.edge.liveness import Liveness
from app.edge.node import Node
from app.edge.ownership import Ownership
from app.edge.peers import POSITION, Peers
from app.edge.placement import Destination
from app.edge.prober import Prober
from app.edge.registry import RegionOf, Registry
from app.errors import AppError

ADOPTED_AT_ONCE = 500

log = structlog.get_logger("membership")


class Membership:
    """`registry` is the primary's. `run` names what has to run as long as this machine owns anything."""

    def __init__(
        self, db: Database, node: Node, peers: Peers, registry: Registry | None, prober: Prober | None
    ) -> None:
        self.me = Machine(node.machine, node.region)
        self.registry = registry
        self._db = db
        self._prober = prober
        self._desk: Desk = registry or Distant(peers, lambda: peers.primary)
        self._owning = Ownership(self.me, Lease(), node)
        self.keeper = Keeper(db, self._owning, self._desk)
        self.follower = Follower(node, peers)

    @property
    def lease(self) -> Lease:
        return self._owning.lease

    def run(self, fence: Callable[[], None]) -> list[Coroutine[Any, Any, None]]:
        """The tasks; `fence` closes what this machine may acknowledge for no longer."""
        beating = Heart(self._owning, self._desk, fence).run()
        return [beating] if self._prober is None else [beating, self._prober.run()]

    async def close(self) -> None:
        """End the questions that are under way."""
        await self.keeper.close()
        await self.follower.close()

    async def home_or_here(self, name: str) -> Destination:
        """Where something lives. What nobody has yet is made where it is asked for, as development does."""
        return await self.keeper.home_of(name) or Destination(self.me.region, self.me.machine)

    async def leave(self, kept: Collection[str]) -> None:
        """Everything is closed here for good: the others need not wait for what they own, but for what is `kept`.

        The primary says it to nobody: while it is away nothing is given to anybody.
        """
        session = self._owning.lease.session
        # Whatever becomes of the question, nothing more is acknowledged here.
        self._owning.lease.end()
        if session is None or self.registry is not None:
            return
        try:
            await self._desk.leave(self.me, session, kept)
        except AppError as error:
            log.warning("left_untold", error=error.message)

    async def adopt(self, names: list[str], number_of: Callable[[str], int]) -> None:
        """What this machine has the files of, and nobody owns, is its own. Unavailable when the primary is away.

        `number_of` says which home the file of a name has known last.
        """
        for first in range(0, len(names), ADOPTED_AT_ONCE):
            unowned = await self._db.read_one(homes.list_unowned, names[first : first + ADOPTED_AT_ONCE])
            if unowned:
                held = [(name, await asyncio.to_thread(number_of, name)) for name in unowned]
                log.warning("adopted", instances=await self._desk.adopt(held, self.me))


async def join(db: Database, node: Node, peers: Peers, region_of: RegionOf, *, takes_away: bool = True) -> Membership:
    """Become one of the machines; on the primary also the one that knows of all."""
    peers.answers[POSITION] = position_of(db)
    if not node.is_primary:
        return Membership(db, node, peers, None, None)
    known = await db.read(homes.list_sessions)
    liveness = Liveness({machine.machine: session for machine, session in known})
    regions = {machine.machine: machine.region for machine, _ in known}
    registry = Registry(db, liveness, region_of, regions, takes_away=takes_away)
    peers.answers |= desk.answers(registry)
    return Membership(db, node, peers, registry, Prober(registry, liveness, peers))
