"""Homecoming: what lives outside of its region, because that had no machine, goes back while nobody uses it.

Only what is closed goes, and only to a machine that has been there for a lease: whatever a region does, nobody is sent
away for it, and nothing comes to it and is taken from it again more often than that.
"""

import asyncio
from secrets import choice

import structlog

from app.edge import portions
from app.edge.database import Database
from app.edge.homes import Machine
from app.edge.keeper import Keeper
from app.errors import AppError
from app.instances.hubs import Hubs
from app.projects import queries

WAITING = 10_000
LOOK_SECONDS = 5.0

log = structlog.get_logger("homecoming")


class Homecoming:
    """One for a machine that is one of several and has a backup; it remembers what was closed here."""

    def __init__(self, hubs: Hubs, keeper: Keeper, db: Database) -> None:
        self._hubs = hubs
        self._keeper = keeper
        self._db = db
        self._waiting: dict[str, None] = {}
        hubs.hibernated = self._add

    async def run(self) -> None:
        """Send home what may go, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                ready = await self._take_ready()
            except AppError as error:
                log.warning("nobody_known", error=error.message)
                continue
            for instance_id, to in ready:
                await self._send(instance_id, to)

    def _add(self, instance_id: str) -> None:
        while len(self._waiting) >= WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[instance_id] = None

    async def _take_ready(self) -> list[tuple[str, Machine]]:
        """What may go now, and where to. Each is named once: what comes to nothing waits for its next use."""
        names = list(self._waiting)
        # Asked at each look: an operator may have moved it since.
        abroad = dict(await portions.read(self._db, queries.list_made_elsewhere, names, self._keeper.me.region))
        steady = await self._keeper.list_steady() if abroad else []
        there = {region: [one for one in steady if one.region == region] for region in {one.region for one in steady}}
        for name in names:
            if name not in abroad or abroad[name] in there:
                self._waiting.pop(name, None)
        return [(name, choice(there[region])) for name, region in abroad.items() if region in there]

    async def _send(self, instance_id: str, to: Machine) -> None:
        """Give away what nobody opens meanwhile. Its next owner has it from the replica, where all of it is."""
        try:
            async with self._hubs.closed(instance_id):
                await self._keeper.send_home(await self._keeper.require(instance_id), to)
        except AppError as error:
            log.warning("not_sent_home", instance=instance_id, error=error.message)
