"""A database on a replicating mount: reads off the loop, and a replica that writes nothing and reads briefly."""

import asyncio
import errno
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.edge import readers, sqlite
from app.edge.database import Connection, Database, Transaction
from app.edge.mount import AtPrimaryOnly, Mount, may_block, mount_of
from app.edge.writer import MOUNT_CHECKPOINT_PAGES
from app.errors import Unavailable
from app.regions import Regions
from tests.conftest import open_database

pytestmark = pytest.mark.anyio

ENDLESS = "WITH RECURSIVE endless (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM endless) SELECT count(*) FROM endless"


@asynccontextmanager
async def mounted(tmp_path: Path, mount: Mount) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "core.db", mount=mount, blocks=mount is not Mount.NONE) as db:
        yield db


def sequence(connection: Connection) -> int:
    row = connection.fetch_one("SELECT sequence FROM replication_token")
    return int(row[0]) if row else -1


def pragma(connection: Connection, name: str) -> Any:
    return connection.fetch(f"PRAGMA {name}")[0][0]


async def test_a_read_on_a_mount_runs_beside_the_loop(tmp_path: Path) -> None:
    turned = threading.Event()

    def wait_for_the_loop(connection: Connection) -> bool:
        return turned.wait(5)

    async with mounted(tmp_path, Mount.PRIMARY) as db:
        asyncio.get_running_loop().call_later(0.01, turned.set)
        assert await db.read(wait_for_the_loop)
        turned.clear()
        asyncio.get_running_loop().call_later(0.01, turned.set)
        assert await db.read_one(wait_for_the_loop)


async def test_as_many_reads_run_at_once_as_there_are_threads(tmp_path: Path) -> None:
    together = threading.Barrier(readers.READ_THREADS)
    connections = set()

    def meet(connection: Connection) -> int:
        connections.add(id(connection))
        return together.wait(5)

    async with mounted(tmp_path, Mount.REPLICA) as db:
        assert len(set(await asyncio.gather(*[db.read(meet) for _ in range(readers.READ_THREADS)]))) == 4
    assert len(connections) == readers.READ_THREADS


@asynccontextmanager
async def all_threads_held(db: Database) -> AsyncIterator[threading.Event]:
    """Until the event is set, or this ends, no thread is free to read."""
    go, held = threading.Event(), threading.Semaphore(0)

    def hold(connection: Connection) -> None:
        held.release()
        go.wait(5)

    holding = [asyncio.ensure_future(db.read(hold)) for _ in range(readers.READ_THREADS)]
    for _ in holding:
        await asyncio.to_thread(held.acquire)
    try:
        yield go
    finally:
        go.set()
        await asyncio.gather(*holding)


@pytest.mark.parametrize(("seconds", "alone"), [(5.0, False), (0.0, True)])
async def test_what_has_gathered_is_read_in_fewer_transactions_while_that_is_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, alone: bool
) -> None:
    """Each read changes what the next transaction sees."""
    monkeypatch.setattr(readers, "TOGETHER_SECONDS", seconds)
    lock = threading.Lock()

    async with mounted(tmp_path, Mount.PRIMARY) as db:
        other = sqlite.connect(db.path, other_threads=True)

        def look_and_change(connection: Connection) -> int:
            with lock:
                seen = sequence(connection)
                other.execute("UPDATE replication_token SET sequence = sequence + 1")
                return seen

        async with all_threads_held(db) as go:
            reads = [asyncio.ensure_future(db.read(look_and_change)) for _ in range(12)]
            await asyncio.sleep(0)
            before = other.execute("UPDATE replication_token SET sequence = sequence + 1 RETURNING sequence").fetchone()
            go.set()
            seen = await asyncio.gather(*reads)
        assert min(seen) >= before[0], "none begins before it was asked for"
        assert (len(set(seen)) == len(seen)) is alone
        other.close()


async def test_a_read_that_fails_fails_alone(tmp_path: Path) -> None:
    def fail(connection: Connection) -> int:
        raise LookupError("of this one")

    async with mounted(tmp_path, Mount.REPLICA) as db:
        async with all_threads_held(db):
            asked = [fail if number % 5 == 2 else sequence for number in range(15)]
            reads = [asyncio.ensure_future(db.read(fn)) for fn in asked]
            await asyncio.sleep(0)
        ends = await asyncio.gather(*reads, return_exceptions=True)
        assert [type(end) for end in ends] == [LookupError if fn is fail else int for fn in asked]


async def test_a_thread_whose_connection_another_takes_at_that_moment_makes_its_own(tmp_path: Path) -> None:
    class TakenMeanwhile(list[readers.Reader]):
        """It is not empty when it is looked at, and is when something is taken."""

        def __len__(self) -> int:
            return 1

    async with mounted(tmp_path, Mount.REPLICA) as db:
        assert db._threads is not None
        for idle in db._threads._idle:
            idle.close()
        db._threads._idle = TakenMeanwhile()
        assert await db.read(sequence) >= 0


async def test_reads_that_wait_when_the_database_is_closed_are_told_so(tmp_path: Path) -> None:
    async with mounted(tmp_path, Mount.REPLICA) as db:
        async with all_threads_held(db) as go:
            reads = [asyncio.ensure_future(db.read(sequence)) for _ in range(8)]
            await asyncio.sleep(0)
            closing = asyncio.ensure_future(db.close())
            await asyncio.sleep(0)
            go.set()
            await closing
        ends = await asyncio.gather(*reads, return_exceptions=True)
        assert {type(end) for end in ends} == {Unavailable}


async def test_all_that_one_read_fetches_is_of_one_moment(tmp_path: Path) -> None:
    async with mounted(tmp_path, Mount.PRIMARY) as db:
        other = sqlite.connect(db.path, other_threads=True)

        def read_twice(connection: Connection) -> tuple[int, int]:
            before = sequence(connection)
            other.execute("UPDATE replication_token SET sequence = sequence + 1")
            return before, sequence(connection)

        first, second = await db.read(read_twice)
        other.close()
        assert first == second
        assert await db.read(sequence) == first + 1


async def test_a_read_that_ended_leaves_no_transaction_open(tmp_path: Path) -> None:
    def is_open(connection: Connection) -> bool:
        return bool(connection.raw.in_transaction)

    def fail(connection: Connection) -> None:
        sequence(connection)
        raise LookupError

    async with mounted(tmp_path, Mount.REPLICA) as db:
        with pytest.raises(LookupError):
            await db.read(fail)
        with pytest.raises(Unavailable):
            await db.read(lambda connection: connection.fetch(ENDLESS))
        assert await db.read_one(is_open) is False


@pytest.mark.parametrize("mount", [Mount.PRIMARY, Mount.REPLICA])
async def test_a_copy_that_comes_to_a_local_file_is_read_on_the_loop(tmp_path: Path, mount: Mount) -> None:
    async with open_database(tmp_path / "core.db", mount=mount) as db:
        assert await db.read(lambda connection: threading.current_thread()) is threading.current_thread()


def test_what_lies_at_the_root_of_a_file_system_of_its_own_may_block(tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to("/proc")
    assert [may_block(path / "core.db") for path in (Path("/proc"), tmp_path / "linked", tmp_path)] == [
        True,
        True,
        False,
    ]


async def test_a_mount_is_read_without_mapped_memory_and_checkpointed_early(tmp_path: Path) -> None:
    def of_writer(tx: Transaction) -> list[Any]:
        return [pragma(tx, name) for name in ("mmap_size", "wal_autocheckpoint", "cache_spill")]

    async with mounted(tmp_path, Mount.PRIMARY) as db:
        assert await db.read(pragma, "mmap_size") == 0
        assert await db.page("PRAGMA mmap_size") == [(0,)]
        assert await db.write(of_writer) == [0, MOUNT_CHECKPOINT_PAGES, 0]


async def test_a_local_file_is_read_through_mapped_memory(tmp_path: Path) -> None:
    async with mounted(tmp_path, Mount.NONE) as db:
        assert await db.read(pragma, "mmap_size") == sqlite.MMAP_BYTES
        assert await db.page("PRAGMA mmap_size") == [(sqlite.MMAP_BYTES,)]


async def test_a_replica_has_no_writer_and_says_that_the_primary_has(tmp_path: Path) -> None:
    async with mounted(tmp_path, Mount.REPLICA) as db:
        with pytest.raises(AtPrimaryOnly) as refused:
            await db.write(lambda tx: None)
        assert refused.value.headers["Retry-After"]
        assert not refused.value.certain
        assert "writer" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("how", ["read", "read_one", "page"])
async def test_a_replica_ends_a_read_after_50_ms_and_leaves_it_to_the_primary(tmp_path: Path, how: str) -> None:
    async with mounted(tmp_path, Mount.REPLICA) as db:
        # The first of each opens a connection.
        await db.page("SELECT 1")
        await db.read(sequence)
        begun = time.monotonic()
        with pytest.raises(AtPrimaryOnly):
            await (db.page(ENDLESS) if how == "page" else getattr(db, how)(lambda held: held.fetch_one(ENDLESS)))
        assert 0.04 < time.monotonic() - begun < 1.0
        assert await db.read(sequence) >= 0


async def test_reads_behind_a_mount_that_hangs_are_503_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "READ_WAIT_SECONDS", 0.1)
    monkeypatch.setattr(readers, "WAITING_READS", 10)
    answered = threading.Event()
    async with mounted(tmp_path, Mount.PRIMARY) as db:
        waiting = [asyncio.ensure_future(db.read(lambda connection: answered.wait(5))) for _ in range(10)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="Too many reads are waiting: 10 of 10") as refused:
            await db.read(sequence)
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        # Of a replica that hangs: the primary may answer.
        assert [(type(end), end.certain) for end in (*ends, refused.value)] == [(Unavailable, False)] * 11
        answered.set()
        assert await db.read(sequence) >= 0


def sqlite_error(code: int) -> Exception:
    error = sqlite.Error("as SQLite says it")
    error.sqlite_errorcode = code  # type: ignore[attr-defined]
    return error


LOST = {
    "disk I/O error at a commit on a replica": sqlite_error(778),
    "disk I/O error": sqlite_error(10),
    "read-only": sqlite_error(8),
    "busy": sqlite_error(5),
    "busy in recovery": sqlite_error(261),
    "locked": sqlite_error(6),
    "locking protocol": sqlite_error(15),
    "cannot open": sqlite_error(14),
    "disk full": sqlite_error(13),
    "not connected": OSError(errno.ENOTCONN, "Transport endpoint is not connected"),
    "no such device": OSError(errno.ENODEV, "No such device"),
    "input/output error": OSError(errno.EIO, "Input/output error"),
    "stale handle": OSError(errno.ESTALE, "Stale file handle"),
}


@pytest.mark.parametrize("error", LOST.values(), ids=LOST.keys())
async def test_each_form_of_a_lost_mount_or_primary_is_503_with_retry_after(tmp_path: Path, error: Exception) -> None:
    def fail(connection: Connection) -> None:
        raise error

    async with mounted(tmp_path, Mount.PRIMARY) as db:
        for reading in (db.read, db.read_one, db.write):
            with pytest.raises(Unavailable) as refused:
                await reading(fail)
            assert refused.value.status == 503
            assert refused.value.headers["Retry-After"]
        assert await db.read(sequence) >= 0


async def test_another_error_of_the_system_stays_what_it_is(tmp_path: Path) -> None:
    def fail(connection: Connection) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file")

    async with mounted(tmp_path, Mount.PRIMARY) as db:
        for reading in (db.read, db.write):
            with pytest.raises(FileNotFoundError):
                await reading(fail)


def test_the_journal_mode_of_a_file_that_has_it_is_not_set_again(tmp_path: Path) -> None:
    said: list[str] = []
    raw = sqlite.connect(tmp_path / "new.db")
    raw.set_trace_callback(said.append)
    sqlite.enter_wal(raw)
    assert said == ["PRAGMA journal_mode", "PRAGMA journal_mode = WAL"]
    said.clear()
    sqlite.enter_wal(raw)
    assert said == ["PRAGMA journal_mode"]
    raw.close()


def test_a_command_learns_from_the_settings_where_it_runs() -> None:
    assert mount_of(Regions()) is Mount.NONE
    assert mount_of(Regions(region="fra", primary_region="fra", replication="litefs")) is Mount.PRIMARY
    assert mount_of(Regions(region="ams", primary_region="fra", replication="litefs")) is Mount.REPLICA
