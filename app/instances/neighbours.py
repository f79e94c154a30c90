"""Neighbours: what this machine's instances have to do with the other machines."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from app.edge import background
from app.edge.database import Database
from app.edge.membership import Membership
from app.edge.peers import Peers
from app.instances.adoption import adopt_later
from app.instances.clones import Clones
from app.instances.homecoming import Homecoming
from app.instances.hubs import Hubs
from app.instances.leftovers import Leftovers
from app.instances.moves import Moves
from app.instances.stocktaking import take_stock
from app.projects.instances import Copier


def begin(
    hubs: Hubs, member: Membership | None, peers: Peers | None, db: Database, folder: Path, stack: AsyncExitStack
) -> tuple[Copier, list[Coroutine[Any, Any, None]]]:
    """Who makes clones, and what has to run. To be called before the closing of `hubs` is on the stack."""
    if member is None or peers is None or hubs.parcels is None:
        return hubs, [take_stock(hubs, db, folder, None)]
    Moves(db, hubs, member.keeper, peers, member.registry)
    tasks = [
        take_stock(hubs, db, folder, member.keeper),
        Leftovers(hubs, member.keeper, peers, db, folder).run(),
    ]
    if member.registry is None:
        tasks.append(adopt_later(member, folder))
    if hubs.replicas.exist:
        tasks.append(Homecoming(hubs, member.keeper, db).run())
        # Whoever tells the others that they may open what is here has closed all of it, and begins no session again.
        stack.push_async_callback(_leave, member, hubs, folder)
    background.run(stack, member.run(hubs.fence))
    return Clones(hubs, member.keeper, peers, hubs.parcels), tasks


async def _leave(member: Membership, hubs: Hubs, folder: Path) -> None:
    """What the replica may not have all of nobody else can open for now."""
    await member.leave(await asyncio.to_thread(hubs.replicas.owed, folder))
