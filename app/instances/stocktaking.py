"""Stocktaking: once after the start, what earlier processes have left among the files of instances."""

import asyncio
from pathlib import Path

import structlog

from app.edge.database import Database
from app.edge.keeper import Keeper
from app.errors import AppError
from app.instances.hubs import Hubs
from app.instances.store import list_held
from app.projects import queries

log = structlog.get_logger("stocktaking")


async def take_stock(hubs: Hubs, db: Database, folder: Path, keeper: Keeper | None) -> None:
    """Delete what was deleted meanwhile, and open what was not closed, so that its rest is shipped too."""
    for instance_id in await asyncio.to_thread(list_held, folder):
        try:
            if await db.read_one(queries.has_tombstone, instance_id):
                await hubs.delete(instance_id)
        except AppError as error:
            log.warning("not_deleted", instance=instance_id, error=error.message)
    if keeper is not None:
        await keeper.wait()
    for instance_id in await asyncio.to_thread(hubs.replicas.leftovers, folder):
        try:
            await hubs.open(instance_id)
        except AppError as error:
            log.warning("leftover_not_shipped", instance=instance_id, error=error.message)
