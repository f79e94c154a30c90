"""Writer under faults. Each test says what would have been lost, or kept although it was refused."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from app.edge import sqlite, writer
from app.edge.changes import announce
from app.edge.database import Database, Group, Transaction
from app.errors import AppError, Unavailable
from tests.edge.conftest import Refused, add, add_then_refuse, is_root, names, opened, tell, together

pytestmark = pytest.mark.anyio

MEGABYTE = 1 << 20


def limit_pages(tx: Transaction, spare: int) -> None:
    """Let the file grow by `spare` pages and no further."""
    (pages,) = tx.fetch_one("PRAGMA page_count") or (0,)
    tx.fetch(f"PRAGMA max_page_count = {pages + spare}")


async def test_a_disk_that_fills_in_a_group_loses_and_keeps_nothing_wrongly(
    things: Database, groups: list[Group]
) -> None:
    await things.write(limit_pages, 40)
    groups.clear()
    jobs = [(add, "first"), (add_then_refuse, "refused"), (add, "huge", MEGABYTE), (add, "last")]
    first, refused, huge, last = await together(things, jobs)
    assert (first, last) == ("first", "last")
    assert isinstance(refused, Refused)
    assert isinstance(huge, Unavailable)
    assert names(things.path) == {"first", "last"}
    # The answer's position is that of the last of the lone commits.
    assert groups[-1].position is not None
    await things.write(limit_pages, 10_000)
    assert await things.write(add, "huge", MEGABYTE) == "huge"


async def test_a_job_that_goes_on_after_a_full_disk_keeps_nothing(things: Database) -> None:
    def swallow(tx: Transaction) -> None:
        add(tx, "before the fault")
        try:
            add(tx, "huge", MEGABYTE)
        except sqlite.Error:
            add(tx, "after the fault")

    await things.write(limit_pages, 40)
    for answer in await together(things, [(add, "a"), (swallow,), (add, "b")]):
        assert answer in ("a", "b") or isinstance(answer, Unavailable)
    assert names(things.path) == {"a", "b"}


async def test_a_job_that_swallows_a_lost_transaction_is_not_acknowledged(things: Database) -> None:
    def swallow(tx: Transaction) -> str:
        with suppress(sqlite.Error):
            add(tx, "huge", MEGABYTE)
        return "done"

    await things.write(limit_pages, 40)
    with pytest.raises(Unavailable):
        await things.write(swallow)
    assert names(things.path) == set()


async def test_a_broken_group_runs_each_of_its_jobs_once_more_alone(things: Database, groups: list[Group]) -> None:
    ran: list[str] = []

    def note(tx: Transaction, name: str) -> None:
        ran.append(name)
        announce(tx, "thing", name)
        add(tx, name)

    def roll_all_back(tx: Transaction) -> None:
        ran.append("rollback")
        add(tx, "lost")
        tx.execute("INSERT OR ROLLBACK INTO things (name) VALUES ('lost')")

    first, broken, last = await together(things, [(note, "a"), (roll_all_back,), (note, "b")])
    assert (first, last) == (None, None)
    assert type(broken).__name__ == "IntegrityError"
    assert names(things.path) == {"a", "b"}
    assert ran == ["a", "rollback", "a", "rollback", "b"]
    assert groups[-1].announced == [("thing", "a"), ("thing", "b")]


async def test_a_failed_commit_is_503_for_its_group_and_the_connection_is_made_anew(things: Database) -> None:
    def prepare(tx: Transaction) -> None:
        tx.execute("CREATE TABLE owners (id INTEGER PRIMARY KEY)")
        tx.execute("CREATE TABLE owned (owner INTEGER REFERENCES owners (id) DEFERRABLE INITIALLY DEFERRED)")
        tx.execute("CREATE TEMP TABLE of_this_connection (x)")

    def own_nothing(tx: Transaction) -> None:
        tx.execute("INSERT INTO owned VALUES (404)")

    await things.write(prepare)
    answers = await together(things, [(add, "a"), (own_nothing,), (add, "b")])
    assert [str(answer) for answer in answers] == ["The outcome of this write is unknown: repeat it"] * 3
    # Certain, or it would be repeated by a machine that knows no id to repeat it by.
    assert [(type(answer), answer.certain) for answer in answers] == [(Unavailable, True)] * 3
    assert names(things.path) == set()
    assert await things.write(add, "a") == "a"
    temporary = await things.write(lambda tx: tx.fetch("SELECT name FROM sqlite_temp_schema"))
    assert temporary == []


LOCKER = """
import sys
import app
from app.edge import sqlite
from pathlib import Path
raw = sqlite.connect(Path(sys.argv[1]))
for line in sys.stdin:
    raw.execute(line.strip())
    print("done", flush=True)
"""


async def test_a_database_that_stays_locked_is_503_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: Callable[..., "subprocess.Popen[str]"]
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.1)
    path = tmp_path / "core.db"
    async with opened(path) as db:
        other = beside(LOCKER, path)
        assert await tell(other, "BEGIN IMMEDIATE") == "done"
        with pytest.raises(Unavailable, match="busy"):
            await asyncio.wait_for(db.write(add, "refused"), 5)
        assert await db.read(lambda connection: connection.fetch("SELECT name FROM things")) == []
        assert await tell(other, "COMMIT") == "done"
        assert await db.write(add, "accepted") == "accepted"
        assert names(path) == {"accepted"}


async def test_waiting_for_a_lock_does_not_shrink_the_group(
    things: Database, groups: list[Group], monkeypatch: pytest.MonkeyPatch, beside: Callable[..., subprocess.Popen[str]]
) -> None:
    monkeypatch.setattr(writer, "GROUP_SECONDS", 0.2)
    other = beside(LOCKER, things.path)
    assert await tell(other, "BEGIN IMMEDIATE") == "done"
    with undisturbed():
        futures = [things.writer.submit(add, (f"thing {number}",)) for number in range(20)]
    await asyncio.wait(futures, timeout=0.3)
    assert groups == []
    assert await tell(other, "COMMIT") == "done"
    await asyncio.gather(*futures)
    assert [group.jobs for group in groups] == [20]


@contextmanager
def undisturbed() -> Iterator[None]:
    """No other thread of this process runs Python inside the block."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(10)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


async def test_a_log_above_its_bound_is_503_while_a_reader_holds_it(
    things: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = sqlite.connect(things.path, read_only=True)
    try:
        raw.execute("BEGIN")
        raw.execute("SELECT count(*) FROM things").fetchall()
        assert await things.write(add, "early", MEGABYTE) == "early"
        monkeypatch.setattr(writer, "WAL_BYTES", MEGABYTE // 2)
        monkeypatch.setattr(writer, "WAL_CHECK_SECONDS", 0.0)
        with pytest.raises(Unavailable, match="write-ahead log is full"):
            await things.write(add, "refused")
        raw.execute("COMMIT")
    finally:
        raw.close()
    assert await things.write(add, "later") == "later"
    assert names(things.path) == {"early", "later"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if not is_root() or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_a_really_full_disk_loses_nothing_acknowledged_and_recovers(small_disk: Path) -> None:
    path = small_disk / "core.db"
    filler = small_disk / "filler"
    acknowledged: set[str] = set()
    refused: set[str] = set()

    async def write(db: Database, name: str) -> None:
        try:
            acknowledged.add(await db.write(add, name, 20_000))
        except Unavailable:
            refused.add(name)

    async with opened(path) as db:
        filler.write_bytes(bytes(2 * MEGABYTE))
        for turn in range(20):
            await asyncio.gather(*(write(db, f"thing {turn}.{number}") for number in range(10)))
        assert acknowledged
        assert refused
        assert names(path) == acknowledged
        filler.unlink()
        assert await db.write(add, "later", 20_000) == "later"
        assert names(path) == acknowledged | {"later"}
    assert names(path) == acknowledged | {"later"}


async def test_every_fault_of_the_machine_is_unavailable_and_nothing_else_is(things: Database) -> None:
    with pytest.raises(sqlite.Error, match="no such table"):
        await things.write(lambda tx: tx.execute("INSERT INTO missing VALUES (1)"))
    await things.write(limit_pages, 0)
    with pytest.raises(AppError) as refusal:
        await things.write(add, "huge", MEGABYTE)
    assert refusal.value.status == 503
