"""Readers: a connection that reads and never for long, and on a mount the threads that may wait for it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from app.edge import sqlite
from app.edge.transaction import Connection
from app.errors import Unavailable

T = TypeVar("T")

# Few instructions read many pages, and each page of a mount may take a millisecond.
MOUNT_PROGRESS_STEPS = 500
READ_THREADS = 4
WAITING_READS = 1_000
READ_WAIT_SECONDS = 8.0


class Reader:
    """One read-only connection whose statements end at a deadline."""

    def __init__(self, path: Path, seconds: float, *, mounted: bool = False) -> None:
        raw = sqlite.connect(path, read_only=True, other_threads=mounted, mapped=not mounted)
        self._connection = Connection(raw)
        self._deadline = sqlite.Deadline(seconds)
        raw.set_progress_handler(self._deadline.passed, MOUNT_PROGRESS_STEPS if mounted else sqlite.PROGRESS_STEPS)

    def transaction(self, fn: Callable[..., T], args: tuple[Any, ...]) -> T:
        """Run `fn(connection, *args)` in one read transaction."""
        raw = self._connection.raw
        self._deadline.restart()
        try:
            raw.execute("BEGIN")
            try:
                return fn(self._connection, *args)
            finally:
                # An interrupted COMMIT would leave every later read inside this transaction.
                self._deadline.lift()
                if raw.in_transaction:
                    raw.execute("COMMIT")
        finally:
            self._deadline.lift()

    def statement(self, fn: Callable[..., T], args: tuple[Any, ...]) -> T:
        """Run `fn` of a single statement, which is a transaction by itself: two statements fewer."""
        self._deadline.restart()
        try:
            return fn(self._connection, *args)
        finally:
            self._deadline.lift()

    def close(self) -> None:
        self._connection.raw.close()


class ThreadReaders:
    """READ_THREADS, each read on one of them with a connection that nobody else uses meanwhile.

    The first connection is made at once, so that a file that cannot be opened is found at start. A mount that
    hangs holds these threads and no others; whoever waits behind them is told so.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(READ_THREADS, "reader")
        self._idle: list[Reader] = [self._new()]
        self._waiting = 0

    async def transaction(self, fn: Callable[..., T], args: tuple[Any, ...]) -> T:
        return await self._run(Reader.transaction, fn, args)

    async def statement(self, fn: Callable[..., T], args: tuple[Any, ...]) -> T:
        return await self._run(Reader.statement, fn, args)

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        for reader in self._idle:
            reader.close()

    async def _run(self, how: Callable[..., T], fn: Callable[..., T], args: tuple[Any, ...]) -> T:
        if self._waiting >= WAITING_READS:
            raise Unavailable(f"Too many reads are waiting: {self._waiting} of {WAITING_READS}", certain=False)
        self._waiting += 1
        loop = asyncio.get_running_loop()
        running: asyncio.Future[T] = loop.run_in_executor(self._threads, self._read, how, fn, args)
        running.add_done_callback(self._done)
        try:
            async with asyncio.timeout(READ_WAIT_SECONDS):
                return await running
        except TimeoutError as error:
            message = f"The database could not be read within {READ_WAIT_SECONDS:g} s"
            raise Unavailable(message, certain=False) from error

    def _done(self, running: "asyncio.Future[Any]") -> None:
        self._waiting -= 1

    def _read(self, how: Callable[..., T], fn: Callable[..., T], args: tuple[Any, ...]) -> T:
        # No more threads than READ_THREADS are here at once, so there are never more connections either.
        reader = self._idle.pop() if self._idle else self._new()
        try:
            return how(reader, fn, args)
        finally:
            self._idle.append(reader)

    def _new(self) -> Reader:
        return Reader(self._path, self._seconds, mounted=True)
