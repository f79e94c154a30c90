"""Readers: a connection that reads and never for long, and on a mount the threads that may wait for it."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from app.edge import sqlite
from app.edge.transaction import Connection
from app.errors import Unavailable

T = TypeVar("T")

# Few instructions read many pages, and each page of a mount may take a millisecond.
MOUNT_PROGRESS_STEPS = 500
READ_THREADS = 4
WAITING_READS = 1_000
READ_WAIT_SECONDS = 8.0
# Reads share a transaction no longer than this: nobody waits for long behind another, nor replication behind them.
TOGETHER_SECONDS = 0.005


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


class _Read(NamedTuple):
    """What somebody waits for; `single` where it is one statement."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    single: bool
    future: "asyncio.Future[Any]"


class _Outcome(NamedTuple):
    read: _Read
    value: Any
    error: Exception | None


class ThreadReaders:
    """READ_THREADS, each with a connection that nobody else uses meanwhile.

    On a mount a transaction costs more than what is read in it. So what has gathered while all threads read is shared
    out among them, and each runs its part in one transaction, which begins after all of it was asked for. The first
    connection is made at once, so that a file that cannot be opened is found at start. A mount that hangs holds these
    threads and no others; whoever waits behind them is told so.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(READ_THREADS, "reader")
        self._idle: list[Reader] = [self._new()]
        # What is waited for, and by how many threads; both change under the lock.
        self._lock = threading.Lock()
        self._pending: deque[_Read] = deque()
        self._reading = 0
        self._waiting = 0

    async def transaction(self, fn: Callable[..., T], args: tuple[Any, ...]) -> T:
        return await self._run(fn, args, single=False)

    async def statement(self, fn: Callable[..., T], args: tuple[Any, ...]) -> T:
        return await self._run(fn, args, single=True)

    async def close(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, deque()
        for read in pending:
            self._tell([_Outcome(read, None, Unavailable("The database is being closed", certain=False))])
        await asyncio.to_thread(self._threads.shutdown)
        for reader in self._idle:
            reader.close()

    async def _run(self, fn: Callable[..., T], args: tuple[Any, ...], *, single: bool) -> T:
        if self._waiting >= WAITING_READS:
            raise Unavailable(f"Too many reads are waiting: {self._waiting} of {WAITING_READS}", certain=False)
        self._waiting += 1
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        read = _Read(fn, args, single, future)
        with self._lock:
            self._pending.append(read)
            is_free = self._reading < READ_THREADS
            self._reading += is_free
        if is_free:
            self._threads.submit(self._work, loop)
        try:
            async with asyncio.timeout(READ_WAIT_SECONDS):
                return await future
        except TimeoutError as error:
            message = f"The database could not be read within {READ_WAIT_SECONDS:g} s"
            raise Unavailable(message, certain=False) from error
        finally:
            if future.cancelled():
                self._forget(read)

    def _forget(self, read: _Read) -> None:
        """Who asked has left. A read that has begun is counted until it ends."""
        with self._lock, suppress(ValueError):
            self._pending.remove(read)
            self._waiting -= 1

    def _tell(self, outcomes: list[_Outcome]) -> None:
        for read, value, error in outcomes:
            self._waiting -= 1
            if read.future.done():
                continue
            if error is not None:
                read.future.set_exception(error)
            else:
                read.future.set_result(value)

    # -- on a thread ------------------------------------------------------------------------------------

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while reads := self._take():
            outcomes = self._read(reads)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._tell, outcomes)

    def _take(self) -> deque[_Read]:
        """This thread's part of what waits; nothing ends it. One read while there are threads for the others."""
        with self._lock:
            share = -(-len(self._pending) // READ_THREADS) if self._reading == READ_THREADS else 1
            reads = deque(self._pending.popleft() for _ in range(min(share, len(self._pending))))
            if not reads:
                self._reading -= 1
            return reads

    def _read(self, reads: deque[_Read]) -> list[_Outcome]:
        try:
            reader = self._borrow()
        except Exception as error:  # noqa: BLE001 - theirs who asked
            return [_Outcome(read, None, error) for read in reads]
        try:
            if len(reads) == 1:
                (read,) = reads
                how = reader.statement if read.single else reader.transaction
                return [_outcome(read, how, read.fn, read.args)]
            return self._read_together(reader, reads)
        finally:
            self._idle.append(reader)

    def _read_together(self, reader: Reader, reads: deque[_Read]) -> list[_Outcome]:
        """In one transaction, until a read fails or has taken long; what is left goes back to the front."""
        outcomes: list[_Outcome] = []
        until = time.monotonic() + TOGETHER_SECONDS

        def run(connection: Connection) -> None:
            while reads:
                read = reads.popleft()
                outcomes.append(_outcome(read, read.fn, connection, *read.args))
                if outcomes[-1].error is not None or time.monotonic() > until:
                    return

        try:
            reader.transaction(run, ())
        except Exception as error:  # noqa: BLE001 - theirs who asked: it could not begin, or not end
            outcomes = [_Outcome(read, None, error) for read in (*(one.read for one in outcomes), *reads)]
            reads.clear()
        with self._lock:
            self._pending.extendleft(reversed(reads))
        return outcomes

    def _borrow(self) -> Reader:
        # No more threads than READ_THREADS are here at once, so there are never more connections either. Only `pop`
        # says whether one is idle: another thread may take the last one between a look and that.
        with suppress(IndexError):
            return self._idle.pop()
        return self._new()

    def _new(self) -> Reader:
        return Reader(self._path, self._seconds, mounted=True)


def _outcome(read: _Read, fn: Callable[..., Any], *args: Any) -> _Outcome:
    try:
        return _Outcome(read, fn(*args), None)
    except Exception as error:  # noqa: BLE001 - theirs who asked
        return _Outcome(read, None, error)
