"""Stocktaking: once after the start, what earlier processes have left among the files of instances."""

import asyncio
from pathlib import Path

import structlog

from app.edge import portions
from app.edge.database import Database
from app.edge.keeper import Keeper
from app.errors import AppError
from app.instances.hubs import Hubs
from app.instances.store import list_held
from app.projects import queries

RETRY_SECONDS = 1.0

log = structlog.get_logger("stocktaking")


async def take_stock(hubs: Hubs, db: Database, folder: Path, keeper: Keeper | None) -> None:
    """Delete what was deleted meanwhile, and open what was not closed, so that its rest is shipped too."""
    for instance_id in await _list_deleted(db, folder):
        await hubs.delete(instance_id)
    if keeper is not None:
        await keeper.wait()
    for instance_id in await asyncio.to_thread(hubs.replicas.leftovers, folder):
        try:
            await hubs.open(instance_id)
        except AppError as error:
            log.warning("leftover_not_shipped", instance=instance_id, error=error.message)


async def _list_deleted(db: Database, folder: Path) -> list[str]:
    """What has a file here and is no instance any more."""
    held = await asyncio.to_thread(list_held, folder)
    while True:
        try:
            return await portions.read(db, queries.list_deleted, held)
        except AppError as error:
            log.warning("deleted_not_known", error=error.message)
        await asyncio.sleep(RETRY_SECONDS)
