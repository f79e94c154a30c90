"""The mover: takes the ledger's old rows out of the core, which every region carries, into the archive.

First they are added there and on the disk, then they go here: killed in between, it finds them again and adds
nothing. The counters follow insertions only, so a row that leaves changes none of them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from app.edge import archive as archives
from app.edge import sqlite
from app.edge.archive import Archive
from app.edge.clock import now_ms
from app.edge.database import SCAN_PAGE_ROWS, Database, Transaction
from app.edge.transaction import find_archived
from app.errors import AppError
from app.usage import archive_queries
from app.usage.period import DAY_MS

KEPT_DAYS = 40
PASS_SECONDS = 60.0
# A job that deletes aims at half of what it may hold the writer for, and leaves it alone for three times as long.
HOLD_SECONDS = 0.02
REST = 3.0
FIRST_ROWS = 50
MOST_ROWS = 250

Shipped = Callable[[], Awaitable[None]]

log = structlog.get_logger("mover")


class Mover:
    """Moves rows from `db` to `archive`. Two of them at once, in one process or in two, do no harm."""

    def __init__(self, db: Database, archive: Archive, shipped: Shipped | None = None) -> None:
        """`shipped` returns once the backup has what was added to the archive. Unavailable: not yet."""
        self._db = db
        self._archive = archive
        self._shipped = shipped
        self._rows = FIRST_ROWS

    async def run(self) -> None:
        """Move what is old, for ever. Whatever is wrong with the archive, the core keeps the rows meanwhile."""
        while True:
            try:
                await self.move(now_ms(), rest=REST)
            except (AppError, sqlite.Error) as error:
                log.warning("move_failed", error=str(error))
            await asyncio.sleep(PASS_SECONDS)

    async def move(self, now: int, *, rest: float = 0.0) -> int:
        """Move the old rows at the core's beginning; how many. Rows come in the order of their receipt, nearly."""
        moved, after = 0, 0
        while (page := await self._move_page(after, now, rest)) is not None and page[1]:
            after = page[0]
            moved += page[1]
        return moved

    async def move_imported(self, after: int, now: int) -> int:
        """Move the old rows among those that came in after `after`; how many."""
        moved = 0
        while (page := await self._move_page(after, now, 0.0)) is not None:
            after = page[0]
            moved += page[1]
        return moved

    async def _move_page(self, after: int, now: int, rest: float) -> tuple[int, int] | None:
        """`(last id, rows moved)` of the next page; None behind the last one."""
        last = await self._db.read(archive_queries.find_page_end, after, SCAN_PAGE_ROWS)
        if last is None:
            return None
        cutoff = now - KEPT_DAYS * DAY_MS
        rows = await self._db.page(archive_queries.LIST_OLD, after, SCAN_PAGE_ROWS, cutoff)
        if rows:
            await self._prepare()
            there, moves = await self._archive.add(archive_queries.insert_moved, rows)
            if len(there) < len(rows):
                log.error("archive_differs", rows=len(rows) - len(there), first=rows[0][0], last=rows[-1][0])
            if self._shipped is not None:
                # With the disk lost in between, a row would be in neither file's backup.
                await self._shipped()
            await self._delete(there, moves, rest)
            return last, len(there)
        return last, 0

    async def _prepare(self) -> None:
        """Have the core say where its rows go before the first one goes."""
        known = await self._db.read(find_archived)
        found = await self._archive.prepare(known)
        if known is None:
            await self._db.write(archives.insert_archived, found)

    async def _delete(self, ids: list[int], moves: int, rest: float) -> None:
        while ids:
            some, ids = ids[: self._rows], ids[self._rows :]
            held = await self._db.write(_delete_some, some, moves)
            self._rows = _next_rows(self._rows, held)
            await asyncio.sleep(held * rest)


def _delete_some(tx: Transaction, ids: list[int], moves: int) -> float:
    begun = time.monotonic()
    archives.rely_on(tx, moves)
    archive_queries.delete_moved(tx, ids)
    return time.monotonic() - begun


def _next_rows(rows: int, held: float) -> int:
    if held > HOLD_SECONDS / 2:
        return max(1, rows // 2)
    return min(MOST_ROWS, rows + rows // 4 + 1) if held < HOLD_SECONDS / 4 else rows
