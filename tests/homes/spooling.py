"""Puts usage into a machine's spool, as whatever meters there does."""

import asyncio
from pathlib import Path

from app.edge.clock import now_ms
from app.edge.database import Database
from app.edge.spool import insert
from app.identity.users import DEV_USER
from app.ops import owed
from app.usage.events import read_event
from app.usage.ledger import Poster
from app.usage.rows import Line
from app.usage.wire import Wire


def owe_usage(machine_file: Path, number: int) -> str:
    """One event of three tokens; its id."""
    name = f"event-{number}"
    now = now_ms()
    event = read_event(Wire(responseId=name, userId=DEV_USER, inputTokens=1, outputTokens=2), now)
    items = owed.usage([Line(event, now)], Poster())

    async def put() -> None:
        db = Database(machine_file)
        db.open()
        try:
            await db.write(insert, owed.USAGE, items, now)
        finally:
            await db.close()

    asyncio.run(put())
    return name
