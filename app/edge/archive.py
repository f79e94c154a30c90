"""Archive: rows that have left the core, in a file beside it that only grows.

The core's row `archived` says which file they went to and how many of its commits the core relies on. A file that is
missing, another one or older than that is refused: whoever asked it would hear that a row never was. Three
connections, each of one thread at a time: the writer asks by the first, lists read by the second, the third adds.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from app.edge import migrate, sqlite
from app.edge.transaction import Archived, Connection, Row, Transaction, find_archived
from app.errors import AppError, Unavailable

T = TypeVar("T")

KIND = "ledger"
CHECKPOINT_PAGES = 8_000
# The writer waits no longer than this for the file, and after a refusal asks it again only this much later.
ASK_SECONDS = 0.25
REFUSED_SECONDS = 0.5
PAGE_SECONDS = 2.0
PROGRESS_STEPS = 20_000


def insert_archived(tx: Transaction, archived: Archived) -> None:
    """Say, before the first row leaves, where rows go."""
    tx.execute("INSERT INTO archived (one, id, moves) VALUES (1, ?, ?) ON CONFLICT (one) DO NOTHING", *archived)


def rely_on(tx: Transaction, moves: int) -> None:
    """Say, with the rows that leave, which commit of the archive holds them."""
    tx.execute("UPDATE archived SET moves = max(moves, ?)", moves)


class Archive:
    """`view` is the SQL that makes one table of both, for lists; it is handed in by whom the rows belong to."""

    def __init__(self, core: Path, path: Path, view: str) -> None:
        self.core = core
        self.path = path
        self._view = view
        self._asked: Connection | None = None
        self._asked_for: Archived | None = None
        self._asked_file = self._added_file = self._both_file = 0
        self._refused_until = 0.0
        self._both: Any = None
        self._added: Any = None
        self._listing = threading.Lock()
        self._adding = threading.Lock()
        self._list_until = float("inf")

    # -- on the writer's thread ------------------------------------------------------------------------

    def fetch(self, archived: Archived, sql: str, *values: Any) -> list[Row]:
        """Ask the file that the core relies on. Unavailable where it cannot answer for all that has left."""
        if time.monotonic() < self._refused_until:
            raise self._unavailable("refused a moment ago")
        try:
            # Each transaction brings an `archived` of its own; once in each is often enough to look at the file.
            if self._asked is None or archived is not self._asked_for:
                self._asked = self._reopen_asked(archived)
            return self._asked.fetch(sql, *values)
        except (AppError, sqlite.Error) as error:
            self._refused_until = time.monotonic() + REFUSED_SECONDS
            self._close_asked()
            raise self._cannot(error) from error

    def _reopen_asked(self, archived: Archived) -> Connection:
        """The open connection, or a new one where the file was taken away or another was put in its place."""
        self._asked_for = archived
        if self._asked is not None and self._file() == self._asked_file:
            return self._asked
        self._close_asked()
        self._asked_file = self._file()
        return Connection(self._open_asked(archived))

    def _close_asked(self) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.raw.close()

    def _open_asked(self, archived: Archived) -> Any:
        raw = sqlite.connect(self.path, read_only=True, other_threads=True, busy_seconds=ASK_SECONDS)
        try:
            self._require_same(archived, raw.execute("SELECT id, moves FROM archive").fetchone())
        except BaseException:
            raw.close()
            raise
        return raw

    # -- lists -----------------------------------------------------------------------------------------

    async def page(self, sql: str, *values: Any) -> list[Row]:
        """All rows of one statement over both files, read off the loop. The statement bounds them."""
        return await asyncio.to_thread(self._page, sql, values)

    def open_core(self, *, write: bool = False) -> Any:
        """A connection to the core alone: what a replica can read of the two."""
        raw = sqlite.connect(self.core, read_only=not write, other_threads=True)
        # What sorts all of a ledger, a command's sum, does it on the disk. Set before the view, which it would drop.
        raw.execute("PRAGMA temp_store = FILE")
        return raw

    def open_both(self, *, write: bool = False) -> Any:
        """A connection to the core, with the archive attached and the view over both where rows have left."""
        raw = self.open_core(write=write)
        try:
            archived = find_archived(Connection(raw))
            if archived is not None:
                self._attach(raw, archived)
        except BaseException:
            raw.close()
            raise
        return raw

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """One read transaction over both, for a command that reads longer than a server may."""
        raw = self.open_both()
        try:
            raw.execute("BEGIN")
            yield Connection(raw)
        finally:
            raw.close()

    def _page(self, sql: str, values: tuple[Any, ...]) -> list[Row]:
        with self._listing:
            try:
                file = self._file()
                if file != self._both_file:
                    self._close_both()
                if self._both is None:
                    self._both_file = file
                    self._both = self.open_both()
                    self._both.set_progress_handler(lambda: time.monotonic() > self._list_until, PROGRESS_STEPS)
                self._list_until = time.monotonic() + PAGE_SECONDS
                rows: list[Row] = self._both.execute(sql, values).fetchall()
                return rows
            except (AppError, sqlite.Error) as error:
                self._close_both()
                raise self._cannot(error) from error

    def _close_both(self) -> None:
        both, self._both = self._both, None
        if both is not None:
            both.close()

    def _attach(self, raw: Any, archived: Archived) -> None:
        self._file()
        raw.execute("ATTACH ? AS archive", (f"{self.path.absolute().as_uri()}?mode=ro",))
        self._require_same(archived, raw.execute("SELECT id, moves FROM archive.archive").fetchone())
        (read_only,) = raw.execute("PRAGMA query_only").fetchone()
        raw.execute("PRAGMA query_only = OFF")
        raw.execute(self._view)
        raw.execute(f"PRAGMA query_only = {read_only}")

    # -- adding ----------------------------------------------------------------------------------------

    async def prepare(self, archived: Archived | None) -> Archived:
        """Bring the file up to date and say what it is. It is made only where the core relies on none."""
        return await asyncio.to_thread(self._prepare, archived)

    def _prepare(self, archived: Archived | None) -> Archived:
        try:
            if archived is not None:
                self._file()
            migrate.migrate(self.path, KIND)
            return self._adding_to(archived)
        except (sqlite.Error, OSError, migrate.SchemaTooNew) as error:
            raise self._cannot(error) from error

    def _adding_to(self, archived: Archived | None) -> Archived:
        with self._adding:
            found = self._open_added().execute("SELECT id, moves FROM archive").fetchone()
        if archived is not None:
            self._require_same(archived, found)
        return Archived(*found)

    async def add(self, fn: Callable[..., T], *args: Any) -> tuple[T, int]:
        """Run `fn(tx, *args)` in a transaction of the archive: its value once it is on the disk, and which commit."""
        return await asyncio.to_thread(self._add, fn, args)

    def _add(self, fn: Callable[..., T], args: tuple[Any, ...]) -> tuple[T, int]:
        with self._adding:
            try:
                raw = self._open_added()
                raw.execute("BEGIN IMMEDIATE")
                value = fn(Transaction(raw), *args)
                (moves,) = raw.execute("UPDATE archive SET moves = moves + 1 RETURNING moves").fetchone()
                raw.execute("COMMIT")
                return value, moves
            except sqlite.Error as error:
                self._close_added()
                raise self._cannot(error) from error
            except BaseException:
                self._close_added()
                raise

    def _open_added(self) -> Any:
        file = self._file()
        if file != self._added_file:
            self._close_added()
        if self._added is None:
            self._added_file = file
            self._added = sqlite.connect(self.path, other_threads=True)
            self._added.execute("PRAGMA synchronous = FULL")
            self._added.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        return self._added

    def _close_added(self) -> None:
        added, self._added = self._added, None
        if added is not None:
            added.close()

    # -- both ------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close what is open. For when the writer has ended and nobody lists or adds any more."""
        self._close_asked()
        with self._listing:
            self._close_both()
        with self._adding:
            self._close_added()

    def _file(self) -> int:
        """Which file there is. Where it is missing SQLite would make an empty one, which knows of no row."""
        try:
            return self.path.stat().st_ino
        except FileNotFoundError as error:
            raise self._unavailable("is missing") from error

    def _require_same(self, archived: Archived, found: Row) -> None:
        if found[0] != archived.id:
            raise self._unavailable("is not the file that the core's rows went to")
        if found[1] < archived.moves:
            raise self._unavailable(f"is at commit {found[1]}, and the core relies on {archived.moves}")

    def _cannot(self, error: Exception) -> AppError:
        """Whatever is wrong with the file, also that it is none: 503, and nobody is told what it might not know."""
        return error if isinstance(error, AppError) else self._unavailable(f"cannot answer ({error})")

    def _unavailable(self, why: str) -> Unavailable:
        # A replica has no archive; the primary has.
        return Unavailable(f"{self.path.name} {why}", certain=False)
