"""The writer: one thread, one connection, and the jobs that have gathered committed as one group.

Each job runs in a savepoint; its future resolves after COMMIT. The ways in which a group can break,
and what is done about each, are in docs/edge.md.
"""

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import structlog

from app.edge import sqlite
from app.edge.archive import Archive
from app.edge.job import Group, Job
from app.edge.mount import Mount
from app.edge.transaction import Position, Transaction, TransactionLost
from app.errors import Unavailable

T = TypeVar("T")

QUEUE_JOBS = 10_000
QUEUE_SECONDS = 7.5
GROUP_JOBS = 500
GROUP_SECONDS = 0.05
CHECKPOINT_PAGES = 8_000
# A commit on a mount costs the more the longer the log is (docs/edge.md).
MOUNT_CHECKPOINT_PAGES = 1_000
WAL_BYTES = 1 << 30
WAL_CHECK_SECONDS = 1.0
WATCH_SECONDS = 0.5

log = structlog.get_logger("writer")


class Writer:
    """Runs jobs `(tx, *args)` in order. A job is pure: after a broken group it runs a second time."""

    def __init__(
        self,
        path: Path,
        committed: Callable[[Group], None],
        archive: Archive | None = None,
        mount: Mount = Mount.NONE,
    ) -> None:
        # 0 before `start` where somebody else checkpoints the file.
        self.checkpoint_pages = CHECKPOINT_PAGES if mount is Mount.NONE else MOUNT_CHECKPOINT_PAGES
        self._path = path
        self._mounted = mount is not Mount.NONE
        self._committed = committed
        self._fetch_archived = archive.fetch if archive is not None else None
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._gathered: list[Job] = []
        self._closed = False
        self._raw: Any = None
        self._wal_checked = 0.0
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._watch = self._loop.create_task(self._refuse_overdue())

    def start(self) -> None:
        self._raw = self._open()
        self._thread.start()

    @property
    def queued(self) -> int:
        """Jobs that have been accepted and not yet answered."""
        return len(self._waiting)

    def submit(self, fn: Callable[..., T], args: tuple[Any, ...]) -> "asyncio.Future[tuple[T, Position | None]]":
        """Queue a job. Its future gives the job's value and the position of the commit that holds it."""
        if self._closed:
            raise Unavailable("The server is shutting down")
        # Overdue jobs have been answered, but lie in the writer's queue until it comes to them.
        queued = max(len(self._waiting), len(self._gathered) + self._jobs.qsize())
        if queued >= QUEUE_JOBS:
            raise Unavailable(f"The write queue is full: {queued} of {QUEUE_JOBS} jobs")
        job = Job(fn, args, self._loop.create_future())
        self._waiting.append(job)
        # What the requests of one turn of the loop write is handed over together, and wakes the thread once.
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append(job)
        return job.future

    async def close(self) -> None:
        """Commit what was accepted, then end the thread and close the connection."""
        self._closed = True
        if self._thread.ident is not None:
            self._hand_over()
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)
        self._watch.cancel()
        await asyncio.wait([self._watch])
        if self._raw is not None:
            self._raw.close()

    def _hand_over(self) -> None:
        for job in self._gathered:
            self._jobs.put(job)
        self._gathered.clear()

    # -- on the writer's thread ------------------------------------------------------------------------

    def _open(self) -> Any:
        raw = sqlite.connect(self._path, other_threads=True, mapped=not self._mounted)
        sqlite.enter_wal(raw)
        raw.execute("PRAGMA synchronous = FULL")
        raw.execute("PRAGMA cache_spill = OFF")
        raw.execute(f"PRAGMA wal_autocheckpoint = {self.checkpoint_pages}")
        return raw

    def _run(self) -> None:
        running = True
        while running:
            first = self._jobs.get()
            if first is None:
                break
            gathered = [first]
            while len(gathered) < GROUP_JOBS:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    running = False
                    break
                gathered.append(job)
            while gathered:
                gathered = self._commit_some(gathered)

    def _commit_some(self, jobs: list[Job]) -> list[Job]:
        """Run and answer jobs until the group's time is up; the jobs that are left."""
        begun = time.monotonic()
        live = [job for job in jobs if not job.future.done()]
        if not live:
            return []
        left: list[Job] = []
        position: Position | None = None
        announced: list[tuple[str, str]] = []
        try:
            self._refuse_when_wal_is_full(begun)
            tx, taken = self._run_group(live)
            left = live[taken:]
            live = live[:taken]
            position = self._commit(tx)
            announced = tx.announced
        except TransactionLost:
            self._discard_transaction()
            for job in live:
                position = self._run_alone(job, announced) or position
        except BaseException as error:  # noqa: BLE001 - the writer must outlive every fault
            self._fail(live, error)
        self._answer(live, Group(position, announced, len(live), time.monotonic() - begun))
        return left

    def _run_group(self, jobs: list[Job]) -> tuple[Transaction, int]:
        raw = self._begin()
        # Counted from here: a wait for another process's lock must not shrink the group to one job.
        begun = time.monotonic()
        tx = Transaction(raw, self._fetch_archived)
        execute = raw.execute
        taken = 0
        for job in jobs:
            if taken and time.monotonic() - begun > GROUP_SECONDS:
                break
            taken += 1
            if job.future.done():
                continue
            told = len(tx.announced)
            execute("SAVEPOINT job")
            try:
                job.value, job.error = job.fn(tx, *job.args), None
            except Exception as error:  # noqa: BLE001 - one job's failure is that job's answer
                job.error = error
                del tx.announced[told:]
                try:
                    execute("ROLLBACK TO job")
                except sqlite.Error as lost:
                    raise TransactionLost from lost
            if not raw.in_transaction:
                raise TransactionLost
            execute("RELEASE job")
        return tx, taken

    def _run_alone(self, job: Job, announced: list[tuple[str, str]]) -> Position | None:
        try:
            tx = Transaction(self._begin(), self._fetch_archived)
            job.value, job.error = job.fn(tx, *job.args), None
            position = self._commit(tx)
        except BaseException as error:  # noqa: BLE001 - as above
            self._discard_transaction()
            job.error = error
            return None
        announced.extend(tx.announced)
        return position

    def _begin(self) -> Any:
        raw = self._connected()
        raw.execute("BEGIN IMMEDIATE")
        return raw

    def _connected(self) -> Any:
        if self._raw is None:
            self._raw = self._open()
        return self._raw

    def _commit(self, tx: Transaction) -> Position | None:
        if not self._raw.in_transaction:
            raise TransactionLost
        row = tx.fetch_one("UPDATE replication_token SET sequence = sequence + 1 RETURNING epoch, sequence")
        try:
            self._raw.execute("COMMIT")
        except sqlite.Error as error:
            self._discard_connection()
            # Certain, because nobody but the caller may repeat what may have come to be: it knows by which id or key.
            raise Unavailable("The outcome of this write is unknown: repeat it", certain=True) from error
        return Position(*row) if row else None

    def _discard_transaction(self) -> None:
        try:
            if self._raw is not None and self._raw.in_transaction:
                self._raw.execute("ROLLBACK")
        except sqlite.Error:
            self._discard_connection()

    def _discard_connection(self) -> None:
        raw, self._raw = self._raw, None
        try:
            raw.close()
        except sqlite.Error as error:
            log.warning("close_failed", error=str(error))

    def _refuse_when_wal_is_full(self, now: float) -> None:
        if now - self._wal_checked < WAL_CHECK_SECONDS:
            return
        if self._wal_size() > WAL_BYTES:
            self._truncate_wal()
        size = self._wal_size()
        if size > WAL_BYTES:
            raise Unavailable(f"The write-ahead log is full: {size} of {WAL_BYTES} bytes")
        self._wal_checked = now

    def _wal_size(self) -> int:
        wal = Path(f"{self._path}-wal")
        return wal.stat().st_size if wal.exists() else 0

    def _truncate_wal(self) -> None:
        """Begin the log anew. No commit would do it any more, and without it the refusals would never end."""
        raw = self._connected()
        raw.execute("PRAGMA busy_timeout = 0")
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        raw.execute(f"PRAGMA busy_timeout = {round(sqlite.BUSY_SECONDS * 1000)}")

    def _fail(self, jobs: list[Job], error: BaseException) -> None:
        self._discard_transaction()
        for job in jobs:
            job.error = error

    # -- back on the loop ------------------------------------------------------------------------------

    def _answer(self, jobs: list[Job], group: Group) -> None:
        self._loop.call_soon_threadsafe(self._resolve, jobs, group)

    def _resolve(self, jobs: list[Job], group: Group) -> None:
        # What the commit made stale is forgotten before anybody hears of the commit.
        try:
            self._committed(group)
        except Exception:
            log.exception("commit_not_told")
        for job in jobs:
            job.answer(group.position)
        self._forget_answered()

    def _forget_answered(self) -> None:
        waiting = self._waiting
        while waiting and waiting[0].future.done():
            waiting.popleft()

    async def _refuse_overdue(self) -> None:
        """A caller never waits longer than QUEUE_SECONDS, whatever the disk does."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            oldest = time.monotonic() - QUEUE_SECONDS
            # Who has waited on another machine too is overdue before those in front of it.
            for job in self._waiting:
                if job.submitted < oldest and not job.future.done():
                    job.future.set_exception(Unavailable("The write queue is too slow: repeat the request"))
            self._forget_answered()
