"""Remains: what the replica holds of instances that were deleted. The primary removes it.

What the replica has is compared with the tombstones, so nothing has to be noted of how far that has come: after a kill
the next look finds what is left, and what a past owner ships late is found by one too. Until then it is kept for as
long as any instant can be restored: a core of before the deletion has the instance, and needs its content.
"""

import asyncio

import structlog

from app.edge import portions, replica
from app.edge.clock import now_ms
from app.edge.database import Database
from app.edge.litestream import KEPT_HOURS, replica_of
from app.errors import AppError
from app.instances.replicas import FOLDER
from app.projects import queries

KEPT_MS = KEPT_HOURS * 3_600_000
LOOK_SECONDS = 24 * 3_600.0
RETRY_SECONDS = 3_600.0

log = structlog.get_logger("remains")


class Remains:
    """One, on the primary, where there is a backup at `url`."""

    def __init__(self, db: Database, url: str) -> None:
        self._db = db
        self._url = url

    async def run(self) -> None:
        """Look once a day, until cancelled."""
        while True:
            pause = LOOK_SECONDS
            try:
                await self.remove(now_ms())
            except AppError as error:
                log.warning("remains_not_removed", error=error.message)
                pause = RETRY_SECONDS
            await asyncio.sleep(pause)

    async def remove(self, now: int) -> int:
        """Remove what is left of each instance that was deleted long enough ago; of how many. Unavailable."""
        pages = replica.list_pages(replica_of(self._url, FOLDER))
        removed = 0
        while (page := await asyncio.to_thread(next, pages, None)) is not None:
            for name in await portions.read(self._db, queries.list_deleted, page, now - KEPT_MS):
                await asyncio.to_thread(replica.remove_folder, replica_of(self._url, FOLDER, name))
                log.info("remains_removed", instance=name)
                removed += 1
        return removed
