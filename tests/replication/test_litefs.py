"""What only the real LiteFS can show: the ways to end it stay closed, and what it does when it is lost is a 503."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from app.edge import integrity, readers, sqlite
from app.edge.database import Connection, Database, Transaction
from app.edge.mount import AtPrimaryOnly, Mount
from app.errors import Unavailable, Unprocessable
from cluster.engines import LiteFS
from tests.cluster.cast import AMS, PRIMARY, Cluster
from tests.waiting import until

pytestmark = pytest.mark.anyio

GROUPS = 40
JOB_ROWS = 3_000
ROW_BYTES = 3_000
SMALL_CACHE_KIB = 512
ENDLESS = "WITH RECURSIVE endless (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM endless) SELECT count(*) FROM endless"


class Refused(Unprocessable):
    pass


def make_things(tx: Transaction) -> None:
    tx.execute("CREATE TABLE IF NOT EXISTS things (id INTEGER PRIMARY KEY, name TEXT NOT NULL, load BLOB)")


def add(tx: Transaction, name: str) -> None:
    tx.execute("INSERT INTO things (name) VALUES (?)", name)


def add_large_and_refuse(tx: Transaction) -> None:
    """More pages than the cache holds and the file has, and then none of them."""
    tx.executemany("INSERT INTO things (name, load) VALUES ('large', zeroblob(?))", [(ROW_BYTES,)] * JOB_ROWS)
    raise Refused("No")


def count(connection: Connection) -> int:
    row = connection.fetch_one("SELECT count(*) FROM things")
    return int(row[0]) if row else 0


def count_at(path: Path) -> int:
    raw = sqlite.connect(path, read_only=True)
    try:
        if not raw.execute("SELECT 1 FROM sqlite_schema WHERE name = 'things'").fetchone():
            return 0
        return count(Connection(raw))
    finally:
        raw.close()


@asynccontextmanager
async def opened(path: Path, mount: Mount) -> AsyncIterator[Database]:
    db = Database(path, mount=mount)
    db.open()
    try:
        yield db
    finally:
        await db.close()


async def test_large_jobs_that_are_rolled_back_in_their_groups_leave_litefs_alive_and_the_replica_equal(
    mounts: LiteFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a page cache that spills, the first of these groups ends the primary."""
    monkeypatch.setattr(sqlite, "PAGE_CACHE_KIB", SMALL_CACHE_KIB)
    async with opened(mounts.database(PRIMARY), Mount.PRIMARY) as db:
        await db.write(make_things)
        for number in range(GROUPS):
            jobs = [db.write(add, f"before {number}"), db.write(add_large_and_refuse), db.write(add, f"after {number}")]
            before, large, after = await asyncio.gather(*jobs, return_exceptions=True)
            assert (before, after) == (None, None)
            assert isinstance(large, Refused)
        assert await db.read(count) == 2 * GROUPS
        assert mounts.runs(PRIMARY)
        until(lambda: count_at(mounts.database(AMS)) == 2 * GROUPS)
    assert integrity.quick_check(mounts.database(PRIMARY)) == []


async def test_no_read_on_a_replica_holds_up_what_arrives(mounts: LiteFS) -> None:
    """The worst read there is, one after another on every thread; and what an unbounded one would do."""
    replica = mounts.database(AMS)
    async with opened(mounts.database(PRIMARY), Mount.PRIMARY) as primary:
        await primary.write(make_things)
        async with opened(replica, Mount.REPLICA) as db:
            ended: list[str] = []
            reading = [asyncio.create_task(read_worst(db, ended)) for _ in range(readers.READ_THREADS)]
            slowest = 0.0
            for number in range(20):
                await primary.write(add, f"meanwhile {number}")
                committed = time.monotonic()
                await asyncio.to_thread(until, lambda wanted=1 + number: count_at(replica) >= wanted)
                slowest = max(slowest, time.monotonic() - committed)
            for task in reading:
                task.cancel()
            await asyncio.wait(reading)
            assert [task.cancelled() for task in reading] == [True] * len(reading)
        assert len(ended) > 20
        assert slowest < 1.0

        held = sqlite.connect(replica, read_only=True)
        held.execute("BEGIN")
        held.execute("SELECT count(*) FROM things").fetchall()
        await primary.write(add, "behind an open read")
        with pytest.raises(AssertionError):
            await asyncio.to_thread(until, lambda: count_at(replica) == 21, 1.0)
        held.close()
        until(lambda: count_at(replica) == 21)


async def read_worst(db: Database, ended: list[str]) -> None:
    while True:
        for read in (partial(db.read, fetch_endless), partial(db.read_one, fetch_endless), partial(db.page, ENDLESS)):
            with pytest.raises(AtPrimaryOnly) as refused:
                await read()
            ended.append(refused.value.message)


def fetch_endless(connection: Connection) -> None:
    connection.fetch_one(ENDLESS)


async def test_a_commit_on_a_replicas_mount_is_503_and_changes_nothing(mounts: LiteFS) -> None:
    """A machine that believes to be the primary and is none: LiteFS refuses at COMMIT, as an error of the disk."""
    async with opened(mounts.database(PRIMARY), Mount.PRIMARY) as primary:
        await primary.write(make_things)
        until(lambda: count_at(mounts.database(AMS)) == 0)
        async with opened(mounts.database(AMS), Mount.PRIMARY) as mistaken:
            with pytest.raises(Unavailable) as refused:
                await mistaken.write(add, "lost")
        assert refused.value.headers["Retry-After"]
        assert await primary.read(count) == 0


async def test_a_mount_that_hangs_stops_no_loop_and_is_503(mounts: LiteFS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "READ_WAIT_SECONDS", 0.5)
    async with opened(mounts.database(PRIMARY), Mount.PRIMARY) as primary:
        await primary.write(make_things)
        until(lambda: count_at(mounts.database(AMS)) == 0)
        async with opened(mounts.database(AMS), Mount.REPLICA) as db:
            await db.read(count)
            mounts.pause(AMS)
            try:
                stalls = asyncio.create_task(longest_stall(1.0))
                with pytest.raises(Unavailable, match="within"):
                    await db.read(count)
                assert await stalls < 0.3
            finally:
                mounts.resume(AMS)
            await primary.write(add, "later")
            until(lambda: count_at(mounts.database(AMS)) == 1)
            assert await db.read(count) == 1


async def longest_stall(seconds: float) -> float:
    """How long the loop was kept from running anything else, at most."""
    longest, until_ = 0.0, time.monotonic() + seconds
    while (before := time.monotonic()) < until_:
        await asyncio.sleep(0.005)
        longest = max(longest, time.monotonic() - before - 0.005)
    return longest


def test_a_primary_whose_mount_is_lost_answers_503_with_retry_after(real_cluster: Cluster) -> None:
    primary = real_cluster.primary
    assert primary.post("/api/projects", {"name": "before"}).status_code == 201
    real_cluster.engine.kill(PRIMARY)
    for answer in (
        primary.post("/api/projects", {"name": "after"}),
        primary.get("/api/projects"),
        primary.get("/readyz"),
        primary.post("/api/projects", {"name": "after"}),
    ):
        assert answer.status_code == 503, answer.text
        assert answer.headers["retry-after"]
    assert primary.get("/livez").status_code == 200
