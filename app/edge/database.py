"""Database: one SQLite file, with one writer thread and readers beside it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from app.edge import sqlite
from app.edge.archive import Archive
from app.edge.job import Group
from app.edge.mount import AtPrimaryOnly, Mount, may_block
from app.edge.readers import MOUNT_PROGRESS_STEPS, Reader, ThreadReaders
from app.edge.transaction import Connection, Position, Row, Transaction, find_archived
from app.edge.writer import Writer
from app.errors import Unavailable

__all__ = ["Connection", "Database", "Group", "Position", "Row", "Transaction", "at_start", "written_position"]

T = TypeVar("T")

READ_SECONDS = 2.0
# An open read on a replica holds up its replication: docs/edge.md.
REPLICA_READ_SECONDS = 0.05
START_SECONDS, AGAIN_SECONDS = 10.0, 0.2
SCAN_PAGE_ROWS = 1_000
SCAN_CONNECTIONS = 2
SCAN_WAIT_SECONDS = 8.0

# The position of the last commit that the running request waited for; `http` makes it `X-Txid`.
written_position: ContextVar[Position | None] = ContextVar("written_position", default=None)


class Database:
    """Write with `write`, read with `read`, list with `scan`.

    Every fault of the machine (lock, full disk, lost mount, a statement over its time) is `Unavailable`, which is
    503. On a replica there is no writer: a write is `AtPrimaryOnly`, and so is a read that takes too long there.
    `blocks` says whether a read may wait for the file system, which else is asked of the path.
    """

    def __init__(
        self,
        path: Path,
        committed: Callable[[Group], None] = lambda group: None,
        archive: Archive | None = None,
        mount: Mount = Mount.NONE,
        blocks: bool | None = None,
    ) -> None:
        self.path = path
        self.archive = archive
        self._mount = mount
        # A copy that comes to a local file is read on the loop like any other.
        self._on_loop = mount is Mount.NONE or not (may_block(path) if blocks is None else blocks)
        self._seconds = REPLICA_READ_SECONDS if mount is Mount.REPLICA else READ_SECONDS
        self.writer = Writer(path, committed, archive, mount) if mount is not Mount.REPLICA else None
        # What a write waits for beside its commit.
        self.shipped: Callable[[], Awaitable[None]] | None = None
        self._reader: Reader | None = None
        self._threads: ThreadReaders | None = None
        self._scanners: list[aiosqlite.Connection] = []
        self._scan_slots = asyncio.Semaphore(SCAN_CONNECTIONS)
        self._scan_deadlines: dict[aiosqlite.Connection, sqlite.Deadline] = {}

    def open(self) -> None:
        if self.writer is not None:
            self.writer.start()
        if self._on_loop:
            self._reader = Reader(self.path, self._seconds)
        else:
            self._threads = ThreadReaders(self.path, self._seconds)

    async def close(self) -> None:
        if self.writer is not None:
            await self.writer.close()
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
        threads, self._threads = self._threads, None
        if threads is not None:
            await threads.close()
        for scanner in list(self._scan_deadlines):
            await scanner.close()

    async def write(self, fn: Callable[..., T], *args: Any) -> T:
        """Run `fn(tx, *args)` in the writer's next group and return its value after COMMIT.

        Raises what `fn` raised (nothing of it is kept), or `Unavailable`: the queue is full, the disk is,
        the outcome of COMMIT is unknown, or the commit is not shipped in time: then the caller repeats by id.
        """
        if self.writer is None:
            raise AtPrimaryOnly("A replica does not write")
        value, position = await self.writer.submit(fn, args)
        if position is not None:
            written_position.set(position)
        if self.shipped is not None:
            await self.shipped()
        return value

    async def read(self, fn: Callable[..., T], *args: Any) -> T:
        """Run `fn(connection, *args)` in one read transaction.

        On a local file it runs here and now, without suspending; on a mount on a thread.
        """
        try:
            if self._threads is not None:
                return await self._threads.transaction(fn, args)
            return self._reading().transaction(fn, args)
        except (sqlite.Error, OSError) as error:
            raise self._as_app_error(error) from error

    async def read_one(self, fn: Callable[..., T], *args: Any) -> T:
        """`read` for a function of a single statement, which is a transaction by itself: two statements fewer."""
        try:
            if self._threads is not None:
                return await self._threads.statement(fn, args)
            return self._reading().statement(fn, args)
        except (sqlite.Error, OSError) as error:
            raise self._as_app_error(error) from error

    def _reading(self) -> Reader:
        if self._reader is None:
            raise Unavailable("The database is not open", certain=False)
        return self._reader

    def _as_app_error(self, error: BaseException) -> BaseException:
        if self._mount is Mount.REPLICA and sqlite.passing_fault(error) == "interrupted":
            return AtPrimaryOnly(f"A replica reads for {self._seconds:g} s at most")
        return sqlite.as_app_error(error)

    async def scan(
        self, sql: str, *values: Any, after: int, until: int, archived: bool = False
    ) -> AsyncIterator[list[Row]]:
        """Pages of `sql`, each its own transaction off the loop.

        `sql` ends in `… id > ? AND id <= ? ORDER BY id LIMIT ?`, and `id` is its first column; `until` is
        the newest id when the scan began, so that it ends however fast rows arrive. `archived`: as in `page_of_both`.
        """
        read = self.page_of_both if archived else self.page
        while page := await read(sql, *values, after, until, SCAN_PAGE_ROWS):
            yield page
            if len(page) < SCAN_PAGE_ROWS:
                return
            after = page[-1][0]

    async def page(self, sql: str, *values: Any) -> list[Row]:
        """All rows of one statement, read off the loop. The statement bounds them by SCAN_PAGE_ROWS."""
        if self._reader is None and self._threads is None:
            raise Unavailable("The database is not open", certain=False)
        try:
            async with asyncio.timeout(SCAN_WAIT_SECONDS), self._scan_slots:
                scanner = self._scanners.pop() if self._scanners else await self._open_scanner()
                try:
                    self._scan_deadlines[scanner].restart()
                    rows: list[Row] = await scanner.execute_fetchall(sql, values)  # type: ignore[assignment]
                    return rows
                finally:
                    self._scanners.append(scanner)
        except sqlite.Error as error:
            raise self._as_app_error(error) from error
        except TimeoutError as error:
            raise Unavailable(f"No list could be read within {SCAN_WAIT_SECONDS:g} s", certain=False) from error

    async def page_of_both(self, sql: str, *values: Any) -> list[Row]:
        """`page` over this database and its archive, once rows have left for there."""
        if await self.read_one(find_archived) is None:
            rows = await self.page(sql, *values)
            # The first rows ever may have left between the two.
            if await self.read_one(find_archived) is None:
                return rows
        if self.archive is None:
            raise Unavailable("Rows have left the database, and nobody said where to", certain=False)
        return await self.archive.page(sql, *values)

    async def _open_scanner(self) -> aiosqlite.Connection:
        local = self._on_loop
        deadline = sqlite.Deadline(self._seconds)
        scanner = await aiosqlite.Connection(
            lambda: sqlite.connect(self.path, read_only=True, mapped=local), iter_chunk_size=64
        )
        await scanner.set_progress_handler(deadline.passed, sqlite.PROGRESS_STEPS if local else MOUNT_PROGRESS_STEPS)
        self._scan_deadlines[scanner] = deadline
        return scanner


async def at_start(read: Callable[..., Awaitable[T]], *args: Any) -> T:
    """What a start has to read. The first reads of a replica's mount may take longer than one may there: they are
    tried again for a while. Unavailable."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            return await read(*args)
        except Unavailable:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(AGAIN_SECONDS)
