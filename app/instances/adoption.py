"""Adoption: a machine becomes the home of what it has files of and nobody owns.

That is what it served alone before there were others, and what a core that was restored does not know of any more.
"""

import asyncio
from functools import partial
from pathlib import Path

import structlog

from app.edge.membership import Membership
from app.errors import AppError
from app.instances.restoration import read_number
from app.instances.store import list_held

RETRY_SECONDS = 1.0

log = structlog.get_logger("adoption")


async def adopt(member: Membership, folder: Path) -> None:
    """The primary does it before it answers anybody. Unavailable."""
    await member.adopt(await asyncio.to_thread(list_held, folder), partial(read_number, folder))


async def adopt_later(member: Membership, folder: Path) -> None:
    """Another machine does it as soon as the primary knows it."""
    await member.keeper.wait()
    while True:
        try:
            return await adopt(member, folder)
        except AppError as error:
            log.warning("not_adopted", error=error.message)
        await asyncio.sleep(RETRY_SECONDS)
