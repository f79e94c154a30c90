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
from app.instances.replicas import Replicas
from app.instances.store import Stores

WAITING = 10_000

log = structlog.get_logger("homecoming")


class Homecoming:
    """One for a machine that is one of several; it remembers what was closed here and belongs elsewhere."""

    def __init__(self, keeper: Keeper, replicas: Replicas, stores: Stores) -> None:
        self._keeper = keeper
        self._replicas = replicas
        self._stores = stores
        self._waiting: dict[str, str] = {}

    def add(self, instance_id: str, region: str) -> None:
        """What was just closed, and was made for a region."""
        if self._keeper.is_abroad(region):
            while len(self._waiting) >= WAITING:
                del self._waiting[next(iter(self._waiting))]
            self._waiting[instance_id] = region

    async def take_ready(self) -> list[tuple[str, Machine]]:
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

    async def send(self, instance_id: str, to: Machine) -> None:
        """Give away what is closed here, and nobody opens meanwhile. Its next owner has it from the replica."""
        store, thread = self._stores.store(instance_id), self._stores.thread_of(instance_id)
        if not self._replicas.is_shipped(store):
            return
        try:
            await self._keeper.send_home(await self._keeper.require(instance_id), to)
            await asyncio.get_running_loop().run_in_executor(thread, store.delete)
        except (AppError, OSError) as error:
            log.warning("not_sent_home", instance=instance_id, error=str(error))
