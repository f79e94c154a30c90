"""The one SQLite in this process: pysqlite3, checked when it is imported.

Two copies of SQLite on one file drop each other's locks and lose acknowledged commits, and libraries
before 3.51.3 can corrupt a WAL that two connections write and checkpoint (docs/edge.md).
"""

import errno
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.errors import AppError, Unavailable

if "_sqlite3" in sys.modules:
    raise ImportError("The standard library's sqlite3 is loaded already: import `app` before it.")

import pysqlite3
import pysqlite3.dbapi2

sys.modules["sqlite3"] = pysqlite3
sys.modules["sqlite3.dbapi2"] = pysqlite3.dbapi2

OLDEST_SAFE = (3, 51, 3)
BUSY_SECONDS = 5.0
WAL_RETRY_SECONDS = 0.01
PAGE_CACHE_KIB = 65_536
MMAP_BYTES = 1 << 30
STATEMENTS_CACHED = 256
PROGRESS_STEPS = 20_000

if pysqlite3.sqlite_version_info < OLDEST_SAFE:
    raise ImportError(f"SQLite {pysqlite3.sqlite_version} is older than 3.51.3, which mends the WAL reset.")

VERSION: str = pysqlite3.sqlite_version
Error: type[Exception] = pysqlite3.Error
IntegrityError: type[Exception] = pysqlite3.IntegrityError

# Primary result codes of a database that cannot serve now but may later: https://sqlite.org/rescode.html
_PASSING = {
    5: "busy",
    6: "locked",
    8: "readonly",
    9: "interrupted",
    10: "io",
    13: "full",
    14: "cantopen",
    15: "protocol",
}

# What a file system that has lost its mount, its server or its disk answers to a plain system call.
_LOST_MOUNT = {
    errno.ENOTCONN,
    errno.EIO,
    errno.EROFS,
    errno.ENODEV,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ENOSPC,
}


class Deadline:
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


def assert_one_module() -> None:
    """Refuse to go on when a second copy of SQLite has found its way into the process."""
    if "_sqlite3" in sys.modules or sys.modules["sqlite3"] is not pysqlite3:
        raise RuntimeError("A second copy of SQLite was loaded into this process.")


def passing_fault(error: BaseException) -> str | None:
    """The name of a fault of the machine (full disk, lock, lost mount), or None for a fault of the statement."""
    if isinstance(error, OSError) and error.errno in _LOST_MOUNT:
        return errno.errorcode[error.errno].lower()
    code = getattr(error, "sqlite_errorcode", None)
    return _PASSING.get(code & 0xFF) if isinstance(code, int) else None


def as_app_error(error: BaseException) -> BaseException:
    """A fault of the machine becomes 503; everything else stays what it is."""
    fault = None if isinstance(error, AppError) else passing_fault(error)
    if fault is None:
        return error
    unavailable = Unavailable(f"The database cannot answer now ({fault})", certain=False)
    unavailable.__cause__ = error
    return unavailable


def connect(
    path: Path,
    *,
    read_only: bool = False,
    other_threads: bool = False,
    mapped: bool = False,
    busy_seconds: float | None = None,
) -> Any:
    """A connection in autocommit mode; `other_threads` when it is made on one thread and used on another.

    `mapped` reads through memory, which is fastest on a local file and out of the question on a mount: there a page
    that cannot be fetched would end the process.
    """
    mode = "ro" if read_only else "rwc"
    raw = pysqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS if busy_seconds is None else busy_seconds,
        isolation_level=None,
        check_same_thread=not other_threads,
        cached_statements=STATEMENTS_CACHED,
    )
    raw.execute("PRAGMA foreign_keys = ON")
    raw.execute(f"PRAGMA cache_size = -{PAGE_CACHE_KIB}")
    raw.execute(f"PRAGMA mmap_size = {MMAP_BYTES if mapped else 0}")
    raw.execute("PRAGMA temp_store = MEMORY")
    if read_only:
        raw.execute("PRAGMA query_only = ON")
    return raw


def enter_wal(raw: Any) -> None:
    """Set the journal mode of a new file. SQLite waits for no lock here, because it holds one; so this does.

    A file that has it is left alone: on a mount the mode is set once, at creation.
    """
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            if raw.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                raw.execute("PRAGMA journal_mode = WAL")
            return
        except pysqlite3.Error as error:
            if passing_fault(error) is None or time.monotonic() > until:
                raise
        time.sleep(WAL_RETRY_SECONDS)


@contextmanager
def snapshot(path: Path) -> Iterator[Any]:
    """One read transaction on a connection of its own, for a command that reads longer than a server may."""
    raw = connect(path, read_only=True)
    try:
        raw.execute("BEGIN")
        yield raw
    finally:
        raw.close()


def complete_statement(text: str) -> bool:
    """Whether `text` ends in a whole statement, as SQLite's own tokenizer sees it."""
    complete: bool = pysqlite3.complete_statement(text)
    return complete
