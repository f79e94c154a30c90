"""Database: reads on the loop, lists in pages off it, and the position of what was written."""

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from app.edge import database, sqlite
from app.edge.database import Connection, Database, Transaction, written_position
from app.errors import NotFound, Unavailable
from tests.edge.conftest import add, opened

pytestmark = pytest.mark.anyio

BY_ID = "SELECT id, name FROM things WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
ENDLESS = "WITH RECURSIVE endless (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM endless) SELECT count(*) FROM endless"


def count(connection: Connection) -> int:
    row = connection.fetch_one("SELECT count(*) FROM things")
    return int(row[0]) if row else 0


def add_many(tx: Transaction, prefix: str, number: int) -> None:
    tx.executemany("INSERT INTO things (name) VALUES (?)", [(f"{prefix} {each}",) for each in range(number)])


async def test_a_read_runs_at_once_without_suspending(things: Database) -> None:
    reading = things.read(count)
    with pytest.raises(StopIteration) as finished:
        reading.send(None)
    assert finished.value.value == 0


async def test_a_read_sees_one_snapshot_while_others_commit(things: Database) -> None:
    other = sqlite.connect(things.path)

    def read_twice(connection: Connection) -> tuple[int, int]:
        before = count(connection)
        other.execute("INSERT INTO things (name) VALUES ('meanwhile')")
        return before, count(connection)

    try:
        assert await things.read(read_twice) == (0, 0)
    finally:
        other.close()
    assert await things.read(count) == 1


async def test_a_read_sees_what_was_acknowledged_just_before(things: Database) -> None:
    for number in range(50):
        await things.write(add, f"thing {number}")
        assert await things.read(count) == number + 1


async def test_a_read_cannot_write(things: Database) -> None:
    with pytest.raises(Unavailable, match="readonly"):
        await things.read(lambda connection: connection.fetch("INSERT INTO things (name) VALUES ('x') RETURNING id"))
    assert await things.read(count) == 0


async def test_a_read_that_raises_leaves_the_reader_usable(things: Database) -> None:
    def refuse(connection: Connection) -> None:
        count(connection)
        raise NotFound("No such thing")

    with pytest.raises(NotFound):
        await things.read(refuse)
    assert await things.read(count) == 0


async def test_a_statement_over_its_time_is_503_and_the_next_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "READ_SECONDS", 0.05)
    async with opened(tmp_path / "core.db") as db:
        with pytest.raises(Unavailable, match="interrupted"):
            await db.read(lambda connection: connection.fetch_one(ENDLESS))
        assert await db.read(count) == 0
        with pytest.raises(Unavailable, match="interrupted"):
            await db.page(ENDLESS)
        assert await db.page("SELECT 1") == [(1,)]


async def test_the_end_of_a_read_is_never_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "READ_SECONDS", 0.05)
    monkeypatch.setattr(sqlite, "PROGRESS_STEPS", 1)

    def compute_for_long(connection: Connection) -> int:
        until = time.monotonic() + 0.06
        while time.monotonic() < until:
            pass
        return 7

    async with opened(tmp_path / "core.db") as db:
        for _ in range(3):
            assert await db.read(compute_for_long) == 7
        assert await db.read(count) == 0


async def test_readers_hold_foreign_keys_and_refuse_writes(things: Database) -> None:
    def pragmas(connection: Connection) -> list[object]:
        return [connection.fetch(f"PRAGMA {name}")[0][0] for name in ("foreign_keys", "query_only")]

    assert await things.read(pragmas) == [1, 1]
    assert await things.page("PRAGMA query_only") == [(1,)]


async def test_a_scan_is_pages_of_a_thousand_that_end_while_rows_arrive(things: Database) -> None:
    await things.write(add_many, "early", 2500)
    (newest,) = await things.read(lambda connection: connection.fetch("SELECT max(id) FROM things"))
    sizes, seen = [], []
    async for page in things.scan(BY_ID, after=0, until=newest[0]):
        sizes.append(len(page))
        seen += [row[1] for row in page]
        await things.write(add_many, f"late {len(sizes)}", 1500)
    assert sizes == [1000, 1000, 500]
    assert seen == [f"early {number}" for number in range(2500)]


async def test_a_scan_runs_off_the_loop(things: Database) -> None:
    threads = {thread.ident for thread in threading.enumerate()}
    await things.write(add, "one")
    assert [page async for page in things.scan(BY_ID, after=0, until=10)] == [[(1, "one")]]
    started = [thread for thread in threading.enumerate() if thread.ident not in threads]
    assert len(started) == 1
    assert not started[0].daemon


async def test_no_more_scans_run_at_once_than_there_are_connections(things: Database) -> None:
    before = threading.active_count()
    await asyncio.gather(*(things.page("SELECT 1") for _ in range(20)))
    assert threading.active_count() - before <= database.SCAN_CONNECTIONS


async def test_a_scan_that_waits_too_long_for_its_turn_is_503(
    things: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "SCAN_WAIT_SECONDS", 0.1)
    long = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000000) SELECT count(*) FROM n"
    answers = await asyncio.gather(*(things.page(long) for _ in range(3)), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["No list could be read within 0.1 s"] * 3


async def test_after_close_everything_is_503_and_no_thread_is_left(tmp_path: Path) -> None:
    before = threading.active_count()
    async with opened(tmp_path / "core.db") as db:
        assert await db.page("SELECT 1") == [(1,)]
        await db.close()
        for refused in (db.read(count), db.write(add, "late"), db.page("SELECT 1")):
            with pytest.raises(Unavailable):
                await refused
    # One thread of the loop's own executor may stay: it joined the writer.
    assert not [thread for thread in threading.enumerate()[before:] if "writer" in thread.name]
    assert not any(
        thread.name.startswith("Thread-") and "_connection_worker" in thread.name for thread in threading.enumerate()
    )


EXITS = """
import asyncio, sys
from pathlib import Path
import app
from tests.edge.conftest import opened

async def main():
    async with opened(Path(sys.argv[1])) as db:
        await asyncio.gather(*(db.page("SELECT 1") for _ in range(5)))
    print("closed")

asyncio.run(main())
"""


def test_a_process_that_has_scanned_exits(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", EXITS, str(tmp_path / "core.db")]
    finished = subprocess.run(arguments, capture_output=True, text=True, timeout=20)
    assert (finished.returncode, finished.stdout) == (0, "closed\n"), finished.stderr


async def test_only_a_write_that_was_committed_has_a_position(things: Database) -> None:
    async def position_after(writing: bool) -> object:
        written_position.set(None)
        if writing:
            await things.write(add, "one")
        else:
            await things.read(count)
        return written_position.get()

    assert await asyncio.create_task(position_after(writing=False)) is None
    position = await asyncio.create_task(position_after(writing=True))
    (row,) = await things.read(lambda connection: connection.fetch("SELECT epoch, sequence FROM replication_token"))
    assert position == row


async def test_what_a_start_reads_is_asked_for_again_until_it_can_be_read(
    things: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "AGAIN_SECONDS", 0.001)
    refusals = iter([Unavailable("The first page of a mount takes long")] * 2)

    def read(connection: Connection, value: int) -> int:
        for refusal in refusals:
            raise refusal
        return value

    assert await database.at_start(things.read, read, 7) == 7
    monkeypatch.setattr(database, "START_SECONDS", 0)
    refusals = iter([Unavailable("A disk that is gone")] * 3)
    with pytest.raises(Unavailable, match="gone"):
        await database.at_start(things.read, read, 7)
