"""Replicas: instances' files at Litestream while their hubs are open. Without a backup nothing of it happens.

With durable acknowledgement nobody hears of a commit before the replica has it. One that is not shipped in time
ends its hub: the file is ahead of what members know, and they learn the rest when it has opened again, which it
does only once everything is safe.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.edge.backup import Backup
from app.edge.litestream import replica_of
from app.errors import Unavailable
from app.instances.hub import Hub
from app.instances.store import Store

FOLDER = "instances"


class Replicas:
    """Each owner of an instance ships to a path of its own: `instances/<id>/<epoch>`."""

    def __init__(self, backup: Backup | None) -> None:
        self._backup = backup

    @property
    def exist(self) -> bool:
        return self._backup is not None

    async def hold(self, hub: Hub, store: Store) -> None:
        """Ship the file of a hub that was just opened. Unavailable."""
        backup = self._backup
        if backup is None:
            return
        await hub.on_thread(store.leave_checkpoints)
        await backup.hold(store.path, replica_of(backup.url, FOLDER, hub.id, hub.epoch))
        hub.let_go = lambda: backup.release(store.path)
        if backup.durable_all:
            await backup.ship(store.path)
            hub.shipped = lambda: backup.ship(store.path)

    async def ship_new(self, instance_id: str, store: Store, thread: ThreadPoolExecutor) -> None:
        """Ship a file that has no hub yet: a clone is as safe as what it was made of."""
        if self._backup is None:
            return
        hub = Hub(instance_id, store, thread, read_only=True)
        await hub.start()
        try:
            await self.hold(hub, store)
        finally:
            await hub.stop(lambda: Unavailable("Closed"))

    def holds(self, path: Path) -> bool:
        """Whether something of a file that is closed may still have to be shipped."""
        return self._backup is not None and self._backup.holds(path)

    async def ship(self, path: Path) -> None:
        """Wait until the replica has all of an open instance's file, where there is one. Unavailable."""
        if self._backup is not None:
            await self._backup.ship(path)

    def leftovers(self, folder: Path) -> list[str]:
        """The instances whose files were not closed: what was last written there may not have been shipped."""
        if self._backup is None:
            return []
        return [log.name.removesuffix(".db-wal") for log in folder.glob("*/*.db-wal") if log.stat().st_size]

    def owed(self, folder: Path) -> set[str]:
        """The instances of which something may not be in the replica, once their hubs are closed."""
        if self._backup is None:
            return set()
        return {*self.leftovers(folder), *(path.stem for path in self._backup.owed)}
