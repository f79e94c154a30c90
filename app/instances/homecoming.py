"""Homecoming: what lives outside of its region, because that had no machine, goes back while nobody uses it.

Only what is closed goes, and only to a machine that has been there for a lease: whatever a region does, nobody is sent
away for it, and nothing comes to it and is taken from it again more often than that.
"""

import asyncio
from secrets import choice

import structlog

from app.edge.homes import Machine
from app.edge.keeper import Keeper
from app.errors import AppError
from app.instances.hub import Hub
from app.instances.hubs import Hubs

WAITING = 10_000
LOOK_SECONDS = 5.0

log = structlog.get_logger("homecoming")


class Homecoming:
    """One for a machine that is one of several; it remembers what was closed here and belongs elsewhere."""

    def __init__(self, hubs: Hubs, keeper: Keeper) -> None:
        self._hubs = hubs
        self._keeper = keeper
        self._waiting: dict[str, str] = {}
        hubs.hibernated = self._add

    async def run(self) -> None:
        """Send home what may go, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for instance_id, to in await self._take_ready():
                await self._send(instance_id, to)

    def _add(self, hub: Hub) -> None:
        if self._keeper.is_abroad(hub.region):
            while len(self._waiting) >= WAITING:
                del self._waiting[next(iter(self._waiting))]
            self._waiting[hub.id] = hub.region

    async def _take_ready(self) -> list[tuple[str, Machine]]:
        """What may go now, and where to. Each is named once: what comes to nothing waits for its next use."""
        if not self._waiting:
            return []
        try:
            steady = await self._keeper.list_steady()
        except AppError as error:
            log.warning("nobody_known", error=error.message)
            return []
        there = {region: [one for one in steady if one.region == region] for region in {one.region for one in steady}}
        ready = [(name, choice(there[region])) for name, region in self._waiting.items() if region in there]
        for name, _ in ready:
            del self._waiting[name]
        return ready

    async def _send(self, instance_id: str, to: Machine) -> None:
        """Give away what nobody opens meanwhile. Its next owner has it from the replica."""
        try:
            async with self._hubs.closed(instance_id) as store:
                if self._hubs.replicas.is_shipped(store):
                    await self._keeper.send_home(await self._keeper.require(instance_id), to)
        except AppError as error:
            log.warning("not_sent_home", instance=instance_id, error=error.message)
