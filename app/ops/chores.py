"""Chores: what has to happen now and then, each a short write, and none where nothing is to be done."""

import asyncio

import structlog

from app.edge import changes, expiring
from app.edge.clock import now_ms
from app.edge.database import Database
from app.edge.spool import Spool
from app.errors import AppError
from app.identity import api_keys
from app.identity.authenticator import Authenticator
from app.ops import owed
from app.projects import delegates
from app.projects.door import Entrance
from app.webhooks import outbox

HOUSEKEEPING_SECONDS = 5.0

log = structlog.get_logger("chores")


async def keep_house(db: Database, authenticator: Authenticator, entrance: Entrance) -> None:
    """On the primary, until cancelled."""
    while True:
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
        try:
            if await db.read(expiring.has_dead, now_ms()):
                await db.write(expiring.purge, now_ms())
            if await db.read(changes.has_surplus):
                await db.write(changes.trim)
            if await db.read(outbox.has_old, now_ms()):
                await db.write(outbox.trim, now_ms())
            await write_uses(db, authenticator, entrance)
        except AppError as error:
            log.warning("chore_failed", error=error.message)


async def keep_spool(spool: Spool, authenticator: Authenticator, entrance: Entrance) -> None:
    """On a machine that is not the primary: what was used here is the primary's to write. Until cancelled."""
    while True:
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
        try:
            await spool_uses(spool, authenticator, entrance)
        except AppError as error:
            log.warning("chore_failed", error=error.message)


async def spool_uses(spool: Spool, authenticator: Authenticator, entrance: Entrance) -> None:
    if uses := authenticator.uses.take():
        await spool.put(owed.KEY_USES, owed.uses(uses))
    if uses := entrance.secret_uses.take():
        await spool.put(owed.SECRET_USES, owed.uses(uses))


async def write_uses(db: Database, authenticator: Authenticator, entrance: Entrance) -> None:
    if uses := authenticator.uses.take():
        await db.write(api_keys.write_uses, uses)
    if uses := entrance.secret_uses.take():
        await db.write(delegates.write_uses, uses)
