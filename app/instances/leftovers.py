"""Leftovers: files here of instances that live elsewhere. One goes once its home has all that is in it.

Its home says so, and only of what it has under an epoch of its own, on its disk and, where there is a backup, in the
replica. What it does not have stays, and `litehouse doctor` names it. While the home is asked nobody opens the instance
here, so what goes is what was asked about.
"""

import asyncio
from pathlib import Path

import structlog

from app.edge import desk, homes, portions, sqlite
from app.edge.database import Database
from app.edge.keeper import Keeper
from app.edge.peers import Peers
from app.edge.placement import Destination
from app.errors import AppError, Unavailable
from app.instances import queries
from app.instances.hubs import Hubs
from app.instances.restoration import Extent, covers, read_extent
from app.instances.store import list_held, path_of

COVERS = "/peer/covers"
# A home may have to open the file, and to ship it.
ANSWER_SECONDS = 20.0
LOOK_SECONDS = 60.0

log = structlog.get_logger("leftovers")


class Leftovers:
    """One for a machine that is one of several; its files are in `folder`."""

    def __init__(self, hubs: Hubs, keeper: Keeper, peers: Peers, db: Database, folder: Path) -> None:
        self._hubs = hubs
        self._keeper = keeper
        self._peers = peers
        self._db = db
        self._folder = folder
        # What its home does not have all of, and under which epoch it said so: one that is asked every minute would
        # never hibernate, and never go home.
        self._kept: dict[str, str] = {}
        peers.answers[COVERS] = desk.answer_of(self._covers, tuple[str, Extent])

    async def run(self) -> None:
        """Look through the folder now and then, until cancelled."""
        await self._keeper.wait()
        while True:
            try:
                for name in await self._list():
                    await self._look(name)
            except AppError as error:
                log.warning("leftovers_not_looked_at", error=error.message)
            await asyncio.sleep(LOOK_SECONDS)

    async def _list(self) -> list[str]:
        """What is here and was opened elsewhere since."""
        names = await asyncio.to_thread(list_held, self._folder)
        return await portions.read(self._db, homes.list_opened_elsewhere, names, self._keeper.me.machine)

    async def _look(self, name: str) -> None:
        """Remove a file that its home has all of."""
        try:
            async with self._hubs.closed(name) as store:
                home = await self._keeper.find_elsewhere(name)
                if home is None or home.epoch == self._kept.get(name) or not store.path.exists():
                    return
                extent = await asyncio.to_thread(read_extent, store.path)
                where = Destination(home.region, home.machine)
                if await desk.ask(self._peers, where, COVERS, bool, name, extent, seconds=ANSWER_SECONDS):
                    await asyncio.to_thread(store.delete)
                    log.info("leftover_removed", instance=name)
                else:
                    self._kept[name] = home.epoch
                    log.warning("leftover", instance=name, file=store.path.name)
        except AppError as error:
            log.info("leftover_kept", instance=name, why=error.message)
        except (sqlite.Error, OSError) as error:
            log.warning("leftover_not_read", instance=name, error=str(error))

    async def _covers(self, name: str, extent: Extent) -> bool:
        """Whether this machine has all that another one's file has. Unavailable where it is not the home."""
        if not await self._keeper.may_open(name):
            raise Unavailable("This machine is not its home")
        async with self._hubs.use(name) as hub:
            epochs = await hub.read_file(queries.list_epochs)
            await self._hubs.replicas.ship(path_of(self._folder, name))
            return covers(epochs, extent)
