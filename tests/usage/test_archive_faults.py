"""Faults of the archive. An event that it may know must never count a second time: rather 503 than a guess."""

import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.edge import sqlite
from app.edge.clock import now_ms
from app.errors import Unavailable
from app.identity import users
from app.usage import archive_queries
from app.usage.mover import Mover
from app.usage.period import DAY_MS
from tests.conftest import rows_of
from tests.usage.books import Books, line, old

WAIT_SECONDS = 20.0


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    made = Books(tmp_path)
    yield made
    await made.close()


async def prepared(books: Books) -> str:
    """A user of whom one row has left and two are there."""
    ann = await books.user("user_ann")
    await books.record(old(ann, "gone"), line(ann, "here"), line(ann, "last"))
    assert await books.move() == 1
    return ann


async def reopen(books: Books) -> Books:
    await books.close()
    return Books(books.path.parent)


async def assert_answers(books: Books, ann: str) -> None:
    """Once it is mended the writer asks it again, without a restart."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            assert await books.record(old(ann, "gone")) == [("rejected", "conflict")]
            return
        except Unavailable:
            assert time.monotonic() < deadline


async def assert_refuses(books: Books, ann: str, why: str) -> None:
    """Usage is refused whole, and everything else is written."""
    before = books.kept()
    for event in ("gone", "here", "new"):
        with pytest.raises(Unavailable, match=r"ledger\.db"):
            await books.record(line(ann, event))
    assert books.kept() == before
    books.archive._refused_until = 0.0
    with pytest.raises(Unavailable, match=why):
        await books.record(line(ann, "new"))
    await books.user(f"user_{why}")


@pytest.mark.anyio
async def test_a_missing_archive_refuses_usage_until_it_is_back(books: Books) -> None:
    ann = await prepared(books)
    aside = books.ledger_path.with_name("aside.db")
    books.archive.close()
    books.ledger_path.rename(aside)
    await assert_refuses(books, ann, "missing")
    with pytest.raises(Unavailable, match="missing"):
        await books.move(now_ms() + 365 * DAY_MS)
    with pytest.raises(Unavailable, match="missing"):
        await books.own(ann)
    assert not books.ledger_path.exists(), "an empty one would know of no row"
    aside.rename(books.ledger_path)
    await assert_answers(books, ann)


@pytest.mark.anyio
async def test_an_archive_that_was_taken_away_under_the_server_is_missed_at_once(books: Books) -> None:
    ann = await prepared(books)
    await assert_answers(books, ann)
    books.ledger_path.rename(books.ledger_path.with_name("aside.db"))
    await assert_refuses(books, ann, "missing")


@pytest.mark.anyio
async def test_another_file_in_its_place_is_refused(books: Books, tmp_path: Path) -> None:
    ann = await prepared(books)
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    other = Books(other_folder)
    await prepared(other)
    await other.close()
    books.archive.close()
    shutil.copyfile(other.ledger_path, books.ledger_path)
    await assert_refuses(books, ann, "not the file")
    with pytest.raises(Unavailable, match="not the file"):
        await books.move(now_ms() + 365 * DAY_MS)


@pytest.mark.anyio
async def test_an_older_copy_of_it_is_refused(books: Books) -> None:
    ann = await prepared(books)
    books.archive.close()
    copy = books.ledger_path.read_bytes()
    await books.record(line(ann, "newest"))
    assert await books.move(now_ms() + 365 * DAY_MS) == 2
    books.archive.close()
    books.ledger_path.write_bytes(copy)
    await assert_refuses(books, ann, "relies on")
    # What an operator may accept, as docs/operations.md says: the rows are gone, the events could count again.
    raw = sqlite.connect(books.path)
    raw.execute("UPDATE archived SET moves = 0")
    raw.close()
    await assert_answers(books, ann)
    assert len((await books.told([ann]))["verified"].differences) == 3


@pytest.mark.anyio
@pytest.mark.parametrize("damage", [b"\0" * 4096, b"not a database at all"])
async def test_a_damaged_archive_refuses_usage(books: Books, damage: bytes) -> None:
    ann = await prepared(books)
    books.archive.close()
    books.ledger_path.write_bytes(damage + books.ledger_path.read_bytes()[len(damage) :])
    await assert_refuses(books, ann, "cannot answer")


@pytest.mark.anyio
async def test_a_page_that_is_damaged_under_the_server_refuses_usage(books: Books) -> None:
    ann = await prepared(books)
    raw = sqlite.connect(books.ledger_path)
    (root,) = raw.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'usage_logs_identity'").fetchone()
    raw.close()
    books.archive.close()
    with books.ledger_path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)
    await assert_refuses(books, ann, "cannot answer")


@pytest.mark.anyio
async def test_a_locked_archive_refuses_usage_and_does_not_hold_the_writer(books: Books) -> None:
    ann = await prepared(books)
    books.archive.close()
    raw = sqlite.connect(books.ledger_path)
    raw.execute("PRAGMA locking_mode = EXCLUSIVE")
    raw.execute("UPDATE archive SET moves = moves")
    begun = time.monotonic()
    await assert_refuses(books, ann, "locked")
    # Two waits for the lock; the others are refused at once.
    assert time.monotonic() - begun < 2.0
    raw.close()
    await assert_answers(books, ann)


@pytest.mark.anyio
async def test_a_full_archive_keeps_rows_in_the_core(books: Books) -> None:
    ann = await prepared(books)
    await books.record(*(old(ann, f"more{number}", session_id="s" * 200) for number in range(200)), line(ann, "newest"))
    before = await books.told([ann])
    books.archive._open_added().execute("PRAGMA max_page_count = 1")
    with pytest.raises(Unavailable, match="full"):
        await books.move()
    assert (books.kept(), books.archived()) == (203, 1)
    assert await books.record(line(ann, "meanwhile")) == [("accepted", None)]
    assert await books.move() == 200
    assert books.archived() == 201
    assert (await books.told([ann]))["rows"][:-1] == before["rows"]


@pytest.mark.anyio
async def test_a_restart_between_adding_and_deleting_moves_each_row_once(books: Books) -> None:
    ann = await books.user("user_ann")
    await books.record(*(old(ann, f"e{number}") for number in range(50)), line(ann, "newest"))
    before = await books.told([ann])
    await books.mover._prepare()
    rows = books.rows(f"SELECT {', '.join(archive_queries.COLUMNS)} FROM usage_logs LIMIT 30")
    await books.archive.add(archive_queries.insert_moved, rows)
    again = await reopen(books)
    assert await again.told([ann]) == before
    assert await again.record(old(ann, "e0")) == [("rejected", "conflict")]
    assert await again.move() == 50
    assert (again.kept(), again.archived()) == (1, 50)
    assert await again.told([ann]) == before
    await again.close()


@pytest.mark.anyio
async def test_a_row_whose_number_another_one_has_in_the_archive_stays(books: Books) -> None:
    ann = await prepared(books)
    await books.record(old(ann, "two"), line(ann, "three"))
    values = "SELECT 4, user_id, event_id, 1, 1, 1, '', 'x', 0, 0, zeroblob(16), zeroblob(16) FROM usage_logs"
    raw = sqlite.connect(books.ledger_path)
    raw.execute(
        f"""INSERT INTO usage_logs (id, user_id, event_id, total_tokens, input_tokens, output_tokens, created_at,
                source, occurred_at_ms, received_at_ms, event_key, content_hash) {values}"""
    )
    raw.close()
    assert await books.move() == 0
    assert books.rows("SELECT event_id FROM usage_logs ORDER BY id") == [("here",), ("last",), ("two",), ("three",)]


@pytest.mark.anyio
async def test_a_process_that_was_not_told_of_the_archive_writes_no_usage(books: Books) -> None:
    from app.edge.database import Database
    from app.usage import ledger
    from tests.usage.books import OPERATOR

    ann = await prepared(books)
    await books.close()
    alone = Database(books.path)
    alone.open()
    try:
        with pytest.raises(Unavailable, match="nobody said where"):
            await alone.write(ledger.record_received, [old(ann, "gone")], OPERATOR, now_ms())
    finally:
        await alone.close()


@pytest.mark.anyio
async def test_a_deleted_user_is_named_by_neither_file(books: Books) -> None:
    ann = await prepared(books)
    await books.db.write(users.delete, ann, now_ms())
    assert books.archived() == 1
    for path in (books.path, books.ledger_path):
        tables = rows_of(path, "SELECT name FROM sqlite_schema WHERE type = 'table'")
        assert ("usage_logs",) in tables
        assert "user_ann" not in repr([rows_of(path, f'SELECT * FROM "{name}"') for (name,) in tables])


@pytest.mark.anyio
async def test_a_row_stays_in_the_core_until_the_archives_backup_has_it(books: Books) -> None:
    """The disk that is lost between the two would take the row with it."""
    ann = await books.user("user_ann")
    await books.record(old(ann, "gone"), line(ann, "here"))
    asked: list[int] = []

    async def away() -> None:
        asked.append(books.archived())
        raise Unavailable("The replica is out of reach")

    async def there() -> None:
        asked.append(books.archived())

    before = books.kept()
    with pytest.raises(Unavailable):
        await Mover(books.db, books.archive, away).move(now_ms())
    assert books.kept() == before
    assert await Mover(books.db, books.archive, there).move(now_ms()) == 1
    assert books.kept() != before
    assert asked == [1, 1], "it is asked once the row is in the archive, and the row is added once"
