"""Moves: an operator wants an instance to live in another region, or says that a machine is lost."""

import asyncio
import time

from app.edge import desk
from app.edge.database import Database
from app.edge.homes import Home, Machine
from app.edge.keeper import Keeper
from app.edge.lease import HEARTBEAT_SECONDS, PAUSE_SECONDS
from app.edge.peers import Peers
from app.edge.placement import Destination
from app.edge.registry import Registry
from app.errors import Conflict, NotFound, Unavailable
from app.instances.hubs import Hubs
from app.projects import queries

# Asked of the primary, and by it of the machine that has the instance.
MOVE, LOSE, GIVE = "/peer/move", "/peer/lose", "/peer/give"
MOVE_SECONDS = 60.0
# Longer than a pause may be of which a machine does not find out, and a heartbeat more.
SILENT_SECONDS = PAUSE_SECONDS + 2 * HEARTBEAT_SECONDS
WAIT_SECONDS = 8.0
LOOK_SECONDS = 0.1


class Moves:
    """What this machine answers of it; `registry` is there on the primary alone."""

    def __init__(self, db: Database, hubs: Hubs, keeper: Keeper, peers: Peers, registry: Registry | None) -> None:
        self._db = db
        self._hubs = hubs
        self._keeper = keeper
        self._peers = peers
        self._registry = registry
        peers.answers[GIVE] = desk.answer_of(hubs.hand_over, tuple[str, Machine])
        if registry is not None:
            peers.answers[LOSE] = desk.answer_of(self._lose, tuple[str])
            peers.answers[MOVE] = desk.answer_of(self._move, tuple[str, str])

    async def _move(self, instance_id: str, region: str) -> Machine:
        """Have it live in a region, and come back there from wherever it may be taken later; the machine that has it
        then. NotFound, Unavailable."""
        assert self._registry is not None
        there = [machine for machine in self._registry.alive() if machine.region == region]
        if not there:
            raise Unavailable(f"No machine is alive in {region}")
        home = await self._keeper.home_of(instance_id)
        if home is None:
            raise NotFound("There is no such instance")
        await self._db.write(queries.update_region, instance_id, region)
        if home.region == region:
            return Machine(home.machine or "", home.region)
        given = await self._give(home, instance_id, there[0])
        return Machine(given.machine, given.region)

    async def _lose(self, machine: str) -> None:
        """Give away what lives on a machine, once it is silent. Conflict while it is heard: it acknowledges.

        One that is paused meanwhile finds out by itself that it slept, before it acknowledges anything.
        """
        assert self._registry is not None
        until = time.monotonic() + WAIT_SECONDS
        while (since := self._registry.seconds_since(machine)) is not None and since < SILENT_SECONDS:
            if time.monotonic() > until:
                raise Conflict("The machine is alive: stop it, or move what lives on it")
            await asyncio.sleep(LOOK_SECONDS)
        await self._registry.lose(machine)

    async def _give(self, home: Destination, instance_id: str, to: Machine) -> Home:
        return await desk.ask(self._peers, home, GIVE, Home, instance_id, to, seconds=MOVE_SECONDS)
