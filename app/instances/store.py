"""The store: an instance's own SQLite file. One commit for what the hub has gathered; no other writer.

Files share STORE_THREADS, each file always on the same one, so a file's statements never meet.
"""

import secrets
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from app.edge import litestream, migrate, sqlite
from app.errors import Unavailable
from app.instances import queries
from app.instances.entry import Entry
from app.instances.queries import Event, Operation, Record

T = TypeVar("T")

KIND = "instance"
STORE_THREADS = 4
EPOCH_BYTES = 4
STORE_CACHE_KIB = 512
# A read that takes longer is broken off: the file's writes wait for it, and those of the files beside it.
READ_SECONDS = 5.0
DAY_MS = 86_400_000
OPERATION_MS = DAY_MS
TRIM_EVERY_COMMITS = 1_000
# More than who ships a file lets its log grow to: met only while nobody ships it.
SHIPPED_CHECKPOINT_PAGES = 16_000


class Retention(NamedTuple):
    """How long history is kept, and how many changes of it at most."""

    days: int = 30
    changes: int = 100_000


class Loaded(NamedTuple):
    """What a hub begins with. `told_from` is the first change that history still tells."""

    entries: dict[str, Entry]
    bytes: int
    seq: int
    epoch: str
    told_from: int


class Commit(NamedTuple):
    """One transaction's worth of changes in order, the operations they answer, the events they owe."""

    records: Sequence[Record]
    operations: Sequence[Operation]
    events: Sequence[Event]
    seq: int
    now: int


class OutcomeUnknown(Unavailable):
    """A commit failed, and the file does not say whether it holds it: nothing may be computed over the state."""

    def __init__(self) -> None:
        super().__init__("The outcome of this change is unknown: repeat it")


class Store:
    """One file, used on its own thread only."""

    def __init__(self, path: Path, retention: Retention) -> None:
        self.path = path
        self._retention = retention
        self._deadline = sqlite.Deadline(READ_SECONDS)
        self._raw: Any = None
        self._commits = 0
        self._is_shipped = False
        self.abandoned = False

    def open(self, now: int, epoch: str | None = None) -> Loaded:
        """Make or migrate the file, and read it whole. An owner that is new to it begins its own `epoch`."""
        epoch = self.begin(now, epoch)
        raw = self._connected()
        seq, told_from = queries.get_position(raw)
        return Loaded(queries.list_entries(raw), queries.count_bytes(raw), seq, epoch, told_from)

    def begin(self, now: int, epoch: str | None = None) -> str:
        """Make or migrate the file, and begin an epoch that is new to it; the one that it is in."""
        if not self._is_current():
            migrate.migrate(self.path, KIND)
        raw = self._connected()
        known = queries.find_epoch(raw)
        epoch = epoch or known or secrets.token_hex(EPOCH_BYTES)
        if epoch != known:
            queries.insert_epoch(raw, epoch, queries.get_position(raw)[0] + 1, now)
        return epoch

    def _is_current(self) -> bool:
        """Whether there is nothing to migrate: asked on the connection that stays, because another costs more."""
        if self.path.exists():
            raw = self._connected()
            # A copy of another file comes without it.
            sqlite.enter_wal(raw)
            if migrate.read_version(raw)[0] == _newest_version():
                return True
            self.close()
        return False

    def write(self, commit: Commit) -> int:
        """Write all of it or nothing; what `told_from` is then. A failure raises and has changed nothing.

        OutcomeUnknown where that cannot be told: the file is abandoned then.
        """
        raw = self._connected()
        try:
            raw.execute("BEGIN IMMEDIATE")
            for record in commit.records:
                queries.write_record(raw, record)
            queries.insert_operations(raw, commit.operations, commit.now)
            queries.insert_events(raw, commit.events, commit.now)
            self._commits += 1
            told_from = self._trim(raw, commit) if self._commits % TRIM_EVERY_COMMITS == 1 else None
            told_from = queries.update_position(raw, commit.seq, told_from)
        except BaseException:
            self.close()
            raise
        self._commit(raw, commit)
        return told_from

    def read(self, fn: Callable[..., T], *args: Any) -> T:
        """Run a function of `queries` on this file; each of its statements commits by itself."""
        raw = self._connected()
        self._deadline.restart()
        try:
            return fn(raw, *args)
        finally:
            self._deadline.lift()

    def copy(self, path: Path, now: int) -> None:
        """Make another file of what is committed here. One that is there was of a copy that was broken off."""
        self.write_copy(path)
        raw = sqlite.connect(path)
        try:
            queries.make_own(raw, secrets.token_hex(EPOCH_BYTES), now)
        finally:
            raw.close()

    def write_copy(self, path: Path) -> None:
        """Write what is committed here to another file, as it is."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._connected().execute("VACUUM INTO ?", (str(path),))

    def leave_checkpoints(self) -> None:
        """From now on who ships the file checkpoints it."""
        self._is_shipped = True
        self._connected().execute(f"PRAGMA wal_autocheckpoint = {SHIPPED_CHECKPOINT_PAGES}")

    def abandon(self) -> None:
        """Do nothing more: what is in the file may not be what its hub believes. It has to be opened anew."""
        self.abandoned = True

    def require(self) -> None:
        """Unavailable once it was abandoned."""
        if self.abandoned:
            raise Unavailable("The instance is being closed")

    def close(self) -> None:
        raw, self._raw = self._raw, None
        try:
            if raw is not None:
                raw.close()
        except sqlite.Error:
            return

    def delete(self) -> None:
        """Close the file and remove it with what belongs to it."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        # Litestream's notes on it.
        shutil.rmtree(litestream.notes_of(self.path), ignore_errors=True)

    def _commit(self, raw: Any, commit: Commit) -> None:
        """A COMMIT that fails may still have come to be; with one writer the file can tell."""
        try:
            raw.execute("COMMIT")
        except sqlite.Error:
            self.close()
            if not self._holds(commit):
                raise

    def _holds(self, commit: Commit) -> bool:
        try:
            raw = self._connected()
            named = [(operation.principal, operation.op_id) for operation in commit.operations]
            known = commit.records or len(queries.find_operations(raw, named, 0)) == len(named)
            return bool(known) and queries.get_position(raw)[0] == commit.seq
        except sqlite.Error as error:
            self.abandon()
            raise OutcomeUnknown from error

    def _connected(self) -> Any:
        """The connection; a new one after a failed commit, which may leave anything behind in the old."""
        self.require()
        if self._raw is None:
            raw = sqlite.connect(self.path, other_threads=True)
            raw.execute(f"PRAGMA cache_size = -{STORE_CACHE_KIB}")
            raw.execute("PRAGMA mmap_size = 0")
            raw.execute("PRAGMA synchronous = FULL")
            raw.execute("PRAGMA cache_spill = OFF")
            raw.set_progress_handler(self._deadline.passed, sqlite.PROGRESS_STEPS)
            if self._is_shipped:
                raw.execute(f"PRAGMA wal_autocheckpoint = {SHIPPED_CHECKPOINT_PAGES}")
            self._raw = raw
        return self._raw

    def _trim(self, raw: Any, commit: Commit) -> int:
        queries.delete_operations(raw, commit.now - OPERATION_MS)
        return queries.delete_history(
            raw, commit.now - self._retention.days * DAY_MS, commit.seq - self._retention.changes
        )


@cache
def _newest_version() -> int:
    return migrate.list_migrations(KIND)[-1].version


class Stores:
    """Where the files are, and the threads that they are used on."""

    def __init__(self, folder: Path, retention: Retention) -> None:
        self.folder = folder
        self._retention = retention
        self._threads = [
            ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"store-{number}") for number in range(STORE_THREADS)
        ]

    def store(self, instance_id: str) -> Store:
        return Store(self.path(instance_id), self._retention)

    def path(self, instance_id: str) -> Path:
        return path_of(self.folder, instance_id)

    def thread_of(self, instance_id: str) -> ThreadPoolExecutor:
        return self._threads[_spread(instance_id) % STORE_THREADS]

    def close(self) -> None:
        for thread in self._threads:
            thread.shutdown(wait=True)


def path_of(folder: Path, instance_id: str) -> Path:
    """`<folder>/<aa>/<id>.db`: 256 folders, so that none holds too many files."""
    return folder / f"{_spread(instance_id):02x}" / f"{instance_id}.db"


def list_held(folder: Path) -> list[str]:
    """The instances whose files are here."""
    return sorted(path.stem for path in folder.glob("*/*.db"))


def _spread(instance_id: str) -> int:
    return sum(instance_id.encode()) % 256
