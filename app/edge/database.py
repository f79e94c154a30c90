"""Database: one SQLite file, with one writer thread and readers beside it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from app.edge import sqlite
from app.edge.transaction import Connection, Position, Row, Transaction
from app.edge.writer import Group, Writer
from app.errors import Unavailable

__all__ = ["Connection", "Database", "Group", "Position", "Row", "Transaction", "written_position"]

T = TypeVar("T")

READ_SECONDS = 2.0
PROGRESS_STEPS = 20_000
SCAN_PAGE_ROWS = 1_000
SCAN_CONNECTIONS = 2
SCAN_WAIT_SECONDS = 8.0

# The position of the last commit that the running request waited for; `http` makes it `X-Txid`.
written_position: ContextVar[Position | None] = ContextVar("written_position", default=None)


class _Deadline:
    """Ends a statement that runs past it: SQLite asks every PROGRESS_STEPS instructions."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until = float("inf")

    def restart(self) -> None:
        self._until = time.monotonic() + self._seconds

    def lift(self) -> None:
        self._until = float("inf")

    def passed(self) -> int:
        return time.monotonic() > self._until


class Database:
    """Write with `write`, read with `read`, list with `scan`.

    Every fault of the machine (lock, full disk, a statement over its time) is `Unavailable`, which is 503.
    """

    def __init__(self, path: Path, committed: Callable[[Group], None] = lambda group: None) -> None:
        self.path = path
        self.writer = Writer(path, committed)
        self._deadline = _Deadline(READ_SECONDS)
        self._reader: Connection | None = None
        self._scanners: list[aiosqlite.Connection] = []
        self._scan_slots = asyncio.Semaphore(SCAN_CONNECTIONS)
        self._scan_deadlines: dict[aiosqlite.Connection, _Deadline] = {}

    def open(self) -> None:
        self.writer.start()
        raw = sqlite.connect(self.path, read_only=True)
        raw.set_progress_handler(self._deadline.passed, PROGRESS_STEPS)
        self._reader = Connection(raw)

    async def close(self) -> None:
        await self.writer.close()
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.raw.close()
        for scanner in list(self._scan_deadlines):
            await scanner.close()

    async def write(self, fn: Callable[..., T], *args: Any) -> T:
        """Run `fn(tx, *args)` in the writer's next group and return its value after COMMIT.

        Raises what `fn` raised (nothing of it is kept), or `Unavailable`: the queue is full, the disk is,
        or the outcome of COMMIT is unknown and the caller repeats by id.
        """
        value, position = await self.writer.submit(fn, args)
        if position is not None:
            written_position.set(position)
        return value

    async def read(self, fn: Callable[..., T], *args: Any) -> T:
        """Run `fn(connection, *args)` in one read transaction, here and now, without suspending."""
        return self.read_now(fn, *args)

    def read_now(self, fn: Callable[..., T], *args: Any) -> T:
        """`read` where nothing can be awaited: at start, and in a listener of the feed."""
        reader = self._reading()
        execute = reader.raw.execute
        try:
            execute("BEGIN")
            try:
                return fn(reader, *args)
            finally:
                # An interrupted COMMIT would leave every later read inside this transaction.
                self._deadline.lift()
                if reader.raw.in_transaction:
                    execute("COMMIT")
        except sqlite.Error as error:
            raise sqlite.as_app_error(error) from error

    async def read_one(self, fn: Callable[..., T], *args: Any) -> T:
        """`read` for a function of a single statement, which is a transaction by itself: two statements fewer."""
        reader = self._reading()
        try:
            return fn(reader, *args)
        except sqlite.Error as error:
            raise sqlite.as_app_error(error) from error
        finally:
            self._deadline.lift()

    def _reading(self) -> Connection:
        """The loop's own connection, with a new deadline."""
        if self._reader is None:
            raise Unavailable("The database is not open", certain=False)
        self._deadline.restart()
        return self._reader

    async def scan(self, sql: str, *values: Any, after: int, until: int) -> AsyncIterator[list[Row]]:
        """Pages of `sql`, each its own transaction off the loop.

        `sql` ends in `… id > ? AND id <= ? ORDER BY id LIMIT ?`, and `id` is its first column; `until` is
        the newest id when the scan began, so that it ends however fast rows arrive.
        """
        while page := await self.page(sql, *values, after, until, SCAN_PAGE_ROWS):
            yield page
            if len(page) < SCAN_PAGE_ROWS:
                return
            after = page[-1][0]

    async def page(self, sql: str, *values: Any) -> list[Row]:
        """All rows of one statement, read off the loop. The statement bounds them by SCAN_PAGE_ROWS."""
        if self._reader is None:
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
            raise sqlite.as_app_error(error) from error
        except TimeoutError as error:
            raise Unavailable(f"No list could be read within {SCAN_WAIT_SECONDS:g} s", certain=False) from error

    async def _open_scanner(self) -> aiosqlite.Connection:
        deadline = _Deadline(READ_SECONDS)
        scanner = await aiosqlite.Connection(lambda: sqlite.connect(self.path, read_only=True), iter_chunk_size=64)
        await scanner.set_progress_handler(deadline.passed, PROGRESS_STEPS)
        self._scan_deadlines[scanner] = deadline
        return scanner
